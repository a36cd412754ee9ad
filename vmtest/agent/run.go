package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"nixos-go/pkg/run"
)

// killPatience bounds the sending of the order to end a program.
const killPatience = time.Second

// Command is a program to run in the guest.
type Command struct {
	// Argv is the program and its arguments; no shell is involved.
	Argv []string
	// Env holds KEY=VALUE pairs added to the agent's environment.
	Env []string
	// Dir is the working directory; empty is the root.
	Dir string
	// Stdin is what it reads.
	Stdin []byte
	// Stdout and Stderr get the output while it comes, beside the result; nil
	// is nobody.
	Stdout, Stderr io.Writer
}

// String is the command as one would type it.
func (c Command) String() string {
	words := make([]string, len(c.Argv))
	for i, word := range c.Argv {
		words[i] = run.Quote(word)
	}
	return strings.Join(words, " ")
}

// Result is what a program left behind.
type Result struct {
	Stdout, Stderr []byte
	// Status is the exit status, -1 where a signal ended it.
	Status int
	// Duration is measured in the guest.
	Duration time.Duration
}

// ExitError is a program of the guest that has failed.
type ExitError struct {
	// Command is what ran.
	Command Command
	// Result is what it left.
	Result Result
	// Signal is what ended it, 0 for none.
	Signal syscall.Signal
}

// Error names the command, what became of it, and the end of its output.
func (e *ExitError) Error() string {
	text := fmt.Sprintf("guest: %s: exit status %d", e.Command, e.Result.Status)
	if e.Signal != 0 {
		text = fmt.Sprintf("guest: %s: ended by signal %v", e.Command, e.Signal)
	}
	return text + tail(e.Result.Stdout) + tail(e.Result.Stderr)
}

// tail is the end of an output on indented lines of its own.
func tail(output []byte) string {
	s := strings.TrimSpace(string(output))
	if s == "" {
		return ""
	}
	return "\n  " + strings.ReplaceAll(s[max(0, len(s)-4096):], "\n", "\n  ")
}

// Run runs a program in the guest and waits for its end. Another status than 0
// is an [*ExitError], beside the result; one that could not be started a
// [*RemoteError]. When the context ends, the program's process group is killed.
func (c *Client) Run(ctx context.Context, command Command) (Result, error) {
	r := Request{Op: OpRun, Argv: command.Argv, Env: command.Env, Dir: command.Dir, Stdin: command.Stdin}
	called, err := c.begin(ctx, &r)
	if err != nil {
		return Result{}, err
	}
	defer c.leave(r.ID, called)
	var stdout, stderr bytes.Buffer
	var exit Exit
	err = c.await(ctx, r, called, command.String(), func(reply Reply) error {
		stdout.Write(reply.Stdout)
		stderr.Write(reply.Stderr)
		if reply.Exit != nil {
			exit = *reply.Exit
		}
		if err := pass(command.Stdout, reply.Stdout); err != nil {
			return err
		}
		return pass(command.Stderr, reply.Stderr)
	})
	if err != nil && ctx.Err() != nil {
		// The guest may be gone, or hang: then it cannot be helped.
		kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
		defer cancel()
		_ = c.write(kill, Request{ID: r.ID, Op: OpKill, Target: r.ID})
	}
	result := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Status: exit.Status, Duration: exit.Duration}
	if err == nil && exit.Status != 0 {
		err = &ExitError{Command: command, Result: result, Signal: syscall.Signal(exit.Signal)}
	}
	return result, err
}

func pass(to io.Writer, b []byte) error {
	if to == nil || len(b) == 0 {
		return nil
	}
	_, err := to.Write(b)
	return err
}

// Output runs a program and returns its standard output.
func (c *Client) Output(ctx context.Context, argv ...string) (string, error) {
	result, err := c.Run(ctx, Command{Argv: argv})
	return string(result.Stdout), err
}

// Shell runs a script by the guest's /bin/sh, which stops at the first error
// and at unset variables, and returns its standard output. Arguments are $1 and
// so on, never parts of the script.
func (c *Client) Shell(ctx context.Context, script string, args ...string) (string, error) {
	return c.Output(ctx, append([]string{"/bin/sh", "-euc", script, "sh"}, args...)...)
}
