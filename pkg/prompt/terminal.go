package prompt

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/AlecAivazis/survey/v2"
	"github.com/AlecAivazis/survey/v2/core"
	"github.com/AlecAivazis/survey/v2/terminal"
	"golang.org/x/term"
)

// Terminal asks on a terminal.
type Terminal struct {
	in, out *os.File
	getenv  func(string) string
}

// NewTerminal reads answers from in and shows questions on out.
func NewTerminal(in, out *os.File, getenv func(string) string) *Terminal {
	return &Terminal{in: in, out: out, getenv: getenv}
}

// check is an error where nobody can answer.
func (t *Terminal) check(q Question) error {
	if !term.IsTerminal(int(t.in.Fd())) || !term.IsTerminal(int(t.out.Fd())) {
		return &NoTerminalError{Question: q}
	}
	return nil
}

// linesOnly tells whether the terminal cannot move its cursor.
func (t *Terminal) linesOnly() bool {
	kind := t.getenv("TERM")
	return kind == "dumb" || kind == ""
}

// Confirm implements [Prompter].
func (t *Terminal) Confirm(ctx context.Context, q Question, byDefault bool) (bool, error) {
	if err := t.check(q); err != nil {
		return false, err
	}
	if t.linesOnly() {
		return t.confirmLine(ctx, q, byDefault)
	}
	answer := byDefault
	err := t.ask(ctx, &survey.Confirm{Message: q.Text, Help: q.Help, Default: byDefault}, &answer)
	return answer, err
}

// Select implements [Prompter].
func (t *Terminal) Select(ctx context.Context, q Question, options []string, byDefault int) (int, error) {
	if err := t.check(q); err != nil {
		return 0, err
	}
	if len(options) == 0 {
		return 0, fmt.Errorf("%s: there is nothing to choose from", q.Text)
	}
	if t.linesOnly() {
		return t.selectLine(ctx, q, options, byDefault)
	}
	answer := byDefault
	err := t.ask(ctx, &survey.Select{Message: q.Text, Help: q.Help, Options: options, Default: byDefault, PageSize: 12}, &answer)
	return answer, err
}

// Input implements [Prompter].
func (t *Terminal) Input(ctx context.Context, q Question, byDefault string) (string, error) {
	if err := t.check(q); err != nil {
		return "", err
	}
	if t.linesOnly() {
		return t.inputLine(ctx, q, byDefault)
	}
	var answer string
	err := t.ask(ctx, &survey.Input{Message: q.Text, Help: q.Help, Default: byDefault}, &answer)
	return answer, err
}

// ask runs one question of survey. survey knows no context: when it ends, the
// terminal's state is put back and the question is abandoned where it stands;
// the process is about to end.
func (t *Terminal) ask(ctx context.Context, question survey.Prompt, answer any) error {
	if ctx.Err() != nil {
		return ErrInterrupted
	}
	state, err := term.GetState(int(t.in.Fd()))
	if err != nil {
		return fmt.Errorf("reading the terminal's state: %w", err)
	}
	core.DisableColor = t.getenv("NO_COLOR") != ""
	done := make(chan error, 1)
	go func() {
		done <- survey.AskOne(question, answer, survey.WithStdio(t.in, t.out, t.out))
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		_ = term.Restore(int(t.in.Fd()), state)
		_, _ = fmt.Fprintln(t.out)
		return ErrInterrupted
	}
	if errors.Is(err, terminal.InterruptErr) {
		return ErrInterrupted
	}
	return err
}
