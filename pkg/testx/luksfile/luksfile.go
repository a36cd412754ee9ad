// Package luksfile makes LUKS2 volumes in files, by the real cryptsetup. Header
// operations on them need neither root nor device mapper.
package luksfile

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"nixos-go/pkg/testx"
)

// size is the size of a volume in bytes: the default header is 16 MiB.
const size = 24 << 20

// Need ends the test where a program is missing.
func Need(tb testing.TB, programs ...string) {
	tb.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			testx.Unavailable(tb, program+" is not installed")
		}
	}
}

// New makes a volume whose key slots 0, 1, … open with the passphrases. Their
// derivation is as fast as cryptsetup allows.
func New(tb testing.TB, passphrases ...string) string {
	tb.Helper()
	Need(tb, "cryptsetup")
	image := filepath.Join(tb.TempDir(), "volume.luks")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		tb.Fatal(err)
	}
	fast := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	Cryptsetup(tb, passphrases[0], append(fast, "luksFormat", "--batch-mode", "--type", "luks2", image, "-")...)
	for i, passphrase := range passphrases[1:] {
		file := filepath.Join(tb.TempDir(), "new")
		if err := os.WriteFile(file, []byte(passphrase), 0o600); err != nil {
			tb.Fatal(err)
		}
		Cryptsetup(tb, passphrases[0], append(fast, "luksAddKey", "--batch-mode", "--key-file=-",
			"--key-slot", strconv.Itoa(i+1), image, file)...)
		if err := os.Remove(file); err != nil {
			tb.Fatal(err)
		}
	}
	return image
}

// Cryptsetup runs cryptsetup with a standard input; it must succeed.
func Cryptsetup(tb testing.TB, stdin string, args ...string) string {
	tb.Helper()
	command := exec.Command("cryptsetup", args...)
	command.Stdin = bytes.NewReader([]byte(stdin))
	out, err := command.CombinedOutput()
	if err != nil {
		tb.Fatalf("cryptsetup %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// Opens is the slot that a passphrase opens by cryptsetup's own judgement, -1
// for none: the oracle.
func Opens(tb testing.TB, image, passphrase string) int {
	tb.Helper()
	var dump struct {
		Keyslots map[string]json.RawMessage `json:"keyslots"`
	}
	if err := json.Unmarshal([]byte(Cryptsetup(tb, "", "luksDump", "--dump-json-metadata", image)), &dump); err != nil {
		tb.Fatalf("cryptsetup luksDump --dump-json-metadata %s: %v", image, err)
	}
	for _, name := range slices.Sorted(maps.Keys(dump.Keyslots)) {
		command := exec.Command("cryptsetup", "open", "--test-passphrase", "--disable-external-tokens",
			"--key-file=-", "--key-slot", name, image)
		command.Stdin = bytes.NewReader([]byte(passphrase))
		if command.Run() == nil {
			slot, err := strconv.Atoi(name)
			if err != nil {
				tb.Fatal(err)
			}
			return slot
		}
	}
	return -1
}

// AddTPM2Token adds a token of systemd's for a slot, which a policy of PCR 7
// guards.
func AddTPM2Token(tb testing.TB, image string, slot int) {
	tb.Helper()
	Cryptsetup(tb, `{"type":"systemd-tpm2","keyslots":["`+strconv.Itoa(slot)+`"],"tpm2-blob":"AA==","tpm2-pcrs":[7],`+
		`"tpm2-pcr-bank":"sha256","tpm2-primary-alg":"ecc","tpm2-policy-hash":"`+
		`0000000000000000000000000000000000000000000000000000000000000000","tpm2-pin":false}`,
		"token", "import", "--json-file", "-", image)
}
