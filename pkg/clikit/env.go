package clikit

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
)

// Env is the world a tool works in. Tools receive it and reach for nothing
// beside it, so that a test can put another in its place.
type Env struct {
	// UI speaks.
	UI *ui.UI
	// Host runs programs and holds the files of the machine.
	Host run.Host
	// Ask asks the person.
	Ask prompt.Prompter
	// Redact keeps registered secrets out of messages.
	Redact *run.Redactor
	// UID is the effective user.
	UID int
	// Getenv reads the environment.
	Getenv func(string) string
}

// System is the real world.
func System() *Env {
	u := ui.ForTerminal(os.Stdout, os.Stderr, os.Getenv)
	redact := &run.Redactor{}
	return &Env{
		UI:     u,
		Host:   run.LocalHost(&run.Local{Live: u.Live(), Redact: redact}),
		Ask:    prompt.NewTerminal(os.Stdin, os.Stderr, os.Getenv),
		Redact: redact,
		UID:    os.Geteuid(),
		Getenv: os.Getenv,
	}
}

// RequireRoot is one line for those who are not root. The command is what they
// typed, without sudo.
func (e *Env) RequireRoot(command string) error {
	if e.UID == 0 {
		return nil
	}
	return fmt.Errorf("%s must be run as root: sudo %s", command, command)
}

// Options are the flags that every tool has.
type Options struct {
	// JSON asks for the result as JSON.
	JSON bool
	// DryRun asks for the plan alone.
	DryRun bool
	// Yes answers every question that has a safe answer with yes.
	Yes bool
}

// OptionsOf reads the common flags, wherever in the chain they are defined.
func OptionsOf(c *cli.Context) Options {
	return Options{JSON: c.Bool("json"), DryRun: c.Bool("dry-run"), Yes: c.Bool("yes")}
}

// JSONFlag asks for JSON.
func JSONFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "write the result as JSON"}
}

// DryRunFlag asks for the plan alone.
func DryRunFlag() cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "show what would be done, change nothing"}
}

// YesFlag is for unattended use.
func YesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask, for unattended use"}
}

// FlakeFlag names the folder of the configuration.
func FlakeFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "flake", EnvVars: []string{"NIXOS_GO_ROOT"}, Value: "/etc/nixos",
		Usage: "the configuration is in `DIR`",
	}
}

// Confirm asks for a go-ahead; --yes gives it. No is the default.
func (e *Env) Confirm(ctx context.Context, o Options, text, help string) (bool, error) {
	if o.Yes {
		return true, nil
	}
	return e.Ask.Confirm(ctx, prompt.Question{Text: text, Help: help, Flag: "--yes"}, false)
}

// ErrDeclined is a go-ahead that was not given.
var ErrDeclined = errors.New("not agreed; nothing was changed")

// Agree is [Env.Confirm] before the first change: a no is [ErrDeclined].
func (e *Env) Agree(ctx context.Context, o Options, text, help string) error {
	agreed, err := e.Confirm(ctx, o, text, help)
	if err != nil {
		return Unchanged(err)
	}
	if !agreed {
		return ErrDeclined
	}
	return nil
}

// Unchanged is the error of a question before the first change. Who left it by
// Ctrl-C reads that nothing was changed.
func Unchanged(err error) error {
	if errors.Is(err, prompt.ErrInterrupted) {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return err
}
