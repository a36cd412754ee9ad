package run

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Error is a program that could not be started, was stopped, or failed.
//
// The *exec.ExitError below it is not part of the chain: it has a method
// ExitCode, which urfave/cli takes for an order to end the process.
type Error struct {
	// Command is the command line, redacted.
	Command string
	// Status is the exit status; -1 where the program did not start or a
	// signal ended it.
	Status int
	// Signal is what ended it, 0 for none.
	Signal syscall.Signal
	// Tail is the end of its output, redacted.
	Tail string
	// Cause is why it did not run to its end: a *exec.Error, the cause of the
	// context's end; nil where it simply failed.
	Cause error
}

// Error names the command, what became of it, and the end of its output.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Command)
	b.WriteString(": ")
	b.WriteString(e.reason())
	if tail := strings.TrimSpace(e.Tail); tail != "" {
		b.WriteString("\n")
		b.WriteString(indent(tail))
	}
	return b.String()
}

func (e *Error) reason() string {
	switch {
	case errors.Is(e.Cause, exec.ErrNotFound):
		return "program not found"
	case e.Cause != nil:
		return e.Cause.Error()
	case e.Signal != 0:
		return "ended by signal " + e.Signal.String()
	default:
		return fmt.Sprintf("exit status %d", e.Status)
	}
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}

// Unwrap is the cause, nil where the program ran and failed.
func (e *Error) Unwrap() error { return e.Cause }

// InterruptedError is the cause of a context that a signal ended.
type InterruptedError struct {
	Signal os.Signal
}

// Error names the signal.
func (i *InterruptedError) Error() string {
	if i.Signal == syscall.SIGINT {
		return "interrupted"
	}
	return "stopped by signal " + i.Signal.String()
}

// StatusOf is the exit status in an error's chain; ok is false where the
// error is no program that ran to its end.
func StatusOf(err error) (status int, ok bool) {
	var e *Error
	if !errors.As(err, &e) || e.Cause != nil || e.Status < 0 {
		return 0, false
	}
	return e.Status, true
}
