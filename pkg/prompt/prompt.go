// Package prompt asks the person at the terminal. It is the only importer of
// survey; to leave that library, this package alone changes.
//
// Questions go to standard error, so that a result on standard output stays
// clean. Without a terminal every question is a [*NoTerminalError] that names
// the flag which answers it. Ctrl-C, Ctrl-D and the end of the context are
// [ErrInterrupted]; the terminal's state is put back first. Passwords are
// bytes that the caller wipes; they are never strings.
//
// Only the choice from a list is survey's, and only where the terminal can
// move its cursor (not under TERM=dumb). For its other questions survey asks
// the terminal where the cursor is: it waits for ever on a serial console
// where nobody answers, and loses what was typed before the answer came. Those
// are lines here, edited by the kernel.
package prompt

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"nixos-go/pkg/run"
)

// ErrInterrupted is a question that was left without an answer.
var ErrInterrupted = errors.New("interrupted")

// ErrMismatch is a password whose two entries differed, three times.
var ErrMismatch = errors.New("the two entries differ")

// Question is what a person is asked.
type Question struct {
	// Text is the question, without a colon.
	Text string
	// Help is a longer explanation, shown on request or before the question.
	Help string
	// Flag is what answers the question without a terminal, as typed:
	// "--disk NAME".
	Flag string
}

// Prompter asks questions.
type Prompter interface {
	// Confirm asks for yes or no.
	Confirm(ctx context.Context, q Question, byDefault bool) (bool, error)
	// Select asks for one of the options and gives its index.
	Select(ctx context.Context, q Question, options []string, byDefault int) (int, error)
	// Input asks for a line of text.
	Input(ctx context.Context, q Question, byDefault string) (string, error)
	// Password asks for a secret, not shown while typed. The caller wipes it.
	Password(ctx context.Context, q Question) ([]byte, error)
}

// NoTerminalError is a question that nobody can answer.
type NoTerminalError struct {
	Question Question
}

// Error names the question and the flag.
func (e *NoTerminalError) Error() string {
	text := fmt.Sprintf("cannot ask %q: there is no terminal", e.Question.Text)
	if e.Question.Flag != "" {
		text += "; use " + e.Question.Flag
	}
	return text
}

// attempts is how often a new password may be mistyped.
const attempts = 3

// NewPassword asks for a new secret twice, until both entries are the same and
// check accepts it. A refusal is told by say, and the question comes again. An
// error of check in the last attempt is returned.
func NewPassword(ctx context.Context, p Prompter, q Question, check func([]byte) error, say func(string)) ([]byte, error) {
	var last error
	for range attempts {
		secret, err := enterTwice(ctx, p, q)
		if err == nil && check != nil {
			err = check(secret)
		}
		if err == nil {
			return secret, nil
		}
		run.Wipe(secret)
		var noTerminal *NoTerminalError
		if errors.Is(err, ErrInterrupted) || errors.As(err, &noTerminal) || ctx.Err() != nil {
			return nil, err
		}
		last = err
		say(err.Error())
		q.Help = "" // has been read
	}
	return nil, fmt.Errorf("%s: %w", q.Text, last)
}

func enterTwice(ctx context.Context, p Prompter, q Question) ([]byte, error) {
	first, err := p.Password(ctx, q)
	if err != nil {
		return nil, err
	}
	again := q
	again.Text += " (again)"
	again.Help = ""
	second, err := p.Password(ctx, again)
	if err != nil {
		run.Wipe(first)
		return nil, err
	}
	defer run.Wipe(second)
	if subtle.ConstantTimeCompare(first, second) != 1 {
		run.Wipe(first)
		return nil, ErrMismatch
	}
	return first, nil
}
