package changepassword_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/kill"
	"nixos-go/pkg/testx/leak"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/testx/standin"
	"nixos-go/pkg/ui"
	changepassword "nixos-go/tools/change_password"
)

// killArg makes the test's own program the process that is killed.
const killArg = "killed-process"

// toolArg makes it the tool, on the machine in the folder $MACHINE.
const toolArg = "tool-process"

// memoryArg makes it the process whose memory is looked through.
const memoryArg = "memory-process"

// aside keeps the stand-ins out of the tests with real programs.
var aside *standin.Aside

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == toolArg {
		env := clikit.System()
		env.UID = 0 // on a machine of the test's own
		env.Host = run.Host{Runner: local(), Files: run.Below(os.Getenv("MACHINE"))}
		ctx, stop := clikit.SignalContext(context.Background())
		status := clikit.Run(ctx, changepassword.New(env, changepassword.Hooks{}), os.Args[2:], env.UI)
		stop()
		os.Exit(status)
	}
	if len(os.Args) > 3 && os.Args[1] == killArg {
		os.Exit(killed(os.Args[2], os.Args[3]))
	}
	if len(os.Args) > 3 && os.Args[1] == memoryArg {
		os.Exit(inMemory(os.Args[2], os.Args[3:]))
	}
	commands := standin.Commands("cryptsetup", "systemd-cryptenroll")
	commands["nixos-change-password"] = func() {
		env := clikit.System()
		env.UID = 0 // on a machine of the test's own
		env.Host.Files = run.Below(os.Getenv("MACHINE"))
		if os.Getenv("USER_IS") == "nobody" {
			env.UID = 65534
		}
		os.Exit(clikit.Main(changepassword.New(env, changepassword.Hooks{})))
	}
	aside = standin.NewAside(m)
	testscript.Main(aside, commands)
}

// inMemory runs the tool on a machine and prints how often each password stands
// in memory afterwards. The secrets come from files or from the keyboard; what
// they are is only ever known inverted here.
func inMemory(dir string, args []string) int {
	env := clikit.System()
	env.UID = 0 // on a machine of the test's own
	env.Host = run.Host{Runner: local(), Files: run.Below(dir)}
	status := clikit.Run(context.Background(), changepassword.New(env, changepassword.Hooks{}), args, env.UI)
	if err := leak.ReportMemory(dir, "old", "new"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// killed changes the passwords of a machine and dies at a point, of the steps or
// of the commands.
func killed(dir, point string) int {
	env := clikit.System()
	env.UID = 0 // on a machine of the test's own
	env.Host = run.Host{Runner: kill.Runner(local(), point), Files: run.Below(dir)}
	hooks := changepassword.Hooks{Step: func(kind string, done bool) {
		if fmtPoint(kind, done) == point {
			kill.Now()
		}
	}}
	return clikit.Run(context.Background(), changepassword.New(env, hooks), []string{
		"--current-password-file", filepath.Join(dir, "old"), "--password-file", filepath.Join(dir, "new"),
	}, env.UI)
}

func TestScripts(t *testing.T) {
	luksfile.Need(t, "cryptsetup") // a script's set-up cannot skip the test
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			m := newMachine(t, oldPassword)
			if err := os.WriteFile(filepath.Join(m.dir, "old"), []byte(oldPassword+"\n"), 0o600); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(m.dir, "new"), []byte(newPassword+"\n"), 0o600); err != nil {
				return err
			}
			e.Setenv("MACHINE", m.dir)
			return aside.Setup(e)
		},
	})
}

// runWith is run with another person.
func (m *machine) runWith(ctx context.Context, runner run.Runner, ask prompt.Prompter, hooks changepassword.Hooks, args ...string) int {
	m.out.Reset()
	m.err.Reset()
	u := ui.New(&m.out, &m.err, ui.Options{})
	env := &clikit.Env{
		UI: u, Host: run.Host{Runner: runner, Files: run.Below(m.dir)}, Ask: ask, Redact: m.redact,
		Getenv: func(string) string { return "" },
	}
	return clikit.Run(ctx, changepassword.New(env, hooks), args, u)
}
