package secureboottool_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakeesp"
	"nixos-go/pkg/testx/kill"
	secureboottool "nixos-go/tools/secure_boot"
)

func yes() prompt.Answer { return prompt.Answer{To: "Change this machine", Say: "yes"} }

func TestEnable(t *testing.T) {
	m := newMachine(t)
	runner, _ := m.runner.(*nixos)
	m.expect(t, "status before", m.run(t.Context(), "status"), 0, "in setup mode, ready for keys", "none yet in /var/lib/sbctl", "next:          sudo nixos-secure-boot enable")
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 0, "ok: everything that boots is signed and verified, and the firmware has your keys",
		"loader/entries/nixos-generation-41.conf", "hint: boot again")
	want := []string{
		"git -C $ROOT/etc/nixos -c core.fsmonitor=false rev-parse --show-toplevel --show-prefix",
		"git -C $ROOT/etc/nixos -c core.fsmonitor=false status --porcelain=v1 -z --untracked-files=all -- .",
		"sbctl create-keys",
		"nixos-rebuild boot --flake 'git+file://$ROOT/etc/nixos#NORTH-Secure-Boot' --no-update-lock-file --install-bootloader",
		"sbctl enroll-keys --microsoft",
	}
	if diff := cmp.Diff(want, runner.lines); diff != "" {
		t.Errorf("enable ran (-want +got):\n%s", diff)
	}
	if got := m.target(); got != "Secure-Boot" {
		t.Errorf("target = %s, want Secure-Boot", got)
	}
	config, err := os.ReadFile(filepath.Join(m.dir, "etc/nixos/config.json"))
	if err != nil || !strings.Contains(string(config), `"note": "mine"`) {
		t.Errorf("config.json = %s, %v, want the unknown key kept", config, err)
	}
	for _, name := range []string{"boot/loader/entries/nixos-generation-41.conf", "var/lib/nixos-go/secure-boot/journal.json", "var/lib/nixos-go/secure-boot/esp"} {
		if _, err := os.Stat(filepath.Join(m.dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after enable Stat(%s) = %v, want ErrNotExist", name, err)
		}
	}

	m.booted(false)
	m.expect(t, "status, switched off in the firmware", m.run(t.Context(), "status"), 0, "enrolled", "next:          switch Secure Boot on in the firmware's setup")
	m.booted(true)
	m.expect(t, "status after", m.run(t.Context(), "status"), 0, "Secure Boot is on", "nixos-generation-42-abcdefgh.efi",
		"EFI/Linux/nixos-generation-42-abcdefgh.efi  Database Key", "nobody; a signed stub vouches for it", "nothing to do; sudo nixos-tpm2 enable")
	runner.lines = nil
	m.expect(t, "enable again", m.run(t.Context(), "enable"), 0, "Secure Boot is active already")
	if len(runner.lines) != 0 {
		t.Errorf("enable again ran %q, want nothing", runner.lines)
	}
}

func TestDisable(t *testing.T) {
	m := newMachine(t)
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 0)
	m.booted(true)
	before := m.state()
	m.expect(t, "disable while it is on", m.run(t.Context(), "disable"), 1,
		"Secure Boot is still on in the firmware", "1. systemctl reboot --firmware-setup", "3. run sudo nixos-secure-boot disable again")
	if diff := cmp.Diff(before, m.state()); diff != "" {
		t.Errorf("the refused disable changed (-want +got):\n%s", diff)
	}
	m.booted(false)
	m.answer(yes())
	m.expect(t, "disable", m.run(t.Context(), "disable"), 0, "the next boot is systemd-boot's", "have the passphrase at hand", "the keys stay in /var/lib/sbctl")
	if got := m.target(); got != "Standard-Boot" {
		t.Errorf("target = %s, want Standard-Boot", got)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "boot", fakeesp.StubName(42))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a stub is still there: Stat = %v", err)
	}
	m.expect(t, "disable again", m.run(t.Context(), "disable"), 0, "boots without Secure Boot already")

	// On again: the firmware has the keys, so no setup mode is needed.
	m.answer(yes())
	m.expect(t, "enable again", m.run(t.Context(), "enable"), 0, "the firmware has your keys already", "set \"Secure Boot\" to Enabled")
}

// Where the keys stay is said of the firmware that there is.
func TestDisableSaysWhereTheKeysStay(t *testing.T) {
	const folder = "the keys stay in /var/lib/sbctl"
	m := newMachine(t)
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 0)
	remove := func(name string) func() {
		return func() {
			if err := os.RemoveAll(filepath.Join(m.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	setUp := func() { m.firmware(fakeesp.Firmware{SetupMode: true, Loader: "systemd-boot 258.2"}) }
	for _, test := range []struct {
		name   string
		change func()
		want   string // "": nothing of keys
	}{
		{"enrolled", func() { m.booted(false) }, folder + " and in the firmware: sudo nixos-secure-boot enable needs no setup mode later\n"},
		{"cleared", setUp, folder + "; the firmware does not have them: it is in setup mode, and sudo nixos-secure-boot enable gives them to it again\n"},
		{"factory keys", m.factory, folder + "; the firmware does not have them: sudo nixos-secure-boot enable needs setup mode later\n"},
		{"no UEFI", remove("sys/firmware/efi"), folder + "; the firmware does not have them: sudo nixos-secure-boot enable needs setup mode later\n"},
		{"no keys", remove("var/lib/sbctl"), ""},
	} {
		test.change()
		m.expect(t, test.name, m.run(t.Context(), "disable", "--dry-run"), 0, test.want)
		if got := m.err.String(); strings.Contains(got, "the keys stay") != (test.want != "") {
			t.Errorf("%s: disable says\n%s", test.name, got)
		}
	}
}

// unchanged compares the machine with what it was.
func (m *machine) unchanged(t *testing.T, before map[string]string) {
	t.Helper()
	if diff := cmp.Diff(before, m.state()); diff != "" {
		t.Errorf("the machine was changed (-want +got):\n%s", diff)
	}
}

// rom writes an event log with the option ROM of the card at 0000:01:00.0.
func (m *machine) rom() {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	spec := append([]byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02"), 1, 0, 0, 0, 0x0b, 0x00, 32, 0, 0)
	put(uint32(0), uint32(3), [20]byte{}, uint32(len(spec)), spec)
	path := []byte{2, 1, 12, 0, 0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 1, 1, 1, 1, 6, 0, 0, 0, 0x7f, 0xff, 4, 0}
	event := make([]byte, 32+len(path))
	event[24] = byte(len(path))
	copy(event[32:], path)
	put(uint32(2), uint32(0x80000004), uint32(1), uint16(0x0b), [32]byte{}, uint32(len(event)), event)
	m.write("sys/kernel/security/tpm0/binary_bios_measurements", b.String())
	card := "sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0"
	m.write(card+"/class", "0x030000\n")
	m.write(card+"/vendor", "0x10de\n")
	m.write(card+"/device", "0x2684\n")
	if err := os.MkdirAll(filepath.Join(m.dir, "sys/bus/pci/devices"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink("../../../devices/pci0000:00/0000:00:01.1/0000:01:00.0", filepath.Join(m.dir, "sys/bus/pci/devices/0000:01:00.0")); err != nil {
		m.t.Fatal(err)
	}
}

func TestNoMicrosoft(t *testing.T) {
	const named = "0000:01:00.0 NVIDIA 10de:2684, VGA (PciRoot(0x0)/Pci(0x1,0x1)/Pci(0x0,0x0))"
	m := newMachine(t)
	m.rom()
	before := m.state()
	m.answer(prompt.Answer{To: `Type "without Microsoft"`, Say: "yes"})
	m.expect(t, "a plain yes", m.run(t.Context(), "enable", "--no-microsoft"), 1, named, "shows nothing before NixOS", "not confirmed; nothing was changed")
	m.expect(t, "--yes", m.run(t.Context(), "enable", "--no-microsoft", "--yes", "--confirm", "yes"), 1, named, "not confirmed")
	if diff := cmp.Diff(before, m.state()); diff != "" {
		t.Errorf("what was not confirmed changed (-want +got):\n%s", diff)
	}
	m.expect(t, "--confirm alone", m.run(t.Context(), "enable", "--confirm", "x"), 2, "--confirm belongs to --no-microsoft")
	m.answer(prompt.Answer{To: `Type "without Microsoft"`, Say: "without Microsoft"})
	m.expect(t, "confirmed", m.run(t.Context(), "enable", "--no-microsoft"), 0, named)
	runner, _ := m.runner.(*nixos)
	if got := runner.lines[len(runner.lines)-1]; got != "sbctl enroll-keys --yes-this-might-brick-my-machine" {
		t.Errorf("the last command is %q, want sbctl enroll-keys without --microsoft", got)
	}

	m = newMachine(t)
	m.answer(prompt.Answer{To: "Type", Say: ""})
	m.expect(t, "no event log", m.run(t.Context(), "enable", "--no-microsoft"), 1, "cannot be told")
}

// Every refusal changes nothing and says what to do.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*machine)
		args   []string
		status int
		says   []string
	}{
		{
			name: "not in setup mode", change: func(m *machine) { m.firmware(fakeesp.Firmware{PK: []fakeesp.Key{m.keys.Stranger}}) },
			says: []string{"the firmware is not in setup mode", "hint: what to do:", "1. systemctl reboot --firmware-setup", "Reset to Setup Mode", "4. save, boot NixOS"},
		},
		{name: "Secure Boot of the factory", change: func(m *machine) {
			m.firmware(fakeesp.Firmware{SecureBoot: true, PK: []fakeesp.Key{m.keys.Microsoft}, DB: []fakeesp.Key{m.keys.Microsoft}})
		}, says: []string{"not in setup mode"}},
		{name: "no UEFI", change: func(m *machine) {
			if err := os.RemoveAll(filepath.Join(m.dir, "sys/firmware/efi")); err != nil {
				m.t.Fatal(err)
			}
			m.write("sys/firmware/other", "")
		}, says: []string{"not booted by UEFI"}},
		{name: "keys that would not persist", change: func(m *machine) {
			m.write("etc/immutability/plan.json", fmt.Sprintf(planJSON, `"/var/lib/nixos-go"`))
		}, says: []string{"the next boot would wipe /var/lib/sbctl: without the keys", `settings.disk.immutability.persist.paths = [ "/var/lib/sbctl" ];`}},
		{name: "a journal that would not persist", change: func(m *machine) {
			m.write("etc/immutability/plan.json", fmt.Sprintf(planJSON, `"/var/lib/sbctl"`))
		}, says: []string{"the next boot would wipe /var/lib/nixos-go/secure-boot"}},
		{name: "no EFI partition", change: func(*machine) {}, args: []string{"--esp", "/nowhere"}, says: []string{"is the EFI partition mounted there?", "--esp DIR"}},
		{name: "no config.json", change: func(m *machine) {
			if err := os.Remove(filepath.Join(m.dir, "etc/nixos/config.json")); err != nil {
				m.t.Fatal(err)
			}
		}, says: []string{"which configuration this machine is"}},
		{name: "the owner says no", change: func(m *machine) { m.answer(prompt.Answer{To: "Change", Say: "no"}) }, says: []string{"nothing was changed"}},
		{name: "Ctrl-C at the question", change: func(m *machine) { m.answer(prompt.Answer{To: "Change", Err: prompt.ErrInterrupted}) }, says: []string{"interrupted"}},
		{name: "not root", change: func(m *machine) { m.uid = 1000 }, says: []string{"sudo nixos-secure-boot enable"}},
		{name: "an argument", change: func(*machine) {}, args: []string{"now"}, status: 2, says: []string{`unexpected argument "now"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			test.change(m)
			before := m.state()
			want := max(test.status, 1)
			m.expect(t, "enable", m.run(t.Context(), append([]string{"enable"}, test.args...)...), want, test.says...)
			if diff := cmp.Diff(before, m.state()); diff != "" {
				t.Errorf("the refused enable changed (-want +got):\n%s", diff)
			}
			if runner, _ := m.runner.(*nixos); len(runner.lines) != 0 {
				t.Errorf("the refused enable ran %q", runner.lines)
			}
		})
	}
}

func TestRefusalJSON(t *testing.T) {
	m := newMachine(t)
	m.firmware(fakeesp.Firmware{})
	m.expect(t, "enable --json", m.run(t.Context(), "enable", "--json"), 1)
	var got struct {
		Code    string   `json:"code"`
		Steps   []string `json:"steps"`
		Changed bool     `json:"changed"`
	}
	if err := json.Unmarshal(m.out.Bytes(), &got); err != nil || got.Code != "no-setup-mode" || len(got.Steps) != 4 || got.Changed {
		t.Errorf("--json of a refusal = %+v, %v, want no-setup-mode with 4 steps", got, err)
	}
}

// Each command fails once, before and after its work: everything is as it was,
// unless the firmware has the keys.
func TestEachCommandFails(t *testing.T) {
	const first, last = 2, 4 // after what only asks git, to the keys in the firmware
	for n := first; n <= last; n++ {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("command %d, after its work %t", n, late), func(t *testing.T) {
				m := newMachine(t)
				before := m.state()
				runner, _ := m.runner.(*nixos)
				runner.failing, runner.fail, runner.after = true, n, late
				m.answer(yes())
				status := m.run(t.Context(), "enable")
				if n == last && late {
					m.expect(t, "enable", status, 0, "sbctl reported a failure, but the firmware has the keys")
					return
				}
				m.expect(t, "enable", status, 1, "made to fail", "the configuration, the boot files and the default generation are as they were before")
				if diff := cmp.Diff(before, m.state()); diff != "" {
					t.Errorf("after the failure (-want +got):\n%s", diff)
				}
				runner.failing = false
				m.answer(yes())
				m.expect(t, "enable again", m.run(t.Context(), "enable"), 0)
			})
		}
	}
}

// What a rebuild left is not fit to boot: nothing is enrolled, all is put back.
func TestVerifyFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*machine)
		says   string
	}{
		{"an unsigned loader", func(m *machine) { m.esp.Standard(41) }, "EFI/BOOT/BOOTX64.EFI: not signed"},
		{"a stub by somebody else", func(m *machine) { m.esp.Lanzaboote(m.keys.Stranger, 42) }, "signed, but by no certificate"},
		{"another kernel", func(m *machine) { m.esp.Write("EFI/nixos/kernel-6.12-abcd.efi", []byte("evil")) }, "not the file that the signed stub vouches for"},
		{"without the default generation", func(m *machine) {
			if err := os.Remove(filepath.Join(m.dir, "boot", fakeesp.StubName(42))); err != nil {
				m.t.Fatal(err)
			}
		}, "the default generation, 42, is not in the boot menu"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			before := m.state()
			runner, _ := m.runner.(*nixos)
			runner.rebuilt = func() { test.change(m) }
			m.answer(yes())
			m.expect(t, "enable", m.run(t.Context(), "enable"), 1, test.says, "would not boot like this")
			if diff := cmp.Diff(before, m.state()); diff != "" {
				t.Errorf("after the failure (-want +got):\n%s", diff)
			}
			if slices.ContainsFunc(runner.lines, func(l string) bool { return strings.HasPrefix(l, "sbctl enroll-keys") }) {
				t.Error("keys were enrolled although the boot files are not fit")
			}
		})
	}
}

func TestEnrolmentIncomplete(t *testing.T) {
	m := newMachine(t)
	runner, _ := m.runner.(*nixos)
	runner.partial = true
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 1, "sbctl ended well, but the firmware does not have the keys")
	if got := m.target(); got != "Standard-Boot" {
		t.Errorf("target = %s, want Standard-Boot again", got)
	}
}

// The flake is made ready before anything is changed: files that git does not
// know, a lock file that is missing, a repository that is none.
func TestFlakeIsPrepared(t *testing.T) {
	m := newMachine(t)
	runner, _ := m.runner.(*nixos)
	runner.untracked = "?? new.nix\x00"
	if err := os.Remove(filepath.Join(m.dir, "etc/nixos/flake.lock")); err != nil {
		t.Fatal(err)
	}
	m.expect(t, "enable --dry-run", m.run(t.Context(), "enable", "--dry-run"), 0, "git does not know 1 file", "flake.lock is missing: it would be written first")
	m.answer(yes(), prompt.Answer{To: "Make git know it", Say: "yes"})
	runner.lines = nil
	m.expect(t, "enable", m.run(t.Context(), "enable"), 0, "new.nix", "Locking the inputs")
	order := []string{"git -C $ROOT/etc/nixos -c core.fsmonitor=false add", "nix --extra-experimental-features", "sbctl create-keys"}
	at := -1
	for _, want := range order {
		i := slices.IndexFunc(runner.lines, func(l string) bool { return strings.HasPrefix(l, want) })
		if i <= at {
			t.Errorf("%q is call %d, want it after call %d in:\n%s", want, i, at, strings.Join(runner.lines, "\n"))
		}
		at = i
	}

	m = newMachine(t)
	before := m.state()
	runner, _ = m.runner.(*nixos)
	runner.failing, runner.fail = true, 0
	m.answer(yes(), prompt.Answer{To: "is in no git repository", Say: "no"})
	m.expect(t, "enable outside of git", m.run(t.Context(), "enable"), 1, "not in a git repository", "hint: make one: git -C")
	m.unchanged(t, before)
	if len(runner.lines) != 1 {
		t.Errorf("outside of git, enable ran %q, want git rev-parse alone", runner.lines)
	}
}

// A folder that is named relative to where one is means the same in the journal.
func TestRelativeFlake(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	t.Chdir(m.dir)
	runner, _ := m.runner.(*nixos)
	runner.rebuilt = func() { m.esp.Standard(41) }
	m.hooks.Step = func(kind string, done bool) {
		if kind == "begin" && done {
			journal, err := os.ReadFile(filepath.Join(m.dir, "var/lib/nixos-go/secure-boot/journal.json"))
			if err != nil || !strings.Contains(string(journal), fmt.Sprintf("%q", filepath.Join(m.dir, "etc/nixos"))) {
				t.Errorf("journal: %s, %v, want the absolute folder of the flake", journal, err)
			}
		}
	}
	m.flake = "etc/nixos"
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 1, "as they were before")
	m.unchanged(t, before)
}

// The end of the context between two steps puts everything back.
func TestInterrupted(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	ctx, cancel := context.WithCancelCause(t.Context())
	m.hooks.Step = func(kind string, done bool) {
		if kind == "rebuild" && done {
			cancel(&run.InterruptedError{Signal: os.Interrupt})
		}
	}
	m.answer(yes())
	m.expect(t, "enable", m.run(ctx, "enable"), 1, "interrupted", "as they were before")
	if diff := cmp.Diff(before, m.state()); diff != "" {
		t.Errorf("after the interruption (-want +got):\n%s", diff)
	}
}

// A kill before and after every step, and in the middle of putting back: status
// says so, and the next run settles it. Before the firmware has the keys, that
// is as if nothing had been.
func TestKilled(t *testing.T) {
	points := []string{"begin-", "begin+", "target-", "target+", "rebuild-", "rebuild+", "verify-", "verify+", "clean-", "clean+"}
	for _, point := range slices.Concat(points, goingBack, []string{"keys-", "keys+", "enrol-", "enrol+"}) {
		t.Run("enable "+point, func(t *testing.T) {
			killAt(t, newMachine(t), "enable", point, point == "enrol+" || strings.HasPrefix(point, "clean"))
		})
	}
	for _, point := range points {
		t.Run("disable "+point, func(t *testing.T) { killAt(t, enabled(t), "disable", point, false) })
	}
	// With keys that the firmware has had for long, nothing tells that the run
	// got as far as giving them to it.
	for _, point := range slices.Concat(points, goingBack) {
		t.Run("enable with keys enrolled "+point, func(t *testing.T) {
			m := enabled(t)
			m.answer(yes())
			m.expect(t, "disable", m.run(t.Context(), "disable"), 0)
			m.generation(41)
			killAt(t, m, "enable", point, false)
		})
	}
}

// enabled is a machine with signed boot files and enrolled keys, whose firmware
// has Secure Boot switched off.
func enabled(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 0)
	m.booted(false)
	return m
}

// A run that was killed after the firmware had taken the keys is finished by
// the next one, also when the machine has booted in between.
func TestKilledThenBooted(t *testing.T) {
	for _, point := range []string{"enrol+", "clean-", "clean+"} {
		t.Run(point, func(t *testing.T) {
			m := newMachine(t)
			kill.Run(t, exec.Command("/proc/self/exe", killArg, m.dir, "enable", point))
			m.booted(true)
			m.answer()
			m.expect(t, "the next run", m.run(t.Context(), "enable"), 0, "the rest is done now", "Secure Boot is active already")
			if entries, err := os.ReadDir(filepath.Join(m.dir, "boot/loader/entries")); err != nil || len(entries) != 0 {
				t.Errorf("entries of systemd-boot after the next run: %v, %v, want none", entries, err)
			}
			m.expect(t, "status", m.run(t.Context(), "status"), 0, "next:          nothing to do")
		})
	}
}

// killAt kills an action at a point, and looks at what the next runs make of it.
// enrols tells whether the firmware has taken the keys by then.
func killAt(t *testing.T, m *machine, action, point string, enrols bool) {
	t.Helper()
	before := m.state()
	kill.Run(t, exec.Command("/proc/self/exe", killArg, m.dir, action, point))
	journal := filepath.Join(m.dir, "var/lib/nixos-go/secure-boot/journal.json")
	if _, err := os.Stat(journal); err == nil {
		m.expect(t, "status after the kill", m.run(t.Context(), "status"), 0, "a run was cut off")
	}

	// A run that only puts back, and then refuses, shows what putting back does.
	m.answer(prompt.Answer{To: "Change", Say: "no"})
	m.expect(t, "the next run", m.run(t.Context(), action), 1, "nothing was changed")
	if !enrols {
		after := m.state()
		for name := range after {
			if strings.HasPrefix(name, "sys/") {
				delete(after, name)
				delete(before, name)
			}
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("after the kill and the next run (-want +got):\n%s", diff)
		}
	}
	if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the next run Stat(journal) = %v, want ErrNotExist", err)
	}
	m.answer(yes())
	m.expect(t, "the run after that", m.run(t.Context(), action), 0)
}

// What cannot be put back is named, and stays in the journal for the next run.
func TestPutBackFails(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	runner, _ := m.runner.(*nixos)
	runner.failing, runner.fail = true, 4 // nix-env, after the failed verification
	runner.rebuilt = func() { m.esp.Standard(41) }
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 1, "not put back: the default generation", "do not boot before")
	runner.failing, runner.rebuilt = false, nil
	m.answer(prompt.Answer{To: "Change", Say: "no"})
	m.expect(t, "the next run", m.run(t.Context(), "enable"), 1, "was cut off: first, everything is put back")
	if diff := cmp.Diff(before, m.state()); diff != "" {
		t.Errorf("after the next run (-want +got):\n%s", diff)
	}
}

// A copy of the boot files that a kill left unfinished is made anew.
func TestUnfinishedCopy(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	m.write("var/lib/nixos-go/secure-boot/esp/EFI/BOOT/BOOTX64.EFI", "half of it")
	m.write("var/lib/nixos-go/secure-boot/esp/EFI/BOOT/other.efi", "of another time")
	runner, _ := m.runner.(*nixos)
	runner.rebuilt = func() { m.esp.Standard(41) }
	m.answer(yes())
	m.expect(t, "enable", m.run(t.Context(), "enable"), 1, "as they were before")
	m.unchanged(t, before)
}

func TestDryRun(t *testing.T) {
	m := newMachine(t)
	before := m.state()
	m.expect(t, "enable --dry-run", m.run(t.Context(), "enable", "--dry-run"), 0)
	want := `1. make keys in /var/lib/sbctl (sbctl)
2. copy the boot files of $ROOT/boot to /var/lib/nixos-go/secure-boot
3. set the target in $ROOT/etc/nixos/config.json to Secure-Boot
4. rebuild the system for the next boot (nixos-rebuild boot)
5. verify the boot loader, the stubs, and the kernels and initrds that they vouch for
6. give the keys to the firmware, with Microsoft's certificates, and read them back
7. remove the boot entries that the firmware would refuse from now on
`
	if diff := cmp.Diff(want, strings.ReplaceAll(m.out.String(), m.dir, "$ROOT")); diff != "" {
		t.Errorf("enable --dry-run (-want +got):\n%s", diff)
	}
	m.expect(t, "enable --dry-run --json", m.run(t.Context(), "enable", "--dry-run", "--json"), 0, `"createKeys": true`)
	if diff := cmp.Diff(before, m.state()); diff != "" {
		t.Errorf("a dry run changed (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "var")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a dry run Stat(/var) = %v, want ErrNotExist", err)
	}
}

func TestStatusJSON(t *testing.T) {
	m := newMachine(t)
	m.rom()
	m.expect(t, "status --json", m.run(t.Context(), "status", "--json"), 0)
	var got secureboottool.Status
	if err := json.Unmarshal(m.out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Active || got.Keys.Exist || !got.Keys.Kept || got.Configured != "Standard-Boot" || got.Generation != 41 || len(got.OptionROMs) != 1 || !got.Firmware.SetupMode {
		t.Errorf("status --json = %+v, want a machine in setup mode without keys", got)
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add(`{"version":1,"action":"enable","started":"2026-11-24T12:00:00Z","flake":"/etc/nixos","target":"Standard-Boot","generation":41,"esp":"/boot","files":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		j, err := secureboottool.ParseJournal(strings.NewReader(text))
		if err == nil && j.Action != secureboottool.Enable && j.Action != secureboottool.Disable {
			t.Errorf("ParseJournal(%q) = action %q", text, j.Action)
		}
	})
}
