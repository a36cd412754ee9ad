package tpm2tool_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/examples"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/ui"
	tpm2tool "nixos-go/tools/tpm2"
)

// plainTerminal is the environment of a terminal without colour.
func plainTerminal(name string) string {
	return map[string]string{"TERM": "xterm", "NO_COLOR": "1"}[name]
}

// onTerminal runs the tool of this process at a terminal, where each question is
// answered as the script says: a part of it, then what is typed.
func (m *machine) onTerminal(args []string, script ...string) (*console.Console, int) {
	m.t.Helper()
	c := console.Open(m.t)
	u := ui.ForTerminal(c.TTY(), c.TTY(), plainTerminal)
	env := &clikit.Env{
		UI: u, Host: run.Host{Runner: m.runner, Files: run.Below(m.dir)}, Redact: m.redact,
		Ask: prompt.NewTerminal(c.TTY(), c.TTY(), plainTerminal), Getenv: plainTerminal,
	}
	status := make(chan int)
	go func() { status <- clikit.Run(m.t.Context(), tpm2tool.New(env, m.hooks), args, u) }()
	for i := 0; i < len(script); i += 2 {
		c.Expect(script[i])
		c.Type(script[i+1])
	}
	got := <-status
	c.Close()
	return c, got
}

// What no two runs have in common, and what the documents have in its place.
var (
	uuid     = regexp.MustCompile(`UUID [0-9a-f-]{36}`)
	firmware = regexp.MustCompile(`firmware [0-9.]+`)
	key      = regexp.MustCompile(`[cbdefghijklnrtuv]{8}(?:-[cbdefghijklnrtuv]{8}){7}`)
	qrCode   = regexp.MustCompile(`(?s)(?:^|\n)[ █▀▄\n]*█[ █▀▄\n]*\n`)
)

// documented is what was printed, as the documents have it.
func (m *machine) documented(c *console.Console) string {
	text := strings.ReplaceAll(c.Rendered(), m.dir, "")
	text = uuid.ReplaceAllLiteralString(text, "UUID 01234567-89ab-cdef-0123-456789abcdef")
	text = firmware.ReplaceAllLiteralString(text, "firmware 8217.4131")
	text = key.ReplaceAllLiteralString(text, "rflnvujd-grfhuerk-tbvckbtg-tkliiecf-vrjjiiru-edjeunuv-trkbiukn-tiljtrkt")
	return qrCode.ReplaceAllLiteralString(text, "\n\n    (the same as a QR code)\n\n")
}

// The examples of the documents are what the tool prints at a terminal.
func TestExamples(t *testing.T) {
	documents := examples.In("../GUARDED.md", "../../README.md")
	check := func(m *machine, name, command string, status int, script ...string) {
		t.Helper()
		c, got := m.onTerminal(strings.Fields(command), script...)
		if got != status {
			t.Errorf("%s: exit status %d, want %d\n%s", command, got, status, c.Screen())
		}
		if c.Coloured() {
			t.Errorf("%s: colours under NO_COLOR: %q", command, c.Raw())
		}
		documents.Check(t, "tpm2/"+name, "# nixos-tpm2 "+command, m.documented(c))
	}
	m := newMachine(t)
	check(m, "enable", "enable --recovery-key", 0, "recovery key of the disk: ", passphrase+console.Enter)
	m.measureVolumeKey()
	check(m, "status", "status", 0)

	m = newMachine(t)
	m.firmware.SecureBoot = false
	m.boot()
	check(m, "refused", "enable", 1)
	check(m, "insecure", "enable --insecure", 1, "all the same? [y/N] ", "n"+console.Enter)
	documents.Complete(t, "tpm2/")
}

// Ctrl-C at each question changes nothing, and nothing typed is on the screen.
func TestInterruptedAtTerminal(t *testing.T) {
	const (
		goOn          = "[y/N] "
		askPassphrase = "recovery key of the disk: "
		askPIN        = "New PIN for the TPM: "
		again         = "(again): "
	)
	m := newMachine(t, "tpm's")
	luksfile.AddTPM2Token(t, m.image(), 1)
	before := m.header().Sequence
	for _, test := range []struct {
		name, args string
		script     []string
	}{
		{"insecure", "enable --insecure", []string{goOn, console.CtrlC}},
		{"the passphrase", "enable --insecure", []string{goOn, "y\r", askPassphrase, console.CtrlC}},
		{"a passphrase half typed", "enable --insecure", []string{goOn, "y\r", askPassphrase, "MARKED-SECRET" + console.CtrlC}},
		{"the PIN", "enable --insecure --pin", []string{goOn, "y\r", askPassphrase, passphrase + "\r", askPIN, console.CtrlC}},
		{"the PIN again", "enable --insecure --pin", []string{goOn, "y\r", askPassphrase, passphrase + "\r", askPIN, pin + "\r", again, console.CtrlC}},
		{"disable", "disable", []string{askPassphrase, passphrase + "\r", goOn, console.CtrlC}},
		{"the end of input", "disable", []string{askPassphrase, console.CtrlD}},
	} {
		t.Run(test.name, func(t *testing.T) {
			process := exec.Command("/proc/self/exe", append([]string{toolArg}, strings.Fields(test.args)...)...)
			process.Env = append(os.Environ(), "MACHINE="+m.dir, "TPM="+m.chip.Socket, "TERM=xterm", "NO_COLOR=1")
			c := console.Start(t, process)
			for i := 0; i < len(test.script); i += 2 {
				c.Expect(test.script[i])
				c.Type(test.script[i+1])
			}
			if status := c.Wait(); status != 1 || !strings.HasSuffix(c.Screen(), "error: interrupted; nothing was changed\n") {
				t.Errorf("Ctrl-C: exit status %d, want 1 and that nothing was changed in:\n%s", status, c.Screen())
			}
			if strings.Contains(c.Raw(), "MARKED-SECRET") {
				t.Errorf("a secret is on the screen:\n%s", c.Raw())
			}
			if after := m.header().Sequence; after != before || m.header().KindOf(1) != luks.TPM2 {
				t.Errorf("the header was changed: sequence %d, want %d", after, before)
			}
		})
	}
}
