package changepassword_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/passwd"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/kill"
	"nixos-go/pkg/testx/leak"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/testx/swtpm"
	changepassword "nixos-go/tools/change_password"
)

var (
	before = state{DiskOld: true, Account: "old"}
	after  = state{DiskNew: true, Account: "new"}
)

func TestChangeBoth(t *testing.T) {
	m := newMachine(t, oldPassword)
	recorder := &sabotage{Runner: local(), fail: -1}
	status := m.run(t.Context(), recorder, answers(), changepassword.Hooks{}, "--json")
	m.expect("change", status, 0, after)
	m.says("change", "strength: ", "ok: "+m.image()+" opens with the new passphrase (key slot 1)",
		"ok: alice has the new password", "wallet", "backup of the disk's header")
	disk := m.image()
	test := "cryptsetup open --test-passphrase --type luks2 --disable-external-tokens --key-file=- --key-slot "
	want := []string{
		test + "0 " + disk,
		"cryptsetup luksAddKey --batch-mode --disable-external-tokens --key-file=- --key-slot 1 " + disk + " /proc/self/fd/3",
		test + "1 " + disk,
		filepath.Join(m.dir, "run/current-system/activate"),
		test + "1 " + disk,
		"cryptsetup luksKillSlot --batch-mode --disable-external-tokens --key-file=- " + disk + " 0",
	}
	if diff := cmp.Diff(want, recorder.lines); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	wantJSON := fmt.Sprintf(`{
  "disk": {
    "device": %q,
    "slot": 1,
    "removed": 0
  },
  "account": {
    "name": "alice"
  }
}
`, disk)
	if diff := cmp.Diff(wantJSON, m.out.String()); diff != "" {
		t.Errorf("--json (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(m.dir, "var/lib/nixos-go/secrets/hashed-password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the hash's file has mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestChangeOne(t *testing.T) {
	t.Run("disk", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		status := m.run(t.Context(), local(), answers(), changepassword.Hooks{}, "--full-disk-encryption-only")
		m.expect("change", status, 0, state{DiskNew: true, Account: "old"})
		if strings.Contains(m.err.String(), "wallet") {
			t.Errorf("the disk alone changed, and the wallet is spoken of:\n%s", m.err.String())
		}
	})
	t.Run("account", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		status := m.run(t.Context(), local(), answers()[1:], changepassword.Hooks{}, "--user-account-only")
		m.expect("change", status, 0, state{DiskOld: true, Account: "new"})
	})
	t.Run("no encrypted disk", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		m.write("etc/nixos-go/settings.json", strings.Replace(settingsJSON, `"enable": true, "mapper"`, `"enable": false, "mapper"`, 1), 0o644)
		status := m.run(t.Context(), local(), answers()[1:], changepassword.Hooks{})
		m.expect("change", status, 0, state{DiskOld: true, Account: "new"})
		m.says("change", "not encrypted")
		if status := m.run(t.Context(), local(), nil, changepassword.Hooks{}, "--full-disk-encryption-only"); status != 1 {
			t.Errorf("--full-disk-encryption-only without an encrypted disk: exit status %d, want 1", status)
		}
	})
}

// Every command of a change fails once, before and after its work: a password
// that the owner knows works, nothing is half changed but what the message
// says, and once more with the same passwords finishes.
func TestEachCommandFails(t *testing.T) {
	count := func() int {
		m := newMachine(t, oldPassword)
		counter := &sabotage{Runner: local(), fail: -1}
		if status := m.run(t.Context(), counter, answers(), changepassword.Hooks{}); status != 0 {
			t.Fatalf("change: exit status %d\n%s", status, m.err.String())
		}
		return counter.count
	}()
	if count != 6 {
		t.Fatalf("a change runs %d commands, want 6: adjust the test", count)
	}
	bothWork := state{DiskOld: true, DiskNew: true, Account: "new"}
	want := map[int]state{4: bothWork, 5: bothWork}
	for n := range count {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("command %d, after its work %t", n, late), func(t *testing.T) {
				m := newMachine(t, oldPassword)
				runner := &sabotage{Runner: local(), fail: n, after: late}
				status := m.run(t.Context(), runner, answers(), changepassword.Hooks{})
				expected, known := want[n]
				switch {
				case !known:
					expected = before
				case n == 5 && late:
					expected = after // the slot was removed, and only the answer was lost
				}
				m.expect("the failed change", status, 1, expected)
				if n > 0 {
					m.says("the failed change", "opens it", "alice has the "+expected.Account+" password")
				}
				if n == 5 && late {
					return
				}
				status = m.run(t.Context(), local(), answers(), changepassword.Hooks{})
				m.expect("the change after it", status, 0, after)
			})
		}
	}
}

// An activation that does not take the hash over is noticed and undone.
func TestActivationWithoutEffect(t *testing.T) {
	m := newMachine(t, oldPassword)
	m.write("run/current-system/activate", "#!/bin/sh\nexit 0\n", 0o755)
	status := m.run(t.Context(), local(), answers(), changepassword.Hooks{}, "--json")
	m.expect("change", status, 1, before)
	m.says("change", "hashedPasswordFile", "the old passphrase (key slot 0) opens it", "alice has the old password")
	for _, want := range []string{`"error": "after the activation`, `"disk: the old passphrase (key slot 0) opens it"`} {
		if !strings.Contains(m.out.String(), want) {
			t.Errorf("--json of a failure: want %q in:\n%s", want, m.out.String())
		}
	}
}

// Where there was no hash file, a failure leaves none.
func TestNoHashFileBefore(t *testing.T) {
	m := newMachine(t, oldPassword)
	file := filepath.Join(m.dir, "var/lib/nixos-go/secrets/hashed-password")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	m.write("run/current-system/activate", "#!/bin/sh\nexit 1\n", 0o755)
	if status := m.run(t.Context(), local(), answers(), changepassword.Hooks{}); status != 1 {
		t.Errorf("change: exit status %d, want 1", status)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the failed change Stat(hash file) = %v, want ErrNotExist", err)
	}
}

// The end of the context between two steps takes back what was done.
func TestInterrupted(t *testing.T) {
	m := newMachine(t, oldPassword)
	ctx, cancel := context.WithCancelCause(t.Context())
	hooks := changepassword.Hooks{Step: func(kind string, done bool) {
		if kind == "add" && done {
			cancel(&run.InterruptedError{Signal: os.Interrupt})
		}
	}}
	status := m.run(ctx, local(), answers(), hooks)
	m.expect("the interrupted change", status, 1, before)
	m.says("the interrupted change", "interrupted", "the old passphrase (key slot 0) opens it")
}

// A kill before and after each step leaves a known password working, and the
// same command once more finishes.
func TestKilled(t *testing.T) {
	for _, point := range []string{
		"add-", "luksAddKey-", "luksAddKey+", "add+", "account-", "activate-", "activate+", "account+",
		"remove-", "luksKillSlot-", "luksKillSlot+", "remove+",
	} {
		t.Run(point, func(t *testing.T) {
			m := newMachine(t, oldPassword)
			m.write("old", oldPassword, 0o600)
			m.write("new", newPassword, 0o600)
			kill.Run(t, exec.Command("/proc/self/exe", killArg, m.dir, point))
			got := m.state()
			if !got.DiskOld && !got.DiskNew || got.Account == "neither" {
				t.Fatalf("after the kill: %+v: no known password works", got)
			}
			if point == "luksKillSlot+" || point == "remove+" {
				m.expect("after the kill", 0, 0, after)
				return
			}
			status := m.run(t.Context(), local(), answers(), changepassword.Hooks{})
			m.expect("the change after the kill", status, 0, after)
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Run("wrong passphrase", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		wrong := answers()[:1] // nothing more is asked
		wrong[0].Say = "not it"
		status := m.run(t.Context(), local(), wrong, changepassword.Hooks{})
		m.expect("change", status, 1, before)
		m.says("change", "no key slot opens with this passphrase; nothing was changed")
	})
	t.Run("the TPM's own key", func(t *testing.T) {
		m := newMachine(t, "another", oldPassword)
		luksfile.AddTPM2Token(t, m.image(), 1)
		status := m.run(t.Context(), local(), answers(), changepassword.Hooks{})
		m.expect("change", status, 1, before)
	})
	t.Run("the same again", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		same := []prompt.Answer{{To: "Present", Say: oldPassword}, {To: "New", Say: oldPassword}, {To: "again", Say: oldPassword}}
		status := m.run(t.Context(), local(), same, changepassword.Hooks{}, "--full-disk-encryption-only")
		m.expect("change", status, 1, before)
		m.says("change", "the new password is the present one")
	})
	t.Run("the disk has it already", func(t *testing.T) {
		m := newMachine(t, newPassword)
		same := answers()
		same[0].Say = newPassword
		status := m.run(t.Context(), local(), same, changepassword.Hooks{})
		m.expect("change", status, 0, after)
		m.says("change", "the disk has this passphrase already")
	})
	t.Run("mistyped three times", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		asked := answers()[:1]
		for range 3 {
			asked = append(asked, prompt.Answer{To: "New", Say: newPassword}, prompt.Answer{To: "again", Say: "x"})
		}
		status := m.run(t.Context(), local(), asked, changepassword.Hooks{})
		m.expect("change", status, 1, before)
		m.says("change", "differ")
	})
	t.Run("weak, told and not forced", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		weak := answers()
		weak[1].Say, weak[2].Say = "alice1", "alice1"
		if status := m.run(t.Context(), local(), weak, changepassword.Hooks{}); status != 0 {
			t.Errorf("change to a weak password: exit status %d, want 0\n%s", status, m.err.String())
		}
		m.says("change", "warning: strength: weak")
	})
	t.Run("damaged header", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		file, err := os.OpenFile(m.image(), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte("x"), 5000); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		if status := m.run(t.Context(), local(), nil, changepassword.Hooks{}); status != 1 {
			t.Errorf("change with a damaged header: exit status %d, want 1", status)
		}
		m.says("change", "one of the two copies of the header is damaged", "hint: cryptsetup repair")
	})
	t.Run("no TPM enrolled", func(t *testing.T) {
		m := newMachine(t, oldPassword)
		if status := m.run(t.Context(), local(), nil, changepassword.Hooks{}, "--update-tpm2"); status != 1 {
			t.Errorf("--update-tpm2 without a TPM token: exit status %d, want 1", status)
		}
		m.says("change", "no TPM2 is enrolled")
	})
}

// Who comes in by the recovery key keeps it; other passphrases are named.
func TestRecoveryKey(t *testing.T) {
	m := newMachine(t, "forgotten", oldPassword)
	luksfile.Cryptsetup(t, `{"type":"systemd-recovery","keyslots":["1"]}`, "token", "import", "--json-file", "-", m.image())
	status := m.run(t.Context(), local(), answers(), changepassword.Hooks{})
	m.expect("change", status, 0, state{DiskOld: true, DiskNew: true, Account: "new"})
	m.says("change", "key slot 1, by which you came in, stays: it holds the recovery key", "key slot 0 (passphrase) also opens it")
}

// The TPM is enrolled again with the policy that it had, for real.
func TestUpdateTPM2(t *testing.T) {
	luksfile.Need(t, "systemd-cryptenroll", "cryptsetup", "swtpm")
	chip := swtpm.Start(t)
	sum := [32]byte{1}
	chip.Extend(7, sum[:])
	m := newMachine(t, oldPassword)
	m.write("pin", "1234\n", 0o600)
	enrol := exec.Command("systemd-cryptenroll", "--tpm2-device="+chip.Device(), "--tpm2-pcrs=7+12", "--tpm2-with-pin=yes", m.image())
	enrol.Env = append(os.Environ(), "PASSWORD="+oldPassword, "NEWPIN=1234")
	if out, err := enrol.CombinedOutput(); err != nil {
		t.Fatalf("systemd-cryptenroll: %v\n%s", err, out)
	}
	chip.Flush()
	volume := luks.Volume{Device: m.image()}
	token := func() string {
		h, err := volume.Header()
		if err != nil {
			t.Fatal(err)
		}
		numbers := h.TokensOf(luks.TokenTPM2)
		if len(numbers) != 1 {
			t.Fatalf("TPM tokens %v, want one", numbers)
		}
		return string(h.Tokens[numbers[0]].Raw)
	}
	first := token()
	status := m.run(t.Context(), local(), answers(), changepassword.Hooks{TPM: chip.Device()},
		"--update-tpm2", "--pin-file", filepath.Join(m.dir, "pin"))
	m.expect("change", status, 0, after)
	m.says("change", "the TPM is enrolled: PCR 7+12, with a PIN")
	if token() == first {
		t.Error("the TPM's token is the old one")
	}

	// A TPM that fails leaves the new password working, and says what is left.
	chip.Flush()
	m = newMachine(t, oldPassword, "tpm's")
	luksfile.AddTPM2Token(t, m.image(), 1)
	status = m.run(t.Context(), local(), answers(), changepassword.Hooks{TPM: "swtpm:path=/nowhere"}, "--update-tpm2")
	m.expect("change with a broken TPM", status, 1, after)
	m.says("change with a broken TPM", "the new passphrase", "nixos-tpm2 enable")
}

// The password itself must never be changed by the tool, and the buffers it
// holds are zeros afterwards.
func TestWiped(t *testing.T) {
	m := newMachine(t, oldPassword)
	ask := &leak.Keeper{Answers: map[string]string{"Present": oldPassword, "New": newPassword}}
	status := m.runWith(t.Context(), local(), ask, changepassword.Hooks{})
	m.expect("change", status, 0, after)
	if len(ask.Given) != 3 {
		t.Fatalf("the tool asked %d times for a password, want 3", len(ask.Given))
	}
	for i, buffer := range ask.Given {
		if strings.Trim(string(buffer[:cap(buffer)]), "\x00") != "" {
			t.Errorf("password %d is still in memory: %q", i, buffer[:cap(buffer)])
		}
	}
	if got := m.redact.Text(newPassword); got != newPassword {
		t.Errorf("the redactor still holds the new password: Text = %q", got)
	}
}

func TestHashIsNotThePassword(t *testing.T) {
	m := newMachine(t, oldPassword)
	if status := m.run(t.Context(), local(), answers(), changepassword.Hooks{}); status != 0 {
		t.Fatal(m.err.String())
	}
	hash := strings.TrimSpace(m.read("var/lib/nixos-go/secrets/hashed-password"))
	if same, err := passwd.Verify([]byte(newPassword), hash); !same || err != nil {
		t.Errorf("Verify(new password, %s) = %t, %v, want true", hash, same, err)
	}
}
