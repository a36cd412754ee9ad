package tpm2_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/testx/swtpm"
	"nixos-go/pkg/tpm2"
)

func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func TestPresent(t *testing.T) {
	for version, want := range map[string]error{"2\n": nil, "1\n": tpm2.ErrOldTPM, "": tpm2.ErrNoTPM} {
		dir := t.TempDir()
		if version != "" {
			write(t, filepath.Join(dir, "sys/class/tpm/tpm0/tpm_version_major"), version)
		}
		if err := tpm2.Present(run.Below(dir)); !errors.Is(err, want) {
			t.Errorf("Present with version %q = %v, want %v", version, err, want)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDevice(t *testing.T) {
	chip := swtpm.Start(t)
	chip.Extend(7, digest("secure boot on"))
	chip.Extend(7, digest("db"))
	d := &tpm2.Device{TPMCloser: chip}
	info, err := d.Describe()
	if err != nil {
		t.Fatalf("Describe = %v", err)
	}
	if info.Manufacturer != "IBM" || len(info.Banks) == 0 || info.Firmware == "" {
		t.Errorf("Describe = %+v, want the software TPM's name IBM, a firmware version and banks", info)
	}
	all := make([]int, 24)
	for i := range all {
		all[i] = i
	}
	values, err := d.ReadPCRs(tpm2.SHA256, all...)
	if err != nil || len(values) != 24 {
		t.Fatalf("ReadPCRs of all = %d values, %v, want 24", len(values), err)
	}
	zero := make([]byte, 32)
	want := digest(string(digest(string(zero)+string(digest("secure boot on")))) + string(digest("db")))
	if !bytes.Equal(values[7], want) {
		t.Errorf("PCR 7 = %x, want %x", values[7], want)
	}
	if !bytes.Equal(values[15], zero) || !bytes.Equal(values[17], bytes.Repeat([]byte{0xff}, 32)) {
		t.Errorf("PCR 15, 17 = %x, %x, want zeros and ones", values[15], values[17])
	}
	if _, err := d.ReadPCRs("md5", 7); err == nil {
		t.Error("ReadPCRs of an unknown bank = nil, want an error")
	}
}

func TestParsePCRs(t *testing.T) {
	for text, want := range map[string][]int{"7": {7}, "12+7": {7, 12}, "7+7": {7}, "0+23": {0, 23}} {
		got, err := tpm2.ParsePCRs(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("ParsePCRs(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "24", "-1", "7,12", "7+", "07", "seven"} {
		if got, err := tpm2.ParsePCRs(text); !errors.Is(err, tpm2.ErrPCRs) {
			t.Errorf("ParsePCRs(%q) = %v, %v, want ErrPCRs", text, got, err)
		}
	}
}

func TestPolicyArgument(t *testing.T) {
	p := tpm2.Policy{PCRs: []int{7, 12}, VolumeKeyUnmeasured: true}
	if got, want := p.Argument(), "7+12+15:sha256="+strings.Repeat("0", 64); got != want {
		t.Errorf("Argument = %s, want %s", got, want)
	}
	if got, want := (tpm2.Policy{PCRs: []int{7}, PIN: true}).Argument(), "7"; got != want {
		t.Errorf("Argument = %s, want %s", got, want)
	}
}

// systemd-cryptenroll itself, on a real header and a software TPM: what it
// writes is what we read, and its policy digest is the one we compute.
func TestJudgeAgainstCryptenroll(t *testing.T) {
	luksfile.Need(t, "systemd-cryptenroll", "cryptsetup", "swtpm")
	for _, test := range []struct {
		name   string
		policy tpm2.Policy
		pin    []byte
	}{
		{"PCR 7", tpm2.Policy{PCRs: []int{7}}, nil},
		{"PCR 7 and 12", tpm2.Policy{PCRs: []int{7, 12}}, nil},
		{"with a PIN", tpm2.Policy{PCRs: []int{7, 12}, PIN: true}, []byte("1234 pin")},
	} {
		t.Run(test.name, func(t *testing.T) {
			chip := swtpm.Start(t)
			chip.Extend(7, digest("secure boot on"))
			image := luksfile.New(t, "first")
			v := luks.Volume{Device: image, Runner: &run.Local{}}
			e := tpm2.Enrolment{Volume: v, Policy: test.policy, TPM: chip.Device()}
			if err := e.Apply(t.Context(), []byte("first"), test.pin); err != nil {
				t.Fatalf("Apply = %v", err)
			}
			device := &tpm2.Device{TPMCloser: chip}
			judge := func() (tpm2.Verdict, bool) {
				token := onlyToken(t, v)
				values, err := device.ReadPCRs(token.Bank, token.PCRs...)
				if err != nil {
					t.Fatal(err)
				}
				verdict, guarded, err := token.Judge(values)
				if err != nil {
					t.Fatal(err)
				}
				return verdict, guarded
			}
			token := onlyToken(t, v)
			if diff := cmp.Diff(test.policy.PCRs, token.PCRs); diff != "" || token.PIN != test.policy.PIN {
				t.Errorf("token = %+v, want PCRs %v, PIN %t", token, test.policy.PCRs, test.policy.PIN)
			}
			if verdict, guarded := judge(); verdict != tpm2.Matches || guarded {
				t.Errorf("Judge = %s, guarded %t, want matches, false", verdict, guarded)
			}
			chip.Extend(7, digest("somebody else's db"))
			if verdict, _ := judge(); verdict != tpm2.Differs {
				t.Errorf("Judge after PCR 7 changed = %s, want differs", verdict)
			}

			// Once more: the old slot goes, a new one that matches comes.
			if err := e.Apply(t.Context(), []byte("first"), test.pin); err != nil {
				t.Fatalf("Apply again = %v", err)
			}
			if verdict, _ := judge(); verdict != tpm2.Matches {
				t.Errorf("Judge after enrolling again = %s, want matches", verdict)
			}
			chip.Flush()
			// The same PCRs: systemd-cryptenroll alone would do nothing.
			before := onlyRaw(t, v)
			if err := e.Apply(t.Context(), []byte("first"), test.pin); err != nil {
				t.Fatalf("Apply with the same PCRs = %v", err)
			}
			if bytes.Equal(before, onlyRaw(t, v)) {
				t.Error("Apply with the same PCRs left the old token in place")
			}

			if err := e.Remove(t.Context()); err != nil {
				t.Fatalf("Remove = %v", err)
			}
			h, err := v.Header()
			if err != nil || len(h.Tokens) != 0 || len(h.Slots) != 1 {
				t.Errorf("after Remove: %+v, %v, want one slot and no token", h, err)
			}
			if luksfile.Opens(t, image, "first") != 0 {
				t.Error("after Remove the passphrase does not open slot 0")
			}
		})
	}
}

// What systemd-cryptenroll 257 wrote for PCR 15 at zero, without and with a
// PIN, on a TPM with one event in PCR 7 and none in PCR 12. Older versions,
// such as the one that the other tests may find, do not know such policies.
func TestJudgeRecorded(t *testing.T) {
	measured := map[int][]byte{
		7:  digest(string(make([]byte, 32)) + string(digest("secure boot on"))),
		12: make([]byte, 32),
		15: digest("a volume key"),
	}
	for policy, pin := range map[string]bool{
		"a99af7f4bf9e37b79b119bda9e16cc591221b34a67252b0f2268fceeb22d388c": false,
		"9bb97f6d2b929c993bac83c9b7178b7a9bb57bb3c90437e4d9fbd7d896c4dfb1": true,
	} {
		token, err := tpm2.ParseToken(json.RawMessage(fmt.Sprintf(
			`{"type":"systemd-tpm2","keyslots":["1"],"tpm2-pcrs":[7,12,15],"tpm2-pcr-bank":"sha256","tpm2-policy-hash":%q,"tpm2-pin":%t}`, policy, pin)))
		if err != nil {
			t.Fatal(err)
		}
		if verdict, guarded, err := token.Judge(measured); verdict != tpm2.Matches || !guarded || err != nil {
			t.Errorf("Judge with PIN %t = %s, guarded %t, %v, want matches, true", pin, verdict, guarded, err)
		}
	}
}

func onlyRaw(t *testing.T, v luks.Volume) json.RawMessage {
	t.Helper()
	h, err := v.Header()
	if err != nil {
		t.Fatal(err)
	}
	numbers := h.TokensOf(luks.TokenTPM2)
	if len(numbers) != 1 {
		t.Fatalf("the header has TPM tokens %v, want one", numbers)
	}
	return h.Tokens[numbers[0]].Raw
}

func onlyToken(t *testing.T, v luks.Volume) tpm2.Token {
	t.Helper()
	token, err := tpm2.ParseToken(onlyRaw(t, v))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Nothing is touched without a passphrase that works, and never the last way.
func TestApplyRefuses(t *testing.T) {
	image := luksfile.New(t, "first", "tpm's")
	recorder := &run.Recorder{}
	local := &run.Local{}
	recorder.On("cryptsetup").Do(local.Run)
	v := luks.Volume{Device: image, Runner: recorder}
	e := tpm2.Enrolment{Volume: v, Policy: tpm2.Policy{PCRs: []int{7}}}
	if err := e.Apply(t.Context(), []byte("wrong"), nil); !errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("Apply with a wrong passphrase = %v, want ErrWrongPassphrase", err)
	}
	luksfile.AddTPM2Token(t, image, 1)
	if err := e.Apply(t.Context(), []byte("tpm's"), nil); !errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("Apply with the TPM's own key = %v, want ErrWrongPassphrase", err)
	}
	luksfile.AddTPM2Token(t, image, 0)
	if err := e.Apply(t.Context(), []byte("first"), nil); !errors.Is(err, luks.ErrLastWay) {
		t.Errorf("Apply with nothing to type = %v, want ErrLastWay", err)
	}
	if err := e.Remove(t.Context()); !errors.Is(err, luks.ErrLastWay) {
		t.Errorf("Remove with nothing to type = %v, want ErrLastWay", err)
	}
	for _, line := range recorder.Lines() {
		if strings.HasPrefix(line, "systemd-cryptenroll") {
			t.Errorf("a refused Apply ran %s", line)
		}
	}
}

// The exact commands, and what a failure after the wiping says.
func TestApplyCommands(t *testing.T) {
	image := luksfile.New(t, "first", "tpm's")
	luksfile.AddTPM2Token(t, image, 1)
	recorder := &run.Recorder{}
	local := &run.Local{}
	recorder.On("cryptsetup").Do(local.Run)
	recorder.On("systemd-cryptenroll", "--wipe-slot=tpm2").Do(local.Run)
	recorder.On("systemd-cryptenroll", "--unlock-key-file=/proc/self/fd/3").Fail(1, "Failed to unseal")
	e := tpm2.Enrolment{
		Volume: luks.Volume{Device: image, Runner: recorder},
		Policy: tpm2.Policy{PCRs: []int{7, 12}, VolumeKeyUnmeasured: true, PIN: true},
	}
	err := e.Apply(t.Context(), []byte("first"), []byte("1234"))
	if failure, ok := errors.AsType[*tpm2.EnrolError](err); !ok || !failure.Wiped {
		t.Errorf("Apply = %v, want an EnrolError that says the old slots are gone", err)
	}
	zeros := strings.Repeat("0", 64)
	want := []string{
		"cryptsetup open --test-passphrase --type luks2 --disable-external-tokens --key-file=- --key-slot 0 " + image,
		"systemd-cryptenroll --wipe-slot=tpm2 " + image,
		"systemd-cryptenroll --unlock-key-file=/proc/self/fd/3 --tpm2-device=auto --tpm2-pcrs=7+12+15:sha256=" + zeros +
			" --tpm2-public-key= --tpm2-with-pin=yes " + image,
	}
	if diff := cmp.Diff(want, recorder.Lines()); diff != "" {
		t.Errorf("Apply ran (-want +got):\n%s", diff)
	}
	calls := recorder.Calls()
	last := calls[len(calls)-1].Command
	if len(last.ExtraFiles) != 2 || len(last.Env) != 1 || !strings.HasPrefix(last.Env[0], "CREDENTIALS_DIRECTORY=") {
		t.Errorf("the last command has %d files and the environment %q, want 2 and CREDENTIALS_DIRECTORY", len(last.ExtraFiles), last.Env)
	}
}

func TestCredentialsHoldNoSecret(t *testing.T) {
	folder, remove, err := tpm2.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 2 {
		t.Fatalf("Credentials has %d entries, %v, want 2", len(entries), err)
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(folder, entry.Name())); target != "/proc/self/fd/4" {
			t.Errorf("%s leads to %q, %v, want /proc/self/fd/4", entry.Name(), target, err)
		}
	}
	remove()
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after remove, Stat = %v, want ErrNotExist", err)
	}
}

// A token over PCR 15 is judged as the initrd sees it: before the volume key
// was measured.
func TestJudgeVolumeKeyUnmeasured(t *testing.T) {
	pcr7 := digest("pcr 7")
	zero := make([]byte, 32)
	// The digest by hand, from the TPM specification.
	byHand := func(values ...[]byte) string {
		selection, _ := hex.DecodeString("00000001000b03" + "808000") // PCR 7 and 15, SHA-256
		input := append(make([]byte, 32), 0x00, 0x00, 0x01, 0x7f)     // TPM_CC_PolicyPCR
		input = append(input, selection...)
		input = append(input, digest(string(bytes.Join(values, nil)))...)
		return hex.EncodeToString(digest(string(input)))
	}
	token := func(policy string) tpm2.Token {
		parsed, err := tpm2.ParseToken(json.RawMessage(fmt.Sprintf(
			`{"type":"systemd-tpm2","keyslots":["1"],"tpm2-pcrs":[7,15],"tpm2-pcr-bank":"sha256","tpm2-policy-hash":%q,"tpm2-pin":false}`, policy)))
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	measured := map[int][]byte{7: pcr7, 15: digest("a volume key")}
	verdict, guarded, err := token(byHand(pcr7, zero)).Judge(measured)
	if verdict != tpm2.Matches || !guarded || err != nil {
		t.Errorf("Judge of PCR 15 at zero = %s, %t, %v, want matches, true", verdict, guarded, err)
	}
	verdict, guarded, err = token(byHand(pcr7, measured[15])).Judge(measured)
	if verdict != tpm2.Differs || guarded || err != nil {
		t.Errorf("Judge of PCR 15 as it is now = %s, %t, %v, want differs, false", verdict, guarded, err)
	}
	if _, _, err := token(byHand(pcr7, zero)).Judge(nil); err == nil {
		t.Error("Judge without values = nil, want an error")
	}
	if bytes.Equal(measured[15], zero) {
		t.Error("Judge changed its argument")
	}
}

func TestParseToken(t *testing.T) {
	for _, test := range []struct{ raw, says string }{
		{`{"type":"systemd-fido2"}`, "systemd-fido2"},
		{`{"type":"systemd-tpm2","tpm2-policy-hash":"abcd"}`, "2 bytes"},
		{`{"type":"systemd-tpm2","tpm2-policy-hash":"xy"}`, "tpm2-policy-hash"},
		{`{"type":"systemd-tpm2","tpm2-pcrs":[99],"tpm2-policy-hash":[]}`, "99"},
		{`[]`, "TPM2 token"},
	} {
		if _, err := tpm2.ParseToken(json.RawMessage(test.raw)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("ParseToken(%s) = %v, want an error naming %q", test.raw, err, test.says)
		}
	}
	// A signed policy, and one in two parts, are for the TPM to judge.
	hash := strings.Repeat("00", 32)
	for _, raw := range []string{
		`{"type":"systemd-tpm2","tpm2-pcrs":[],"tpm2-policy-hash":"` + hash + `","tpm2_pubkey":"AAAA","tpm2_pubkey_pcrs":[11]}`,
		`{"type":"systemd-tpm2","tpm2-pcrs":[],"tpm2-policy-hash":["` + hash + `","` + hash + `"],"tpm2_pcrlock":true}`,
	} {
		token, err := tpm2.ParseToken(json.RawMessage(raw))
		if err != nil {
			t.Errorf("ParseToken(%s) = %v", raw, err)
			continue
		}
		if verdict, _, err := token.Judge(nil); verdict != tpm2.Unknown || err != nil {
			t.Errorf("Judge of %s = %s, %v, want unknown", raw, verdict, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add([]byte(`{"type":"systemd-tpm2","tpm2-pcrs":[7],"tpm2-pcr-bank":"sha1","tpm2-policy-hash":"00","tpm2-pin":true}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		token, err := tpm2.ParseToken(raw)
		if err != nil {
			return
		}
		values := map[int][]byte{}
		for _, pcr := range token.PCRs {
			values[pcr] = make([]byte, 32)
		}
		if verdict, _, err := token.Judge(values); err == nil && verdict == "" {
			t.Errorf("Judge of %s gave no verdict", raw)
		}
	})
}
