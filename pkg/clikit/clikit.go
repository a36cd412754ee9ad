// Package clikit gives every tool the same command line.
//
// A tool builds its cli.App with [New] and its main is
//
//	func main() { os.Exit(clikit.Main(install.App())) }
//
// Flags may stand anywhere, before or after arguments and subcommands; "--"
// ends them. The exit status is 0 for success, 1 for a failure that was
// reported on standard error, 2 for a wrong command line, which changes
// nothing. SIGINT, SIGTERM and SIGHUP end the context with a
// [run.InterruptedError] as its cause; a second signal ends the process.
package clikit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
)

// Exit statuses.
const (
	StatusOK     = 0
	StatusFailed = 1
	StatusUsage  = 2
)

// Example is a command line and what it is for.
type Example struct {
	// Command is the whole line, the tool's name included.
	Command string
	// Does says what happens, in one line.
	Does string
}

// File is a file that a tool reads or writes.
type File struct {
	Path, Does string
}

// Doc is what help and man page say beyond the flags.
type Doc struct {
	// Examples are shown at the end of -h and in the man page.
	Examples []Example
	// Files and Environment are shown in the man page.
	Files       []File
	Environment []File
	// Choices are the values that a placeholder can have.
	Choices map[string][]string
	// SeeAlso names other man pages: "nixos-update(8)".
	SeeAlso []string
}

// Where New keeps a Doc, and that an app does nothing without a command, in the
// app's metadata; and Run, how many arguments stood before "--".
const (
	docKey          = "nixos-go/doc"
	needsCommandKey = "nixos-go/needs-command"
	dashesKey       = "nixos-go/dashes"
)

// New gives an app the habits of all tools. The app's Usage is one line
// without a final dot; its Description is prose in paragraphs.
func New(app *cli.App, doc Doc) *cli.App {
	app.Metadata = map[string]any{docKey: doc}
	app.HelpName = app.Name
	app.HideHelp = true // help and version are ours: they read the same in every tool
	app.HideHelpCommand = true
	app.HideVersion = true
	app.Compiled = time.Unix(1, 0) // else the library looks at the binary on disk
	app.ExitErrHandler = func(*cli.Context, error) {}
	app.OnUsageError = usageError
	app.Flags = append(app.Flags,
		&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show this help"},
		&cli.BoolFlag{Name: "version", Usage: "show the version"})
	if app.Action == nil {
		app.Action = chooseCommand
		app.Metadata[needsCommandKey] = true
	}
	for _, command := range app.Commands {
		newCommand(command)
	}
	return app
}

func newCommand(command *cli.Command) {
	command.HideHelp = true
	command.HideHelpCommand = true
	command.OnUsageError = usageError
	if command.Action == nil {
		command.Action = chooseCommand
	}
	for _, sub := range command.Subcommands {
		newCommand(sub)
	}
}

// DocOf is the documentation that New was given.
func DocOf(app *cli.App) Doc {
	doc, _ := app.Metadata[docKey].(Doc)
	return doc
}

// chooseCommand is the action of a command that only has subcommands.
func chooseCommand(c *cli.Context) error {
	var names []string
	for _, command := range c.Command.Subcommands {
		if !command.Hidden {
			names = append(names, command.Name)
		}
	}
	choices := strings.Join(names, ", ")
	if !c.Args().Present() {
		return Usagef("which of %s?", choices)
	}
	return Usagef("unknown command %q: use one of %s", c.Args().First(), choices)
}

func usageError(_ *cli.Context, err error, _ bool) error {
	return &UsageError{Text: err.Error()}
}

// Main runs an app on the process's arguments and streams, and gives the exit
// status.
func Main(app *cli.App) int { return MainArgs(app, os.Args[1:]) }

// MainArgs is [Main] on other arguments, without the program's name.
func MainArgs(app *cli.App, args []string) int {
	ctx, stop := SignalContext(context.Background())
	defer stop()
	return Run(ctx, app, args, ui.ForTerminal(os.Stdout, os.Stderr, os.Getenv))
}

// Run runs an app on arguments (without the program's name). Errors and hints
// are told to u; help goes to its standard output.
func Run(ctx context.Context, app *cli.App, args []string, u *ui.UI) int {
	line, err := parse(app, args)
	words := []string{app.Name}
	for _, command := range line.commands {
		words = append(words, command.Name)
	}
	name := strings.Join(words, " ")
	switch {
	case err != nil:
		return report(u, name, err)
	case line.help:
		return report(u, name, u.Print(Help(app, line.commands, u)))
	case line.version:
		return report(u, name, u.Printf("%s %s", app.Name, Version()))
	}
	app.Metadata[dashesKey] = line.dashes
	err = app.RunContext(ctx, append([]string{app.Name}, line.args...))
	if cause, ok := errors.AsType[*run.InterruptedError](context.Cause(ctx)); ok && onlyStopped(err) {
		err = &stoppedError{cause: cause, err: err}
	}
	return report(u, name, err)
}

// stoppedError says of a work that was stopped no more than that: where it was just
// then, a person at the keyboard need not know.
type stoppedError struct {
	cause *run.InterruptedError
	err   error
}

// Error says how it was stopped.
func (s *stoppedError) Error() string { return s.cause.Error() }

// Unwrap is the error of the work, which may carry a hint.
func (s *stoppedError) Unwrap() error { return s.err }

// onlyStopped tells whether an error comes from the end of a context and from nothing
// else.
func onlyStopped(err error) bool {
	switch e := err.(type) { //nolint:errorlint // each link of the chain is looked at for itself
	case nil:
		return false
	case *run.InterruptedError:
		return true
	case interface{ Unwrap() error }:
		return onlyStopped(e.Unwrap())
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !onlyStopped(err) })
	}
	return err == context.Canceled //nolint:errorlint // the end of a chain
}

// report tells an error and gives the exit status; name is the tool with its command.
func report(u *ui.UI, name string, err error) int {
	var usage *UsageError
	var status *StatusError
	switch {
	case err == nil:
		return StatusOK
	case errors.Is(err, ErrReported):
		return StatusFailed
	case errors.As(err, &status):
		return status.Status
	case errors.As(err, &usage):
		u.Errorf("%v", err)
		if usage.App != "" {
			name = usage.App
		}
		u.Hintf("%s --help shows how it is used", name)
		return StatusUsage
	}
	u.Errorf("%v", err)
	if hint, ok := errors.AsType[*hintError](err); ok {
		u.Hintf("%s", hint.hint)
	}
	return StatusFailed
}

// SignalContext is a context that the first SIGINT, SIGTERM or SIGHUP ends,
// with a [run.InterruptedError] as its cause. The second one has its default
// effect.
func SignalContext(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 1)
	signal.Notify(received, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		select {
		case s := <-received:
			cancel(&run.InterruptedError{Signal: s})
		case <-ctx.Done():
		}
		signal.Stop(received)
	}()
	return ctx, func() { cancel(nil) }
}

// UsageError is a command line that cannot be carried out as it was typed.
type UsageError struct {
	// App is the tool to ask for help, where it is not the one that runs.
	App  string
	Text string
}

// Error is the text.
func (e *UsageError) Error() string { return e.Text }

// Usagef makes a [UsageError].
func Usagef(format string, args ...any) error {
	return &UsageError{Text: fmt.Sprintf(format, args...)}
}

// NoArgs is a usage error where arguments were given.
func NoArgs(c *cli.Context) error {
	if c.Args().Present() {
		return Usagef("unexpected argument %q", c.Args().First())
	}
	return nil
}

// SplitArgs are the arguments before and after "--", for a command to which that
// makes a difference.
func SplitArgs(c *cli.Context) (before, after []string) {
	args := c.Args().Slice()
	if at, ok := c.App.Metadata[dashesKey].(int); ok && at >= 0 {
		return args[:at], args[at:]
	}
	return args, nil
}

// StatusError ends a tool with the status of a program that it has run for the
// person, and that has told itself what there was to tell.
type StatusError struct {
	Status int
}

// Error names the status.
func (s *StatusError) Error() string { return fmt.Sprintf("exit status %d", s.Status) }

// ErrReported is a failure that the tool has told already; it only sets the
// exit status to 1.
var ErrReported = errors.New("the failure was reported")

// hintError carries what to do about an error.
type hintError struct {
	error

	hint string
}

// Unwrap is the error without its hint.
func (h *hintError) Unwrap() error { return h.error }

// WithHint adds what to do next to an error; nil stays nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hintError{error: err, hint: fmt.Sprintf(format, args...)}
}
