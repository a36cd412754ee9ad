package secureboottool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakeesp"
	"nixos-go/pkg/testx/kill"
	"nixos-go/pkg/testx/standin"
	secureboottool "nixos-go/tools/secure_boot"
)

// killArg makes the test's own program the process that is killed.
const killArg = "killed-process"

// toolArg makes it the tool, on the machine in the folder $MACHINE.
const toolArg = "tool-process"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == toolArg {
		os.Exit(atTerminal(os.Args[2:]))
	}
	if len(os.Args) > 4 && os.Args[1] == killArg {
		os.Exit(killed(os.Args[2], os.Args[3], os.Args[4]))
	}
	commands := standin.Commands("git", "sbctl", "nixos-rebuild", "nix-env")
	commands["nixos-secure-boot"] = func() {
		env := clikit.System()
		env.UID = 0 // on a machine of the test's own
		env.Host.Files = run.Below(os.Getenv("MACHINE"))
		if os.Getenv("USER_IS") == "nobody" {
			env.UID = 65534
		}
		os.Exit(clikit.Main(secureboottool.New(env, secureboottool.Hooks{})))
	}
	aside = standin.NewAside(m)
	testscript.Main(aside, commands)
}

// aside keeps the stand-ins out of the other tests.
var aside *standin.Aside

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			m := newMachine(t)
			e.Setenv("MACHINE", m.dir)
			e.Setenv("NIXOS_GO_ROOT", filepath.Join(m.dir, "etc/nixos"))
			return aside.Setup(e)
		},
	})
}

// atTerminal is the tool as a person runs it, on a machine that plays along.
func atTerminal(args []string) int {
	dir := os.Getenv("MACHINE")
	keys, err := fakeesp.LoadKeys(filepath.Join(dir, "keys-of-the-test"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m := open(fakeesp.Panic{}, dir, keys)
	env := clikit.System()
	env.UID = 0 // on a machine of the test's own
	env.Host = run.Host{Runner: m.runner, Files: run.Below(dir)}
	ctx, stop := clikit.SignalContext(context.Background())
	defer stop()
	if runner, ok := m.runner.(*nixos); ok {
		switch os.Getenv("REBUILD") {
		case "unfit":
			runner.rebuilt = func() { m.esp.Standard(41) }
		case "waits": // for Ctrl-C
			runner.rebuilt = func() { <-ctx.Done() }
		}
	}
	return clikit.Run(ctx, secureboottool.New(env, secureboottool.Hooks{}), args, env.UI)
}

// goingBack are points on the way back from a rebuild that is not fit to boot.
var goingBack = []string{"undo-", "undo+", "nix-env-", "nix-env+"}

// killed changes a machine and dies at a point, of the steps or of the commands.
func killed(dir, action, point string) int {
	keys, err := fakeesp.LoadKeys(filepath.Join(dir, "keys-of-the-test"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m := open(fakeesp.Panic{}, dir, keys)
	if runner, ok := m.runner.(*nixos); ok && slices.Contains(goingBack, point) {
		runner.rebuilt = func() { m.esp.Standard(41) }
	}
	m.runner = kill.Runner(m.runner, point)
	m.hooks.Step = func(kind string, done bool) {
		if kind+map[bool]string{true: "+", false: "-"}[done] == point {
			kill.Now()
		}
	}
	status := m.run(context.Background(), action, "--yes")
	fmt.Fprintln(os.Stderr, m.err.String())
	return status
}
