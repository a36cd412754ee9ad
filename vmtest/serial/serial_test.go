package serial

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// console is a log that a test writes.
type console struct {
	t    *testing.T
	path string
	log  *Log
}

func newConsole(t *testing.T) *console {
	t.Helper()
	path := filepath.Join(t.TempDir(), "console.log")
	return &console{t: t, path: path, log: Open(path, Failures())}
}

func (c *console) writes(text string) {
	c.t.Helper()
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		c.t.Fatal(err)
	}
}

// expect looks once.
func (c *console) expect(pattern string) ([]string, error) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	cancel()
	return c.log.Expect(ctx, regexp.MustCompile(pattern))
}

func TestExpect(t *testing.T) {
	c := newConsole(t)
	if _, err := c.expect("login:"); err == nil {
		t.Error("Expect before there is a file = nil")
	}
	c.writes("\x1b[2J\x1b[01;01H\x1b[=3hWelcome to \x1b[0;1;39mDebian\x1b[0m\r\nhost login: ")
	groups, err := c.expect(`Welcome to (\w+)\n(?:(x)|host) login`)
	if err != nil || len(groups) != 3 || groups[1] != "Debian" || groups[2] != "" {
		t.Errorf("Expect = %q, %v", groups, err)
	}
	_, err = c.expect("Welcome")
	var missing *MissingError
	if !errors.As(err, &missing) || !errors.Is(err, context.Canceled) || !strings.Contains(missing.Tail, "host login:") {
		t.Errorf("Expect of what was seen = %v, want a MissingError with the tail", err)
	}
	// It waits for what comes later.
	go func() {
		time.Sleep(2 * poll)
		c.writes("Pass")
		time.Sleep(2 * poll)
		c.writes("word: ")
	}()
	if _, err := c.log.Expect(t.Context(), regexp.MustCompile("Password: ")); err != nil {
		t.Errorf("Expect of what comes = %v", err)
	}
}

func TestFailures(t *testing.T) {
	for line, want := range map[string]string{
		"[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs":                  "Kernel panic - not syncing: VFS: Unable to mount root fs",
		"You are in emergency mode. After logging in, type":                                   "You are in emergency mode. After logging in, type",
		"\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39memergency.target\x1b[0m - Emerg": "Reached target emergency.target - Emerg",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 26s!":                                   "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
		"Started emergency-cooling.service":                                                   "",
		"audit: emergency":                                                                    "",
	} {
		c := newConsole(t)
		c.writes("before\r\n" + line + "\r\nafter\r\n")
		_, err := c.expect("never")
		var failed *FailedError
		switch {
		case want == "" && errors.As(err, &failed):
			t.Errorf("%q is taken for a failure", line)
		case want != "" && (!errors.As(err, &failed) || failed.Text != want):
			t.Errorf("%q: Expect = %v, want %q", line, err, want)
		}
		// What was waited for is found all the same.
		if _, err := c.expect("after"); err != nil {
			t.Errorf("%q: Expect of what is there = %v", line, err)
		}
	}
}

func TestTolerate(t *testing.T) {
	c := newConsole(t)
	c.writes("Kernel panic - not syncing: one\n")
	if err := c.log.Failed(); err == nil {
		t.Fatal("Failed = nil")
	}
	if err := c.log.Tolerate(false); err != nil {
		t.Fatal(err)
	}
	if err := c.log.Failed(); err != nil {
		t.Errorf("Failed after Tolerate = %v", err)
	}
	c.writes("Kernel panic - not syncing: two\n")
	if err := c.log.WaitFailed(t.Context()); err == nil || !strings.Contains(err.Error(), "two") {
		t.Errorf("WaitFailed = %v, want the second panic", err)
	}
	next := Open(c.path, Failures())
	if err := next.Follow(c.log); err != nil {
		t.Fatal(err)
	}
	if err := next.Failed(); err != nil {
		t.Errorf("Failed of a log that follows = %v", err)
	}
	if err := c.log.Tolerate(true); err != nil {
		t.Fatal(err)
	}
	c.writes("Kernel panic - not syncing: three\n")
	if err := c.log.Failed(); err != nil {
		t.Errorf("Failed after Tolerate(true) = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.log.WaitFailed(ctx); err != nil {
		t.Errorf("WaitFailed at the end of the context = %v, want nil", err)
	}
}

// Text that arrives in pieces is cleaned as in one.
func FuzzClean(f *testing.F) {
	for _, text := range []string{
		"plain\r\n", "\x1b[0;1;39mbold\x1b[0m", "\x1b]0;title\x07x", "\x1b]0;t\x1b\\x", "\x1b(Bx", "\x1b", "a\x1b[", "\x1b[=3h", "\x00",
	} {
		f.Add(text, 3)
	}
	f.Fuzz(func(t *testing.T, text string, at int) {
		if at < 0 || at > len(text) || len(text) > 200 {
			return
		}
		whole, rest := clean(text)
		first, half := clean(text[:at])
		second, last := clean(half + text[at:])
		if first+second != whole || last != rest {
			t.Errorf("clean(%q) = %q, %q; in pieces at %d: %q + %q, %q", text, whole, rest, at, first, second, last)
		}
	})
}
