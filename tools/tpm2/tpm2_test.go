package tpm2tool_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/kill"
	"nixos-go/pkg/testx/leak"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/tpm2"
	tpm2tool "nixos-go/tools/tpm2"
)

func TestEnableAndDisable(t *testing.T) {
	m := newMachine(t)
	m.answer(knows())
	m.expect("enable", m.run("enable"), 0, "ok: the TPM unlocks", "PCR 7+12 and PCR 15 at zero")
	runner, _ := m.runner.(*systemd)
	test := "cryptsetup open --test-passphrase --type luks2 --disable-external-tokens --key-file=- --key-slot 0 " + m.image()
	want := []string{
		"systemd-cryptenroll --version",
		test, test,
		"systemd-cryptenroll --unlock-key-file=/proc/self/fd/3 --tpm2-device=" + m.chip.Device() +
			" --tpm2-pcrs=7+12+15:sha256=" + zeros + " --tpm2-public-key= " + m.image(),
	}
	if diff := cmp.Diff(want, runner.lines); diff != "" {
		t.Errorf("enable ran (-want +got):\n%s", diff)
	}
	if got := m.header().SlotsOf(luks.TokenTPM2); len(got) != 1 {
		t.Errorf("after enable the TPM has slots %v, want one", got)
	}

	// Before the next boot the guard has no effect yet, and after it it has.
	m.expect("status", m.run("status"), 0, "a danger: the TPM wants PCR 15 at zero, but this boot did not measure")
	m.measureVolumeKey()
	m.expect("status", m.run("status"), 0,
		"the TPM, bound to PCR 7+12 and PCR 15 at zero; it matches the machine as it is now",
		"swapped partition: no danger: the disk's key was measured into PCR 15", "next:        nothing to do")

	// A second enabling wipes in a call of its own, although nothing differs.
	runner.lines = nil
	m.answer(knows())
	m.expect("enable again", m.run("enable"), 0)
	wipe := slices.Index(runner.lines, "systemd-cryptenroll --wipe-slot=tpm2 "+m.image())
	enrol := slices.IndexFunc(runner.lines, func(l string) bool { return strings.Contains(l, "--tpm2-pcrs=") })
	if wipe < 0 || enrol < wipe {
		t.Errorf("enable again ran %q, want a wipe of its own before the enrolling", runner.lines)
	}

	m.answer(knows(), prompt.Answer{To: "Remove the TPM's key slots?", Say: "yes"})
	m.expect("disable", m.run("disable"), 0, "the next boot asks for the passphrase")
	if h := m.header(); len(h.Tokens) != 0 || len(h.Slots) != 1 {
		t.Errorf("after disable: slots %v, tokens %v, want the passphrase alone", h.Slots, h.Tokens)
	}
	m.answer()
	m.expect("disable again", m.run("disable"), 0, "no TPM is enrolled")
}

func TestPIN(t *testing.T) {
	m := newMachine(t)
	m.answer(knows(), prompt.Answer{To: "New PIN", Say: pin}, prompt.Answer{To: "again", Say: pin})
	m.expect("enable --pin", m.run("enable", "--pin"), 0, "PCR 7+12 and PCR 15 at zero, with a PIN")
	m.measureVolumeKey()
	m.expect("status", m.run("status"), 0, "with a PIN; it matches")
}

func TestRecoveryKey(t *testing.T) {
	m := newMachine(t)
	m.answer(knows())
	m.expect("enable --recovery-key", m.run("enable", "--recovery-key"), 0, "never shown again")
	key := regexp.MustCompile(`(?m)^ {4}((?:[cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8})$`).FindStringSubmatch(m.out.String())
	if key == nil {
		t.Fatalf("no recovery key on standard output:\n%s", m.out.String())
	}
	if strings.Contains(m.err.String(), key[1]) {
		t.Error("the recovery key is among the messages, too")
	}
	if !strings.Contains(m.out.String(), "█") {
		t.Error("no QR code on standard output")
	}
	if slot := luksfile.Opens(t, m.image(), key[1]); slot != 1 || m.header().KindOf(1) != luks.Recovery {
		t.Errorf("the recovery key opens slot %d, marked %s, want 1, %s", slot, m.header().KindOf(1), luks.Recovery)
	}
	m.expect("status", m.run("status"), 0, "a recovery key that a person types")

	// The recovery key itself allows a new enrolling.
	m.answer(prompt.Answer{To: "Passphrase or recovery key", Say: key[1]})
	m.expect("enable by the recovery key", m.run("enable"), 0)
}

func TestHeaderBackup(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(m.dir, "header.luks")
	m.answer(knows())
	m.expect("enable --header-backup", m.run("enable", "--header-backup", file), 0, "keep "+file+" off this disk")
	if slot := luksfile.Opens(t, file, passphrase); slot != 0 {
		t.Errorf("the backup opens slot %d, want 0", slot)
	}
	before := m.header().Sequence
	m.answer(knows())
	m.expect("the same file again", m.run("enable", "--header-backup", file), 1, "the file exists")
	if after := m.header().Sequence; after != before {
		t.Errorf("the refused enable changed the header: sequence %d, want %d", after, before)
	}
}

// Every refusal leaves the header as it is, and says what to do.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*machine)
		args    []string
		answers []prompt.Answer
		code    tpm2tool.Code
		says    []string
	}{
		{name: "no TPM", change: func(m *machine) {
			m.hooks.Open = func(run.Files) (*tpm2.Device, error) { return nil, tpm2.ErrNoTPM }
		}, says: []string{"no TPM", "hint: look for TPM, fTPM (AMD) or PTT (Intel)"}},
		{name: "TPM 1.2", change: func(m *machine) {
			m.hooks.Open = func(run.Files) (*tpm2.Device, error) { return nil, tpm2.ErrOldTPM }
		}, says: []string{"version 1.2"}},
		{
			name: "Secure Boot off", change: func(m *machine) { m.firmware.SecureBoot = false; m.boot() },
			says: []string{"not booted under Secure Boot", "hint: sudo nixos-secure-boot enable", "--insecure"},
		},
		{
			name: "systemd-boot without lanzaboote", change: func(m *machine) { m.firmware.Stub = ""; m.boot() },
			says: []string{"but not by lanzaboote (systemd-boot 258.2)", "PCR 12 changes with every generation"},
		},
		{name: "no UEFI", change: func(m *machine) {
			if err := os.RemoveAll(filepath.Join(m.dir, "sys/firmware")); err != nil {
				m.t.Fatal(err)
			}
		}, says: []string{"not booted by UEFI"}},
		{name: "not configured", change: func(m *machine) {
			m.write("etc/nixos-go/settings.json", strings.Replace(settingsJSON, `"tpm": {"enable": true}`, `"tpm": {"enable": false}`, 1))
		}, says: []string{"settings.tpm.enable is false", "hint: set settings.tpm.enable = true;"}},
		{name: "not encrypted", change: func(m *machine) {
			m.write("etc/nixos-go/settings.json", strings.Replace(settingsJSON, `"enable": true, "mapper"`, `"enable": false, "mapper"`, 1))
		}, says: []string{"not encrypted"}},
		{name: "LUKS1", change: func(m *machine) {
			luksfile.Cryptsetup(m.t, "x", "luksFormat", "--batch-mode", "--type", "luks1", "--pbkdf-force-iterations", "1000", m.image(), "-")
		}, says: []string{"LUKS version 1, want 2", "hint: a TPM needs LUKS2", "cryptsetup convert"}},
		{name: "no LUKS at all", change: func(m *machine) { m.write(device, "text") }, says: []string{"not a LUKS volume"}},
		{
			name: "only the TPM opens it", change: func(m *machine) { luksfile.AddTPM2Token(m.t, m.image(), 0) },
			says: []string{"neither a passphrase nor a recovery key", "hint: systemd-cryptenroll --unlock-tpm2-device=auto --recovery-key"},
		},
		{
			name: "a wrong passphrase", change: func(*machine) {}, answers: []prompt.Answer{{To: "Passphrase", Say: "wrong"}},
			says: []string{"no key slot opens with this passphrase; nothing was changed"},
		},
		{name: "PCR 15 in the list", change: func(*machine) {}, args: []string{"--pcrs", "7+15"}, says: []string{"PCR 15 is always bound at zero", "hint: leave 15 out"}},
		{name: "firmware that measures nothing", change: func(m *machine) {
			fresh := newMachineEmptyPCRs(m)
			m.hooks.Open = fresh
		}, says: []string{"PCR 7 is empty"}},
		{name: "old systemd", change: func(m *machine) {
			s, _ := m.runner.(*systemd)
			s.version = "systemd 254 (254.10)\n"
		}, says: []string{"systemd 254 is too old", "255 is needed", "hint: update NixOS"}},
		{name: "a damaged copy of the header", change: func(m *machine) {
			file, err := os.OpenFile(m.image(), os.O_WRONLY, 0)
			if err != nil {
				m.t.Fatal(err)
			}
			if _, err := file.WriteAt([]byte("x"), 5000); err != nil {
				m.t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				m.t.Fatal(err)
			}
		}, says: []string{"one of the two copies of the header is damaged", "hint: cryptsetup repair"}},
		{
			name: "Ctrl-C at the passphrase", change: func(*machine) {}, answers: []prompt.Answer{{To: "Passphrase", Err: prompt.ErrInterrupted}},
			says: []string{"interrupted"},
		},
		{
			name: "insecure, refused", change: func(m *machine) { m.firmware.SecureBoot = false; m.boot() }, args: []string{"--insecure"},
			answers: []prompt.Answer{{To: "Enrol the TPM all the same?", Say: "no"}}, says: []string{"from a USB stick", "nothing was changed"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newMachine(t)
			test.change(m)
			before, err := os.ReadFile(m.image())
			if err != nil {
				t.Fatal(err)
			}
			m.answer(test.answers...)
			m.expect("enable", m.run(append([]string{"enable"}, test.args...)...), 1, test.says...)
			after, err := os.ReadFile(m.image())
			if err != nil {
				t.Fatal(err)
			}
			if string(before) != string(after) {
				t.Error("the refused enable changed the disk")
			}
		})
	}
}

// newMachineEmptyPCRs is a TPM into which nothing was ever measured.
func newMachineEmptyPCRs(m *machine) func(run.Files) (*tpm2.Device, error) {
	empty := newMachineTPM(m.t)
	return func(run.Files) (*tpm2.Device, error) {
		chip, err := empty.Open()
		return &tpm2.Device{TPMCloser: chip}, err
	}
}

// Without Secure Boot there is PCR 7 alone, explained; the real
// systemd-cryptenroll does it, whatever its version.
func TestInsecure(t *testing.T) {
	m := newMachine(t)
	m.firmware = firmwareWithoutSecureBoot()
	m.boot()
	m.answer(prompt.Answer{To: "Enrol the TPM all the same?", Say: "yes"}, knows())
	m.expect("enable --insecure", m.run("enable", "--insecure"), 0, "warning: with PCR 7 alone", "whoever boots anything at all on this machine")
	token := m.header().Tokens[m.header().TokensOf(luks.TokenTPM2)[0]]
	parsed, err := tpm2.ParseToken(token.Raw)
	if diff := cmp.Diff([]int{7}, parsed.PCRs); diff != "" || err != nil {
		t.Errorf("--insecure enrolled PCRs %v, %v, want 7 alone", parsed.PCRs, err)
	}
	m.expect("status", m.run("status"), 0, "a danger: the TPM gives the key also after another volume was opened")
	m.answer(knows())
	m.expect("enable --insecure --yes", m.run("enable", "--insecure", "--yes"), 0)
	m.expect("--insecure --pcrs", m.run("enable", "--insecure", "--pcrs", "7"), 2, "PCR 7 alone")
}

// What the TPM had is gone when the enrolling fails: the message says so, and
// which slots exist.
func TestEnrolFails(t *testing.T) {
	m := newMachine(t, "tpm's")
	luksfile.AddTPM2Token(t, m.image(), 1)
	runner, _ := m.runner.(*systemd)
	runner.fail = "--tpm2-pcrs="
	m.answer(knows())
	m.expect("enable", m.run("enable", "--recovery-key", "--json"), 1,
		"what the TPM had before was wiped: the next boot asks for the passphrase",
		"key slot 0: passphrase", "key slot 2: recovery-key", "hint: the passphrase that you typed opens the disk")
	var result tpm2tool.Result
	if err := json.Unmarshal(m.out.Bytes(), &result); err != nil {
		t.Fatalf("--json: %v\n%s", err, m.out.String())
	}
	if result.Error == "" || luksfile.Opens(t, m.image(), result.RecoveryKey) != 2 {
		t.Errorf("--json of the failure: error %q, a recovery key that opens slot %d; want an error, and 2",
			result.Error, luksfile.Opens(t, m.image(), result.RecoveryKey))
	}

	// The wipe that fails leaves everything.
	m = newMachine(t, "tpm's")
	luksfile.AddTPM2Token(t, m.image(), 1)
	runner, _ = m.runner.(*systemd)
	runner.fail = "--wipe-slot"
	m.answer(knows())
	m.expect("enable", m.run("enable"), 1, "key slot 1: tpm2")

	// A program that says that it has enrolled, and has not.
	m = newMachine(t)
	m.runner = liar{m.runner}
	m.answer(knows())
	m.expect("enable", m.run("enable"), 1, "the header has no token of a TPM")
}

// liar does nothing when it should enrol.
type liar struct{ run.Runner }

func (l liar) Run(ctx context.Context, c run.Command) (run.Result, error) {
	if c.Program == "systemd-cryptenroll" && c.Args[0] != "--version" {
		return run.Result{}, nil
	}
	return l.Runner.Run(ctx, c)
}

// A recovery key that could not be tested is taken back.
func TestRecoveryKeyFails(t *testing.T) {
	m := newMachine(t)
	runner, _ := m.runner.(*systemd)
	runner.fail = "--key-slot 1 "
	m.answer(knows())
	m.expect("enable", m.run("enable", "--recovery-key"), 1, "key slot 0: passphrase")
	if m.out.Len() != 0 {
		t.Errorf("a key that does not work was shown:\n%s", m.out.String())
	}
	if got := m.header().SlotNumbers(); !slices.Equal(got, []int{0}) {
		t.Errorf("after the failure there are key slots %v, want 0 alone", got)
	}
}

func TestDisableRefuses(t *testing.T) {
	m := newMachine(t)
	luksfile.AddTPM2Token(t, m.image(), 0)
	m.expect("disable", m.run("disable"), 1, "the TPM is the only way into", "hint: systemd-cryptenroll")
	m = newMachine(t, "tpm's")
	luksfile.AddTPM2Token(t, m.image(), 1)
	m.answer(prompt.Answer{To: "Passphrase", Say: "tpm's"})
	m.expect("disable with the TPM's key", m.run("disable"), 1, "no key slot opens with this passphrase")
	m.answer(knows(), prompt.Answer{To: "Remove", Say: "no"})
	m.expect("disable, refused", m.run("disable"), 1, "nothing was changed")
	if len(m.header().Tokens) != 1 {
		t.Error("a refused disable removed the token")
	}
}

// The end of the context between two steps leaves what was done and says so:
// the recovery key has been seen, the TPM has what it had.
func TestInterrupted(t *testing.T) {
	m := newMachine(t, "tpm's")
	luksfile.AddTPM2Token(t, m.image(), 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	m.hooks.Step = func(kind string, done bool) {
		if kind == "recovery" && done {
			cancel(&run.InterruptedError{Signal: os.Interrupt})
		}
	}
	m.answer(knows())
	m.expect("enable", m.runContext(ctx, "enable", "--recovery-key"), 1,
		"error: interrupted", "key slot 0: passphrase", "key slot 1: tpm2", "key slot 2: recovery-key", "hint: the passphrase that you typed opens the disk")
	if luksfile.Opens(t, m.image(), passphrase) != 0 {
		t.Error("after the interruption the passphrase opens nothing")
	}
	m.hooks.Step = nil
	m.answer(knows())
	m.expect("enable again", m.run("enable"), 0)
}

// A kill at any point leaves the passphrase working, and the same command once
// more finishes.
func TestKilled(t *testing.T) {
	for _, point := range []string{
		"recovery-", "luksAddKey-", "luksAddKey+", "token import-", "token import+", "recovery+",
		"enrol-", "--wipe-slot=tpm2-", "--wipe-slot=tpm2+", "--tpm2-pcrs=7-", "--tpm2-pcrs=7+", "enrol+", "verify-", "verify+",
	} {
		t.Run(point, func(t *testing.T) {
			m := newMachine(t, "tpm's")
			luksfile.AddTPM2Token(t, m.image(), 1)
			m.write("passphrase", passphrase)
			kill.Run(t, exec.Command("/proc/self/exe", killArg, m.dir, m.chip.Socket, point))
			m.chip.Flush()
			if luksfile.Opens(t, m.image(), passphrase) != 0 {
				t.Fatal("after the kill the passphrase opens nothing")
			}
			m.answer(knows())
			m.expect("enable after the kill", m.run("enable"), 0)
		})
	}
}

func TestWiped(t *testing.T) {
	m := newMachine(t)
	keeper := &leak.Keeper{Answers: map[string]string{"Passphrase": passphrase, "New PIN": pin}}
	m.ask = keeper
	m.expect("enable --pin", m.run("enable", "--pin"), 0)
	if len(keeper.Given) != 3 {
		t.Fatalf("the tool asked %d times, want 3", len(keeper.Given))
	}
	for i, buffer := range keeper.Given {
		if strings.Trim(string(buffer[:cap(buffer)]), "\x00") != "" {
			t.Errorf("secret %d is still in memory: %q", i, buffer)
		}
	}
	if got := m.redact.Text(passphrase); got != passphrase {
		t.Errorf("the redactor still holds the passphrase: Text = %q", got)
	}
}
