// Package console is the person at the terminal, for tests: a pseudo-terminal
// whose screen a test reads and whose keyboard it types on.
//
// Expect waits for a text to appear after what was expected before. There is
// one long limit for a test that hangs and no other measure of time.
package console

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// patience is how long a text may take to appear before the test gives up.
const patience = 2 * time.Minute

// Keys that programs know (ECMA-48, xterm).
const (
	Enter = "\r"
	CtrlC = "\x03"
	CtrlD = "\x04"
	Down  = "\x1b[B"
)

// Console is one pseudo-terminal.
type Console struct {
	t      *testing.T
	keys   *os.File // the side of the person
	tty    *os.File // the side of the program
	cmd    *exec.Cmd
	mu     sync.Mutex
	screen []byte
	read   int // how much of the screen Expect has passed
	more   chan struct{}
	ended  bool
}

// Open makes a terminal of 120 columns for code of this process; TTY is its
// side.
func Open(t *testing.T) *Console {
	t.Helper()
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatalf("opening a pseudo-terminal: %v", err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatalf("setting the size of a pseudo-terminal: %v", err)
	}
	c := &Console{t: t, keys: keys, tty: tty, more: make(chan struct{}, 1)}
	go c.watch()
	t.Cleanup(func() {
		_ = tty.Close()
		_ = keys.Close()
	})
	return c
}

// Start runs a program on a terminal of its own, as the leader of a session.
func Start(t *testing.T, cmd *exec.Cmd) *Console {
	t.Helper()
	c := Open(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.tty, c.tty, c.tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", cmd.Path, err)
	}
	c.cmd = cmd
	_ = c.tty.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return c
}

// TTY is the program's side, for [Open].
func (c *Console) TTY() *os.File { return c.tty }

func (c *Console) watch() {
	buffer := make([]byte, 4096)
	for {
		n, err := c.keys.Read(buffer)
		c.mu.Lock()
		c.screen = append(c.screen, buffer[:n]...)
		// EIO is how Linux says that the other side has closed.
		c.ended = err != nil
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// escapes are the control sequences of a terminal.
var escapes = regexp.MustCompile(`\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-B]|[=>78])|\r`)

func plain(screen []byte) string { return escapes.ReplaceAllString(string(screen), "") }

// Expect waits for a text (escape sequences do not count) and passes over it.
func (c *Console) Expect(text string) {
	c.t.Helper()
	limit := time.After(patience)
	for {
		c.mu.Lock()
		shown, ended := plain(c.screen), c.ended
		c.mu.Unlock()
		if i := strings.Index(shown[min(c.read, len(shown)):], text); i >= 0 {
			c.read += i + len(text)
			return
		}
		if ended {
			c.t.Fatalf("the program ended without showing %q; the screen:\n%s", text, shown)
		}
		select {
		case <-c.more:
		case <-limit:
			c.t.Fatalf("%q did not appear; the screen:\n%s", text, shown)
		}
	}
}

// Type presses keys.
func (c *Console) Type(keys string) {
	c.t.Helper()
	if _, err := io.WriteString(c.keys, keys); err != nil {
		c.t.Fatalf("typing %q: %v", keys, err)
	}
}

// Screen is everything shown so far, without escape sequences.
func (c *Console) Screen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return plain(c.screen)
}

// Raw is everything shown so far, byte by byte.
func (c *Console) Raw() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.screen)
}

// Wait waits for the program of [Start] to end and gives its exit status, -1
// for a signal. The screen is then complete.
func (c *Console) Wait() int {
	c.t.Helper()
	err := c.cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("waiting for %s: %v", c.cmd.Path, err)
	}
	c.drain()
	return c.cmd.ProcessState.ExitCode()
}

// Close ends the terminal of [Open]. The screen is then complete.
func (c *Console) Close() {
	c.t.Helper()
	_ = c.tty.Close()
	c.drain()
}

// drain waits until all that was written is on the screen.
func (c *Console) drain() {
	c.t.Helper()
	limit := time.After(patience)
	for {
		c.mu.Lock()
		ended := c.ended
		c.mu.Unlock()
		if ended {
			return
		}
		select {
		case <-c.more:
		case <-limit:
			c.t.Fatal("the terminal stays open after the program's end")
		}
	}
}
