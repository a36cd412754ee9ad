package secureboottool_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/examples"
	"nixos-go/pkg/testx/fakeesp"
)

// terminal runs the tool at a terminal, on a machine. Each question is answered
// as the script says: the question's end, then what is typed.
func (m *machine) terminal(t *testing.T, env []string, args []string, script ...string) (*console.Console, int) {
	t.Helper()
	process := exec.Command("/proc/self/exe", append([]string{toolArg}, args...)...)
	process.Env = append(os.Environ(), "MACHINE="+m.dir, "NIXOS_GO_ROOT="+m.dir+"/etc/nixos", "TERM=xterm", "NO_COLOR=1")
	process.Env = append(process.Env, env...)
	c := console.Start(t, process)
	for i := 0; i < len(script); i += 2 {
		c.Expect(script[i])
		c.Type(script[i+1])
	}
	return c, c.Wait()
}

// factory is a firmware as a computer is sold with.
func (m *machine) factory() {
	m.firmware(fakeesp.Firmware{
		PK: []fakeesp.Key{m.keys.Stranger}, KEK: []fakeesp.Key{m.keys.Microsoft}, DB: []fakeesp.Key{m.keys.Microsoft},
		Loader: "systemd-boot 258.2", Entry: "nixos-generation-41.conf",
	})
}

// The examples of the documents are what the tool prints at a terminal.
func TestExamples(t *testing.T) {
	const agree = "Secure Boot? [y/N] "
	documents := examples.In("../GUARDED.md", "../../README.md")
	for _, test := range []struct {
		name    string
		prepare func(*machine)
		env     []string
		command string
		script  []string
		status  int
	}{
		{name: "status-before", prepare: (*machine).factory, command: "status"},
		{name: "refused", prepare: (*machine).factory, command: "enable", status: 1},
		{name: "enable", command: "enable", script: []string{agree, "y\r"}},
		{name: "unfit", env: []string{"REBUILD=unfit"}, command: "enable", script: []string{agree, "y\r"}, status: 1},
		{name: "no-microsoft", prepare: (*machine).rom, command: "enable --no-microsoft", script: []string{"certificates out: ", "yes\r"}, status: 1},
		{name: "status", prepare: func(m *machine) {
			m.answer(yes())
			m.expect(t, "enable", m.run(t.Context(), "enable"), 0)
			m.booted(true)
		}, command: "status"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			if test.prepare != nil {
				test.prepare(m)
			}
			c, status := m.terminal(t, test.env, strings.Fields(test.command), test.script...)
			if status != test.status {
				t.Errorf("%s: exit status %d, want %d\n%s", test.command, status, test.status, c.Screen())
			}
			if c.Coloured() {
				t.Errorf("%s: colours under NO_COLOR: %q", test.command, c.Raw())
			}
			documents.Check(t, "secure-boot/"+test.name, "# nixos-secure-boot "+test.command, strings.ReplaceAll(c.Rendered(), m.dir, ""))
		})
	}
	documents.Complete(t, "secure-boot/")
}

// Ctrl-C at each question, and in the middle, leaves the machine as it was.
func TestInterruptedAtTerminal(t *testing.T) {
	for _, test := range []struct{ name, args, at string }{
		{"the question", "enable", "[y/N] "},
		{"the typed confirmation", "enable --no-microsoft", "certificates out: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			before := m.state()
			c, status := m.terminal(t, nil, strings.Fields(test.args), test.at, console.CtrlC)
			if status != 1 || !strings.HasSuffix(c.Screen(), "error: interrupted; nothing was changed\n") {
				t.Errorf("Ctrl-C: exit status %d, want 1 and that nothing was changed in:\n%s", status, c.Screen())
			}
			m.unchanged(t, before)
		})
	}
	t.Run("the rebuild", func(t *testing.T) {
		m := newMachine(t)
		before := m.state()
		c, status := m.terminal(t, []string{"REBUILD=waits"}, []string{"enable"},
			"[y/N] ", "y\r", "rebuilding the system", console.CtrlC)
		if status != 1 || !strings.Contains(c.Screen(), "interrupted") || !strings.Contains(c.Screen(), "are as they were before") {
			t.Errorf("Ctrl-C: exit status %d, want 1 and that all is as before in:\n%s", status, c.Screen())
		}
		m.unchanged(t, before)
	})
}

// Without NO_COLOR a terminal gets colours; a file and a pipe never do.
func TestColours(t *testing.T) {
	m := newMachine(t)
	m.factory()
	if c, _ := m.terminal(t, []string{"NO_COLOR="}, []string{"enable"}); !c.Coloured() {
		t.Errorf("no colours at a terminal: %q", c.Raw())
	}
	if c, _ := m.terminal(t, []string{"NO_COLOR=", "TERM=dumb"}, []string{"enable"}); c.Coloured() {
		t.Errorf("colours at a terminal that has none: %q", c.Raw())
	}
	process := exec.Command("/proc/self/exe", toolArg, "enable")
	process.Env = append(os.Environ(), "MACHINE="+m.dir, "NIXOS_GO_ROOT="+m.dir+"/etc/nixos", "TERM=xterm", "NO_COLOR=")
	if out, err := process.CombinedOutput(); err == nil || strings.Contains(string(out), "\x1b") {
		t.Errorf("to a pipe: %v, %q, want a failure without escape sequences", err, out)
	}
}
