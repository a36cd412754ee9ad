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
	return t.confirmLine(ctx, q, byDefault)
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
	return t.inputLine(ctx, q, byDefault)
}

// ask runs one question of survey, which puts the terminal's state back itself.
func (t *Terminal) ask(ctx context.Context, question survey.Prompt, answer any) error {
	keys, err := newKeyboard(ctx, t.in)
	if err != nil {
		return err
	}
	defer keys.Close()
	core.DisableColor = t.getenv("NO_COLOR") != ""
	err = survey.AskOne(question, answer, survey.WithStdio(keys, t.out, t.out))
	if errors.Is(err, terminal.InterruptErr) || errors.Is(err, ErrInterrupted) {
		return ErrInterrupted
	}
	return err
}
