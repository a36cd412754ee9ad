package changepassword_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixos-go/pkg/testx/console"
)

// At a real terminal, no password is ever on the screen, mistyped ones
// included, and Ctrl-C at the last question changes nothing.
func TestTerminal(t *testing.T) {
	m := newMachine(t, oldPassword)
	c := m.terminal()
	c.Expect("Present passphrase of the disk")
	c.Type(oldPassword + console.Enter)
	c.Expect("New password of the disk and of alice")
	c.Type(newPassword + console.Enter)
	c.Expect("(again)")
	c.Type(newPassword + "x" + console.Enter)
	c.Expect("the two entries differ")
	c.Expect("New password")
	c.Type(console.CtrlC)
	if status := c.Wait(); status != 1 {
		t.Errorf("Ctrl-C: exit status %d, want 1", status)
	}
	m.expect("after Ctrl-C", 0, 0, before)
	noPassword(t, c)

	c = m.terminal()
	typeAll(c)
	c.Expect("alice has the new password")
	if status := c.Wait(); status != 0 {
		t.Errorf("change: exit status %d, want 0", status)
	}
	m.expect("after the change", 0, 0, after)
	noPassword(t, c)
}

// Ctrl-C while a program runs goes back, and waits for that: the disk has the
// new passphrase by then, the account is about to get it.
func TestInterruptedAtTerminal(t *testing.T) {
	m := newMachine(t, oldPassword)
	m.write("run/current-system/activate", "#!/bin/sh\n[ -e \"$0.begun\" ] || { : > \"$0.begun\"; exec sleep 600; }\n"+
		strings.TrimPrefix(activation, "#!/bin/sh\n"), 0o755)
	c := m.terminal()
	typeAll(c)
	c.Expect("changing the password of alice")
	begun := filepath.Join(m.dir, "run/current-system/activate.begun")
	for {
		if _, err := os.Stat(begun); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.Type(console.CtrlC)
	c.Expect("interrupted")
	c.Expect("the old passphrase (key slot 0) opens it")
	c.Expect("alice has the old password")
	if status := c.Wait(); status != 1 {
		t.Errorf("Ctrl-C in the middle: exit status %d, want 1", status)
	}
	m.expect("after Ctrl-C in the middle", 0, 0, before)
	noPassword(t, c)
}

// terminal starts the tool at a terminal.
func (m *machine) terminal(args ...string) *console.Console {
	m.t.Helper()
	process := exec.Command("/proc/self/exe", append([]string{toolArg}, args...)...)
	process.Env = append(os.Environ(), "MACHINE="+m.dir, "TERM=xterm", "NO_COLOR=1")
	return console.Start(m.t, process)
}

// typeAll answers all that a change asks.
func typeAll(c *console.Console) {
	for _, step := range [][2]string{{"Present", oldPassword}, {"New", newPassword}, {"(again)", newPassword}} {
		c.Expect(step[0])
		c.Type(step[1] + console.Enter)
	}
}

func noPassword(t *testing.T, c *console.Console) {
	t.Helper()
	if screen := c.Raw(); strings.Contains(screen, "MARKED-SECRET") {
		t.Errorf("a password is on the screen:\n%s", screen)
	}
}
