package changepassword_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/leak"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/testx/swtpm"
	changepassword "nixos-go/tools/change_password"
)

// The secrets of a change, wherever they could get to: every run is looked
// through, the ones that succeed and the ones that fail at each command.
func TestNoLeak(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for fail := -1; fail < 6; fail++ {
		m := newMachine(t, oldPassword)
		hunt := leak.New(t, oldPassword, newPassword)
		hunt.Watch([]string{tmp, m.dir})
		runner := &sabotage{Runner: hunt.Runner(local()), fail: fail, after: true}
		m.run(t.Context(), runner, answers(), changepassword.Hooks{}, "--json")
		hunt.Text("standard output", m.out.String())
		hunt.Text("standard error", m.err.String())
		hunt.Files()
		if looked := hunt.Looked(); looked < 50 {
			t.Errorf("only %d texts were looked at", looked)
		}
	}
}

// The same with a TPM and its PIN, by the real programs.
func TestNoLeakTPM2(t *testing.T) {
	luksfile.Need(t, "systemd-cryptenroll", "swtpm")
	const pin = "pin MARKED-SECRET-3"
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	chip := swtpm.Start(t)
	chip.Extend(7, make([]byte, 32))
	m := newMachine(t, oldPassword)
	m.write("pin", pin, 0o600)
	enrol := exec.Command("systemd-cryptenroll", "--tpm2-device="+chip.Device(), "--tpm2-pcrs=7", "--tpm2-with-pin=yes", m.image())
	enrol.Env = append(os.Environ(), "PASSWORD="+oldPassword, "NEWPIN=1234")
	if out, err := enrol.CombinedOutput(); err != nil {
		t.Fatalf("systemd-cryptenroll: %v\n%s", err, out)
	}
	chip.Flush()
	hunt := leak.New(t, oldPassword, newPassword, pin)
	hunt.Watch([]string{tmp, m.dir}, filepath.Join(m.dir, "pin"))
	status := m.run(t.Context(), hunt.Runner(local()), answers(), changepassword.Hooks{TPM: chip.Device()},
		"--update-tpm2", "--pin-file", filepath.Join(m.dir, "pin"))
	m.expect("change", status, 0, after)
	hunt.Text("standard error", m.err.String())
	hunt.Files()
}

// What the process leaves in memory: of the disk's passphrases nothing at all,
// whether they came from files or were typed.
func TestNoLeakInMemory(t *testing.T) {
	const only = "--full-disk-encryption-only"
	wants := []string{"old: 0 times in memory", "new: 0 times in memory", "held: 1 times in memory"}
	m := newInverted(t)
	out, err := exec.Command("/proc/self/exe", memoryArg, m.dir, only,
		"--current-password-file", filepath.Join(m.dir, "old"), "--password-file", filepath.Join(m.dir, "new")).CombinedOutput()
	if err != nil {
		t.Fatalf("the process = %v\n%s", err, out)
	}
	for _, want := range wants {
		if !strings.Contains(string(out), want) {
			t.Errorf("from files: want %q in:\n%s", want, out)
		}
	}

	m = newInverted(t)
	c := console.Start(t, exec.Command("/proc/self/exe", memoryArg, m.dir, only))
	typeAll(c)
	for _, want := range wants {
		c.Expect(want)
	}
	if status := c.Wait(); status != 0 {
		t.Errorf("typed: exit status %d, want 0\n%s", status, c.Screen())
	}
}

// newInverted is a machine with files of the passwords, as they are and
// inverted.
func newInverted(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, oldPassword)
	for name, secret := range map[string]string{"old": oldPassword, "new": newPassword, "held": "held MARKED-SECRET-4"} {
		m.write(name, secret, 0o600)
		inverted := []byte(secret)
		leak.Invert(inverted)
		m.write(name+".inverted", string(inverted), 0o600)
	}
	return m
}

// What the tool and all programs that it runs hand to the kernel: the passwords
// travel in pipes and in memory alone.
func TestNoLeakInSystemCalls(t *testing.T) {
	m := newMachine(t, oldPassword)
	m.write("old", oldPassword, 0o600)
	m.write("new", newPassword, 0o600)
	leak.Trace(t, []string{
		toolArg, "--json", "--current-password-file", filepath.Join(m.dir, "old"), "--password-file", filepath.Join(m.dir, "new"),
	}, []string{"MACHINE=" + m.dir}, oldPassword, newPassword)
	m.expect("change", 0, 0, after)
}
