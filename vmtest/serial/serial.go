// Package serial reads the log of a serial console while it grows, waits for
// what must appear in it, and ends a wait early where something appears that
// says that it never will.
//
// The log is a file that QEMU writes, so it is complete whoever reads it and
// whenever. Patterns match the text with carriage returns and terminal escape
// sequences taken out; each wait goes on where the last one ended, so that what
// was seen once is not seen again.
package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
)

// poll is how often the file is looked at.
const poll = 15 * time.Millisecond

// Failures are the patterns of a boot that has gone wrong for good.
func Failures() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`Kernel panic - not syncing: .*`),
		regexp.MustCompile(`(?:You are in|Welcome to) emergency mode.*`),
		regexp.MustCompile(`(?:Entering|Starting) emergency mode.*`),
		regexp.MustCompile(`Reached target .*emergency\.target.*`),
		regexp.MustCompile(`Cannot open access to console, the root account is locked.*`),
		regexp.MustCompile(`(?:watchdog: )?BUG: soft lockup.*`),
		regexp.MustCompile(`Freezing execution.*`),
		regexp.MustCompile(`BdsDxe: No bootable option or device was found.*`),
	}
}

// FailedError says that the console shows a failure.
type FailedError struct {
	// Text is the line that shows it.
	Text string
}

// Error is that line.
func (e *FailedError) Error() string { return "the console says: " + e.Text }

// MissingError says that something did not appear in time.
type MissingError struct {
	// Pattern is what was waited for.
	Pattern string
	// Tail is the end of the log.
	Tail string
	// Cause is why the wait ended.
	Cause error
}

// Error names the pattern and shows the end of the log.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%q did not appear on the console: %v; its end:\n%s", e.Pattern, e.Cause, e.Tail)
}

// Unwrap is why the wait ended.
func (e *MissingError) Unwrap() error { return e.Cause }

// Log is the log of one console. Its methods may be called by several
// goroutines.
type Log struct {
	path string

	mu   sync.Mutex
	fail []*regexp.Regexp
	text string // what is in the file so far, cleaned
	read int64  // bytes of the file that are in text
	rest string // an escape sequence whose end is not there yet
	seen int    // where the next Expect begins, in text
	ok   int    // the failures before this are tolerated, in text
}

// Open reads the log in a file, which need not exist yet. Without fail
// patterns nothing ends a wait early.
func Open(path string, fail []*regexp.Regexp) *Log { return &Log{path: path, fail: fail} }

// escapes are the sequences of ECMA-48 that firmware and systemd send: control
// sequences, operating system commands, and the two-byte ones.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|[=>78cDEHMNOZ])`)

// partial is an escape sequence that has only begun.
var partial = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[()])?$`)

// clean takes out what a terminal would not show. What is cut in the middle is
// given back.
func clean(text string) (cleaned, rest string) {
	if at := partial.FindStringIndex(text); at != nil && len(text)-at[0] < 256 {
		text, rest = text[:at[0]], text[at[0]:]
	}
	text = escapes.ReplaceAllString(text, "")
	return strings.NewReplacer("\r", "", "\x00", "").Replace(text), rest
}

// refresh reads what is new. It is called under the lock.
func (l *Log) refresh() error {
	f, err := os.Open(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fresh, err := io.ReadAll(io.NewSectionReader(f, l.read, 1<<40))
	if err != nil {
		return &os.PathError{Op: "read", Path: l.path, Err: err}
	}
	l.read += int64(len(fresh))
	var cleaned string
	cleaned, l.rest = clean(l.rest + string(fresh))
	l.text += cleaned
	return nil
}

// failed looks for a failure that is not tolerated, under the lock.
func (l *Log) failed() error {
	for _, pattern := range l.fail {
		if text := pattern.FindString(l.text[l.ok:]); text != "" {
			return &FailedError{Text: strings.TrimSpace(text)}
		}
	}
	return nil
}

// Expect waits until the pattern appears after what earlier calls have found,
// and returns the match and its groups. A failure that is on the console ends
// it with a [*FailedError], the end of the context with a [*MissingError].
func (l *Log) Expect(ctx context.Context, pattern *regexp.Regexp) ([]string, error) {
	for {
		match, err := l.look(pattern)
		if match != nil || err != nil {
			return match, err
		}
		select {
		case <-ctx.Done():
			// Once more: it may have come with the end.
			if match, err := l.look(pattern); match != nil || err != nil {
				return match, err
			}
			return nil, &MissingError{Pattern: pattern.String(), Tail: l.Tail(30), Cause: context.Cause(ctx)}
		case <-time.After(poll):
		}
	}
}

// look makes one attempt. What was waited for counts even where a failure
// follows it.
func (l *Log) look(pattern *regexp.Regexp) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil {
		return nil, err
	}
	at := pattern.FindStringSubmatchIndex(l.text[l.seen:])
	if at == nil {
		return nil, l.failed()
	}
	groups := make([]string, len(at)/2)
	for i := range groups {
		if at[2*i] >= 0 {
			groups[i] = l.text[l.seen+at[2*i] : l.seen+at[2*i+1]]
		}
	}
	l.seen += at[1]
	return groups, nil
}

// Failed is a [*FailedError] if the console shows a failure so far, nil if not.
func (l *Log) Failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(); err != nil {
		return err
	}
	return l.failed()
}

// WaitFailed waits for a failure; it returns nil when the context ends.
func (l *Log) WaitFailed(ctx context.Context) error {
	for {
		if err := l.Failed(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * poll):
		}
	}
}

// Tolerate forgives the failures that are on the console so far, and with
// ever those to come too.
func (l *Log) Tolerate(ever bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ever {
		l.fail = nil
	}
	err := l.refresh()
	l.ok = len(l.text)
	return err
}

// Text is the whole log so far, cleaned.
func (l *Log) Text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.refresh() // what is there is shown
	return l.text
}

// Tail is the last lines of the log.
func (l *Log) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(l.Text(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Follow makes a log begin where another one of the same file has come to: what
// that has seen is seen.
func (l *Log) Follow(before *Log) error {
	before.mu.Lock()
	defer before.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := before.refresh(); err != nil {
		return err
	}
	l.text, l.read, l.rest = before.text, before.read, before.rest
	l.seen, l.ok = len(l.text), len(l.text)
	return nil
}
