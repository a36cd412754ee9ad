package prompt

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Answer is what a [Scripted] prompter says to the next question.
type Answer struct {
	// To must be part of the question's text.
	To string
	// Say is the answer: "yes" or "no", an option or part of one, a text, a
	// password; "" takes the default.
	Say string
	// Err is given instead of an answer.
	Err error
}

// Scripted answers questions in order, for tests. A question that the script
// does not expect is an error.
type Scripted struct {
	Answers []Answer
	// Asked are the texts of the questions so far.
	Asked []string
}

func (s *Scripted) next(ctx context.Context, q Question) (string, error) {
	if ctx.Err() != nil {
		return "", ErrInterrupted
	}
	s.Asked = append(s.Asked, q.Text)
	if len(s.Answers) == 0 {
		return "", fmt.Errorf("unexpected question %q", q.Text)
	}
	answer := s.Answers[0]
	if !strings.Contains(q.Text, answer.To) {
		return "", fmt.Errorf("question %q, but the script expects one with %q", q.Text, answer.To)
	}
	s.Answers = s.Answers[1:]
	return answer.Say, answer.Err
}

// Confirm implements [Prompter].
func (s *Scripted) Confirm(ctx context.Context, q Question, byDefault bool) (bool, error) {
	say, err := s.next(ctx, q)
	if err != nil || say == "" {
		return byDefault && err == nil, err
	}
	if say != "yes" && say != "no" {
		return false, fmt.Errorf("question %q wants yes or no, the script says %q", q.Text, say)
	}
	return say == "yes", nil
}

// Select implements [Prompter].
func (s *Scripted) Select(ctx context.Context, q Question, options []string, byDefault int) (int, error) {
	say, err := s.next(ctx, q)
	if err != nil || say == "" {
		return byDefault, err
	}
	i := slices.IndexFunc(options, func(option string) bool { return strings.Contains(option, say) })
	if i < 0 {
		return 0, fmt.Errorf("question %q has no option with %q: %q", q.Text, say, options)
	}
	return i, nil
}

// Input implements [Prompter].
func (s *Scripted) Input(ctx context.Context, q Question, byDefault string) (string, error) {
	say, err := s.next(ctx, q)
	if say == "" {
		say = byDefault
	}
	return say, err
}

// Password implements [Prompter].
func (s *Scripted) Password(ctx context.Context, q Question) ([]byte, error) {
	say, err := s.next(ctx, q)
	if err != nil {
		return nil, err
	}
	return []byte(say), nil
}
