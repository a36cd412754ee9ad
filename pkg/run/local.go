package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Local runs programs on this machine.
//
// When the context ends, the program's whole process group gets SIGINT, and
// SIGKILL after the grace. An interactive program shares the terminal's
// process group, where the keyboard's Ctrl-C reaches it without our help.
type Local struct {
	// Live receives the lines of streamed commands; nil drops them.
	Live io.Writer
	// Redact holds what must not leave the process.
	Redact *Redactor
	// Grace is the time between SIGINT and SIGKILL; 0 is ten seconds.
	Grace time.Duration
	// Stdin, Stdout and Stderr are the terminal of interactive commands; nil
	// is the process's own.
	Stdin, Stdout, Stderr *os.File
}

// Run implements [Runner].
func (l *Local) Run(ctx context.Context, c Command) (Result, error) {
	p := l.prepare(ctx, c)
	if ctx.Err() != nil {
		return Result{}, &Error{Command: l.Redact.Text(c.String()), Status: -1, Cause: context.Cause(ctx)}
	}
	err := p.cmd.Run()
	p.close(ctx)
	return p.outcome(ctx, err)
}

// process is one running command and the sinks of its output.
type process struct {
	local   *Local
	command Command
	cmd     *exec.Cmd
	stdout  bounded
	tail    tail
	liners  []*liner
}

func (l *Local) prepare(ctx context.Context, c Command) *process {
	p := &process{local: l, command: c}
	p.cmd = exec.CommandContext(ctx, c.Program, c.Args...)
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(os.Environ(), c.Env...)
	p.cmd.ExtraFiles = c.ExtraFiles
	p.cmd.WaitDelay = l.grace()
	if c.Interactive {
		p.cmd.Stdin = orFile(l.Stdin, os.Stdin)
		p.cmd.Stdout = orFile(l.Stdout, os.Stdout)
		p.cmd.Stderr = orFile(l.Stderr, os.Stderr)
		p.cmd.Cancel = func() error { return interruptForeground(ctx, p.cmd.Process) }
		return p
	}
	if c.Stdin != nil {
		p.cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	// Whoever kills this process does not leave a program behind that works on
	// unseen. (The kernel means the thread that started it; Go ends no thread
	// but those that a goroutine has locked, and none does here.)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.cmd.Cancel = func() error { return signalGroup(p.cmd.Process, syscall.SIGINT) }
	p.cmd.Stdout, p.cmd.Stderr = p.sinks()
	return p
}

// sinks are the writers behind the two output streams.
func (p *process) sinks() (stdout, stderr io.Writer) {
	if !p.command.Stream {
		return &p.stdout, &p.tail
	}
	live := p.local.Live
	if live == nil {
		live = io.Discard
	}
	// The tail gets whole lines, too: of mixed pieces no secret would be found. It
	// comes first, since the screen may be gone.
	var mu sync.Mutex
	lines := io.MultiWriter(&p.tail, live)
	out := &liner{mu: &mu, to: lines, redact: p.local.Redact}
	err := &liner{mu: &mu, to: lines, redact: p.local.Redact}
	p.liners = []*liner{out, err}
	return io.MultiWriter(&p.stdout, out), err
}

// close ends what is left of a cancelled command's group, and passes on
// unfinished lines.
func (p *process) close(ctx context.Context) {
	if ctx.Err() != nil && !p.command.Interactive && p.cmd.Process != nil {
		_ = signalGroup(p.cmd.Process, syscall.SIGKILL)
	}
	for _, l := range p.liners {
		l.flush()
	}
}

func (p *process) outcome(ctx context.Context, err error) (Result, error) {
	result := Result{
		Stdout: p.stdout.Bytes(),
		Tail:   p.local.Redact.Text(p.tail.String()),
		Status: -1,
	}
	if state := p.cmd.ProcessState; state != nil {
		result.Status = state.ExitCode()
	}
	// A background child that kept the pipes open is no failure.
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		err = nil
	}
	if err == nil {
		return result, nil
	}
	failure := &Error{
		Command: p.local.Redact.Text(p.command.String()),
		Status:  result.Status,
		Tail:    result.Tail,
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		failure.Cause = context.Cause(ctx)
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			failure.Signal = status.Signal()
		}
	default:
		failure.Cause = err
	}
	return result, failure
}

func (l *Local) grace() time.Duration {
	if l.Grace > 0 {
		return l.Grace
	}
	return 10 * time.Second
}

// signalGroup signals every process of the group that p leads.
func signalGroup(p *os.Process, sig syscall.Signal) error {
	err := syscall.Kill(-p.Pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("kill %d: %w", -p.Pid, err)
	}
	return nil
}

// interruptForeground passes the signal that ended ctx on to an interactive
// program. SIGINT came from the keyboard, which has sent it to the program as
// well; a second one would make some programs give up at once.
func interruptForeground(ctx context.Context, p *os.Process) error {
	var by *InterruptedError
	if errors.As(context.Cause(ctx), &by) && by.Signal == os.Interrupt {
		return nil
	}
	return p.Signal(syscall.SIGTERM)
}

func orFile(f, otherwise *os.File) *os.File {
	if f != nil {
		return f
	}
	return otherwise
}
