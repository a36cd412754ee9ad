package changepassword_test

import (
	"strings"
	"testing"

	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/examples"
)

// The examples of the documents are what the tool prints at a terminal.
func TestExamples(t *testing.T) {
	documents := examples.In("../GUARDED.md", "../../README.md")
	check := func(m *machine, name, flags string, c *console.Console, status int) {
		t.Helper()
		if got := c.Wait(); got != status {
			t.Errorf("%s: exit status %d, want %d", name, got, status)
		}
		if c.Coloured() {
			t.Errorf("%s: colours under NO_COLOR: %q", name, c.Raw())
		}
		printed := strings.ReplaceAll(c.Rendered(), m.dir, "")
		documents.Check(t, "change-password/"+name, "# nixos-change-password"+flags, printed)
	}
	m := newMachine(t, oldPassword)
	check(m, "dry-run", " --dry-run", m.terminal("--dry-run"), 0)

	c := m.terminal()
	for _, step := range [][2]string{{"Present", oldPassword}, {"New", "Tr0ubador"}, {"(again)", "Tr0ubador"}} {
		c.Expect(step[0])
		c.Type(step[1] + console.Enter)
	}
	check(m, "change", "", c, 0)

	m = newMachine(t, oldPassword)
	m.write("run/current-system/activate", "#!/bin/sh\nexit 0\n", 0o755)
	c = m.terminal()
	typeAll(c)
	check(m, "failure", "", c, 1)
	documents.Complete(t, "change-password/")
}
