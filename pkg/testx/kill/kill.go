// Package kill ends the test's own process, as a power cut or an impatient
// owner does: nothing is deferred, nothing is flushed.
package kill

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nixos-go/pkg/run"
)

// Now kills this process.
func Now() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives
}

// Runner kills this process at the first command with certain words: before
// the command ("token import-") or right after it ("token import+"). A program's
// word is its name, without a folder. Points that no command has never come.
func Runner(base run.Runner, point string) run.Runner {
	return &runner{Runner: base, words: " " + point[:len(point)-1] + " ", after: strings.HasSuffix(point, "+")}
}

type runner struct {
	run.Runner

	words string
	after bool
}

// Run implements [run.Runner].
func (r *runner) Run(ctx context.Context, c run.Command) (run.Result, error) {
	words := append([]string{"", filepath.Base(c.Program)}, c.Args...)
	here := strings.Contains(strings.Join(append(words, ""), " "), r.words)
	if here && !r.after {
		Now()
	}
	result, err := r.Runner.Run(ctx, c)
	if here {
		Now()
	}
	return result, err
}

// Run runs a process that must die by [Now].
func Run(t *testing.T, process *exec.Cmd) {
	t.Helper()
	output, err := process.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if ok {
		status, unix := exit.Sys().(syscall.WaitStatus)
		ok = unix && status.Signal() == syscall.SIGKILL
	}
	if !ok {
		t.Fatalf("the process that should be killed = %v\n%s", err, output)
	}
}
