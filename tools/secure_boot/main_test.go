package secureboottool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"nixos-go/pkg/testx/fakeesp"
)

// killArg makes the test's own program the process that is killed.
const killArg = "killed-process"

func TestMain(m *testing.M) {
	if len(os.Args) > 4 && os.Args[1] == killArg {
		os.Exit(killed(os.Args[2], os.Args[3], os.Args[4]))
	}
	os.Exit(m.Run())
}

// killed changes a machine and dies at a point. "undo" lies on the way back
// from a rebuild that is not fit to boot.
func killed(dir, action, point string) int {
	keys, err := fakeesp.LoadKeys(filepath.Join(dir, "keys-of-the-test"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m := open(fakeesp.Panic{}, dir, keys)
	if runner, ok := m.runner.(*nixos); ok && (point == "undo-" || point == "undo+") {
		runner.rebuilt = func() { m.esp.Standard(41) }
	}
	m.hooks.Step = func(kind string, done bool) {
		if kind+map[bool]string{true: "+", false: "-"}[done] == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}
	}
	status := m.run(context.Background(), action, "--yes")
	fmt.Fprintln(os.Stderr, m.err.String())
	return status
}
