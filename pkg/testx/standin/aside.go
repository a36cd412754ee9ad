package standin

import (
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// Aside keeps the stand-ins out of tests that want the real programs: wrapped
// in it, the tests run with PATH as it was, and only scripts whose set-up calls
// [Aside.Setup] see the stand-ins.
//
//	testscript.Main(standin.NewAside(m), commands)
type Aside struct {
	tests        testscript.TestingM
	real, script string
}

// NewAside must be called before [testscript.Main].
func NewAside(tests testscript.TestingM) *Aside {
	return &Aside{tests: tests, real: os.Getenv("PATH")}
}

// Run implements [testscript.TestingM].
func (a *Aside) Run() int {
	a.script = os.Getenv("PATH")
	if err := os.Setenv("PATH", a.real); err != nil {
		panic(err) // a name that cannot be wrong
	}
	return a.tests.Run()
}

// Setup is [Setup] for a script that sees the stand-ins.
func (a *Aside) Setup(env *testscript.Env) error {
	env.Setenv("PATH", a.script)
	return Setup(env)
}
