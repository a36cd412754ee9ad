package run

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
)

// Any matches one argument, whatever it is, in [Recorder.On].
const Any = "*"

// Call is a command as a recorder saw it. Of a secret standard input it keeps
// the digest alone.
type Call struct {
	Command Command
	stdin   [sha256.Size]byte
}

// StdinIs tells whether the program was given exactly these bytes to read.
func (c Call) StdinIs(want []byte) bool {
	return c.stdin == sha256.Sum256(want)
}

// Recorder is a runner for tests: it runs nothing, answers as it was told and
// records every command. A command without an answer is an error.
type Recorder struct {
	mu    sync.Mutex
	rules []*Rule
	calls []Call
}

// Rule is the answer to the commands that match it.
type Rule struct {
	program string
	args    []string
	left    int // -1 is without end
	answer  func(ctx context.Context, c Command) (Result, error)
}

// On makes a rule for a program and its first arguments. The newest rule that
// matches answers; it answers with an empty success until told otherwise.
func (r *Recorder) On(program string, args ...string) *Rule {
	rule := &Rule{program: program, args: args, left: -1}
	rule.Reply("")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rules = append(r.rules, rule)
	return rule
}

// Reply answers with a standard output and success.
func (r *Rule) Reply(stdout string) *Rule {
	return r.Do(func(context.Context, Command) (Result, error) {
		return Result{Stdout: []byte(stdout)}, nil
	})
}

// Fail answers with an exit status and what stands on standard error.
func (r *Rule) Fail(status int, stderr string) *Rule {
	return r.Do(func(_ context.Context, c Command) (Result, error) {
		return Result{Status: status, Tail: stderr},
			&Error{Command: c.String(), Status: status, Tail: stderr}
	})
}

// Do answers by a function.
func (r *Rule) Do(answer func(ctx context.Context, c Command) (Result, error)) *Rule {
	r.answer = answer
	return r
}

// Times limits how often the rule answers.
func (r *Rule) Times(n int) *Rule {
	r.left = n
	return r
}

func (r *Rule) matches(c Command) bool {
	if r.left == 0 || c.Program != r.program || len(c.Args) < len(r.args) {
		return false
	}
	for i, want := range r.args {
		if want != Any && want != c.Args[i] {
			return false
		}
	}
	return true
}

// Run implements [Runner].
func (r *Recorder) Run(ctx context.Context, c Command) (Result, error) {
	answer := r.record(c)
	if ctx.Err() != nil {
		return Result{}, &Error{Command: c.String(), Status: -1, Cause: context.Cause(ctx)}
	}
	if answer == nil {
		return Result{}, &Error{Command: c.String(), Status: -1, Cause: fmt.Errorf("no answer was recorded for %q", c.String())}
	}
	return answer(ctx, c)
}

func (r *Recorder) record(c Command) func(context.Context, Command) (Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	call := Call{Command: c, stdin: sha256.Sum256(c.Stdin)}
	call.Command.Args = slices.Clone(c.Args)
	call.Command.Stdin = slices.Clone(c.Stdin)
	if c.Secret {
		call.Command.Stdin = nil
	}
	r.calls = append(r.calls, call)
	for _, rule := range slices.Backward(r.rules) {
		if rule.matches(c) {
			if rule.left > 0 {
				rule.left--
			}
			return rule.answer
		}
	}
	return nil
}

// Calls are the commands so far, in order.
func (r *Recorder) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Lines are the commands so far as one would type them.
func (r *Recorder) Lines() []string {
	calls := r.Calls()
	lines := make([]string, 0, len(calls))
	for _, call := range calls {
		lines = append(lines, call.Command.String())
	}
	return lines
}
