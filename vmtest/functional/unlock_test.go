package functional

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"nixos-go/vmtest"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/host"
)

// prompt is how systemd asks for the passphrase on the console.
const prompt = `(?i)please enter passphrase(?: or recovery key)? for disk[^\n]*`

// bootTyping boots with nothing that unlocks the disk, and types the passphrase
// at the prompt.
func (b *box) bootTyping(passphrase string, words ...string) {
	b.t.Helper()
	b.Spec.Credentials = nil
	b.launch(words...)
	if _, err := b.Expect(vmtest.Context(b.t), prompt); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Type(passphrase + "\n"); err != nil {
		b.t.Fatal(err)
	}
	b.ready()
}

// bootUnattended boots without anything that could be typed, and checks that
// nobody was asked.
func (b *box) bootUnattended(words ...string) {
	b.t.Helper()
	b.Spec.Credentials = nil
	before := len(b.Console().Text())
	b.boot(words...)
	if text := b.Console().Text()[before:]; regexp.MustCompile(prompt).MatchString(text) {
		b.t.Errorf("somebody was asked for the passphrase:\n%s", b.Console().Tail(30))
	}
}

// put writes a file of the guest that root alone reads.
func (b *box) put(path, text string) {
	b.t.Helper()
	if err := b.Agent().PutBytes(vmtest.Context(b.t), path, 0o600, []byte(text)); err != nil {
		b.t.Fatal(err)
	}
}

// tokenOpens asks the TPM for the key of a partition, and nobody else.
const tokenOpens = `cryptsetup open --test-passphrase --token-only "$1"`

const partition = "/dev/disk/by-partlabel/disk-main-luks"

// opens tells whether a passphrase opens the disk, leaving the TPM aside.
func (b *box) opens(passphrase string) bool {
	b.t.Helper()
	b.put("/run/try", passphrase)
	return b.sh(`if cryptsetup open --test-passphrase --disable-external-tokens --key-file=/run/try "$1" 2>/dev/null; then echo yes; else echo no; fi
	             rm /run/try`, partition) == "yes\n"
}

// A new passphrase, typed at the next boot; the old one opens nothing any more;
// the account has the new password, after a reset too.
func TestVM_PasswordChange(t *testing.T) {
	t.Parallel()
	const changed = "a much newer passphrase, not easily guessed 7"
	b := newBox(t)
	b.bootTyping(full.Passphrase)
	b.put("/run/old", full.Passphrase)
	b.put("/run/new", changed)
	b.sh("mkdir -p -m 0700 /var/lib/nixos-go/secrets")
	out := b.sh("nixos-change-password --current-password-file /run/old --password-file /run/new --json")
	t.Logf("nixos-change-password: %s", out)
	if b.opens(full.Passphrase) {
		t.Error("the old passphrase still opens the disk")
	}
	if !b.opens(changed) {
		t.Error("the new passphrase does not open the disk")
	}
	hash := b.sh("cat /var/lib/nixos-go/secrets/hashed-password")
	if !strings.HasPrefix(hash, "$y$") {
		t.Errorf("the hash file holds %q, want a hash of yescrypt", hash)
	}
	if got := b.sh("getent shadow admin | cut -d: -f2"); got != strings.TrimSpace(hash)+"\n" {
		t.Errorf("the account's password is %q, want that of the hash file, %q", got, hash)
	}
	b.powerOff()

	b.bootTyping(changed)
	if got := b.sh("cat /var/lib/nixos-go/secrets/hashed-password"); got != hash {
		t.Errorf("the hash file after the reset = %q, want %q", got, hash)
	}
	b.powerOff()
}

// The TPM unlocks, until it is told not to; the recovery key always does.
func TestVM_TPM2(t *testing.T) {
	t.Parallel()
	b := newBox(t, firmware)
	b.Boot.Crypttab = host.UnlockedByTPM
	b.bootTyping(full.Passphrase)
	b.put("/run/old", full.Passphrase)
	if refused, err := b.Shell(vmtest.Context(t), "nixos-tpm2 enable --yes --current-password-file /run/old"); err == nil {
		t.Errorf("the TPM was enrolled without Secure Boot:\n%s", refused)
	}
	var result struct {
		RecoveryKey string `json:"recoveryKey"`
	}
	out := b.sh("nixos-tpm2 enable --insecure --recovery-key --yes --json --current-password-file /run/old")
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.RecoveryKey == "" {
		t.Fatalf("nixos-tpm2 enable says %s (%v), want a recovery key", out, err)
	}
	b.powerOff()

	b.bootUnattended()
	status := b.sh("nixos-tpm2 status --json")
	t.Logf("nixos-tpm2 status: %s", status)
	// Bound to PCR 7 alone, the key can be had again after the boot: the control of
	// what TestVM_SecureBoot finds refused under the full policy.
	b.sh(tokenOpens, partition)
	b.put("/run/old", full.Passphrase)
	b.sh("nixos-tpm2 disable --yes --current-password-file /run/old")
	b.powerOff()

	b.bootTyping(result.RecoveryKey)
	if !b.opens(full.Passphrase) {
		t.Error("the passphrase does not open the disk any more")
	}
	b.powerOff()
	b.bootTyping(full.Passphrase)
	b.powerOff()
}
