package changepassword_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"nixos-go/pkg/testx/console"
)

// At a real terminal, no password is ever on the screen, mistyped ones
// included, and Ctrl-C at the last question changes nothing.
func TestTerminal(t *testing.T) {
	m := newMachine(t, oldPassword)
	start := func() *console.Console {
		process := exec.Command("/proc/self/exe", toolArg)
		process.Env = append(os.Environ(), "MACHINE="+m.dir, "TERM=xterm", "NO_COLOR=")
		return console.Start(t, process)
	}
	c := start()
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

	c = start()
	for _, step := range [][2]string{{"Present", oldPassword}, {"New", newPassword}, {"(again)", newPassword}} {
		c.Expect(step[0])
		c.Type(step[1] + console.Enter)
	}
	c.Expect("alice has the new password")
	if status := c.Wait(); status != 0 {
		t.Errorf("change: exit status %d, want 0", status)
	}
	m.expect("after the change", 0, 0, after)
	noPassword(t, c)
}

func noPassword(t *testing.T, c *console.Console) {
	t.Helper()
	if screen := c.Raw(); strings.Contains(screen, "MARKED-SECRET") {
		t.Errorf("a password is on the screen:\n%s", screen)
	}
}
