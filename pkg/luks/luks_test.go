package luks_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/luksfile"
)

func volume(image string) luks.Volume {
	return luks.Volume{Device: image, Runner: &run.Local{}}
}

func header(t *testing.T, image string) *luks.Header {
	t.Helper()
	h, err := volume(image).Header()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHeader(t *testing.T) {
	image := luksfile.New(t, "first", "second", "third")
	luksfile.AddTPM2Token(t, image, 1)
	luksfile.Cryptsetup(t, "", "config", "--priority", "ignore", "--key-slot", "2", image)
	luksfile.Cryptsetup(t, "", "config", "--label", "north", image)
	got := header(t, image)
	want := &luks.Header{
		UUID: strings.TrimSpace(luksfile.Cryptsetup(t, "", "luksUUID", image)), Label: "north", Sequence: got.Sequence,
		Slots:  map[int]luks.Slot{0: {KDF: "pbkdf2"}, 1: {KDF: "pbkdf2"}, 2: {KDF: "pbkdf2", Ignored: true}},
		Tokens: map[int]luks.Token{0: {Type: luks.TokenTPM2, Slots: []int{1}}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(luks.Token{}, "Raw")); diff != "" {
		t.Errorf("Header (-want +got):\n%s", diff)
	}
	if !bytes.Contains(got.Tokens[0].Raw, []byte(`"tpm2-pcrs"`)) {
		t.Errorf("Header: token 0 is %s, want all of it", got.Tokens[0].Raw)
	}
	dump := luksfile.Cryptsetup(t, "", "luksDump", image)
	if epoch := regexp.MustCompile(`Epoch:\s+(\d+)`).FindStringSubmatch(dump)[1]; epoch != strconv.FormatUint(got.Sequence, 10) {
		t.Errorf("Header: sequence %d, cryptsetup says %s", got.Sequence, epoch)
	}
	if diff := cmp.Diff([]int{0, 2}, got.Typed()); diff != "" {
		t.Errorf("Typed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{1}, got.SlotsOf(luks.TokenTPM2)); diff != "" {
		t.Errorf("SlotsOf(%s) (-want +got):\n%s", luks.TokenTPM2, diff)
	}
	if slot, err := got.FreeSlot(); slot != 3 || err != nil {
		t.Errorf("FreeSlot = %d, %v, want 3", slot, err)
	}
}

// The first copy, the second, or both may be damaged.
func TestDamaged(t *testing.T) {
	sound, err := os.ReadFile(luksfile.New(t, "first"))
	if err != nil {
		t.Fatal(err)
	}
	second := int(binary.BigEndian.Uint64(sound[8:]))
	damage := func(offsets ...int) []byte {
		broken := bytes.Clone(sound)
		for _, offset := range offsets {
			broken[offset] ^= 0xff
		}
		return broken
	}
	for _, test := range []struct {
		name    string
		volume  []byte
		oneCopy bool
		err     error
	}{
		{name: "sound", volume: sound},
		{name: "first copy's JSON", volume: damage(5000), oneCopy: true},
		{name: "first copy's magic", volume: damage(0), oneCopy: true},
		{name: "second copy's JSON", volume: damage(second + 5000), oneCopy: true},
		{name: "both", volume: damage(5000, second+5000), err: luks.ErrDamaged},
		{name: "both magics", volume: damage(0, second), err: luks.ErrNotLUKS},
		{name: "empty", volume: nil, err: luks.ErrNotLUKS},
		{name: "cut off", volume: sound[:5000], err: luks.ErrDamaged},
	} {
		h, err := luks.Read(bytes.NewReader(test.volume))
		if !errors.Is(err, test.err) {
			t.Errorf("%s: Read = %v, want %v", test.name, err, test.err)
			continue
		}
		if err == nil && (h.OneCopy != test.oneCopy || len(h.Slots) != 1) {
			t.Errorf("%s: Read = one copy %t, %d slots, want %t, 1", test.name, h.OneCopy, len(h.Slots), test.oneCopy)
		}
	}
}

// A newer second copy wins, as after a cut between the two writes.
func TestNewerSecondCopy(t *testing.T) {
	image := luksfile.New(t, "first")
	old, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	luksfile.Cryptsetup(t, "", "config", "--label", "newer", image)
	fresh, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	size := int(binary.BigEndian.Uint64(old[8:]))
	copy(fresh[:size], old[:size])
	h, err := luks.Read(bytes.NewReader(fresh))
	if err != nil || h.Label != "newer" {
		t.Errorf("Read = %+v, %v, want the label of the newer copy", h, err)
	}
}

func TestLUKS1(t *testing.T) {
	image := luksfile.New(t, "x")
	luksfile.Cryptsetup(t, "x", "luksFormat", "--batch-mode", "--type", "luks1", "--pbkdf-force-iterations", "1000", image, "-")
	_, err := volume(image).Header()
	if version, ok := errors.AsType[luks.VersionError](err); !ok || version != 1 {
		t.Errorf("Header of a LUKS1 volume = %v, want a VersionError 1", err)
	}
}

func TestOpens(t *testing.T) {
	image := luksfile.New(t, "first", "second\n")
	v := volume(image)
	for passphrase, want := range map[string]int{"first": 0, "second\n": 1} {
		slot, err := v.Opens(t.Context(), []byte(passphrase), []int{0, 1})
		if slot != want || err != nil {
			t.Errorf("Opens(%q) = %d, %v, want %d", passphrase, slot, err, want)
		}
	}
	for _, passphrase := range []string{"second", "wrong"} {
		if _, err := v.Opens(t.Context(), []byte(passphrase), []int{0, 1}); !errors.Is(err, luks.ErrWrongPassphrase) {
			t.Errorf("Opens(%q) = %v, want ErrWrongPassphrase", passphrase, err)
		}
	}
	// A slot that is not there is a mistake of ours, not a wrong passphrase.
	if _, err := v.Opens(t.Context(), []byte("first"), []int{7}); err == nil || errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("Opens of an empty slot = %v, want another error", err)
	}
}

// fast makes the derivation of added keys as cheap as cryptsetup allows.
type fast struct{ run.Runner }

func (f fast) Run(ctx context.Context, c run.Command) (run.Result, error) {
	if slices.Contains(c.Args, "luksAddKey") {
		c.Args = append([]string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}, c.Args...)
	}
	return f.Runner.Run(ctx, c)
}

// What a person chose is derived slowly.
func TestAddDerivesSlowly(t *testing.T) {
	image := luksfile.New(t, "first")
	if err := volume(image).Add(t.Context(), 1, []byte("first"), []byte("second"), false); err != nil {
		t.Fatal(err)
	}
	if kdf := header(t, image).Slots[1].KDF; kdf != "argon2id" {
		t.Errorf("Add made a slot with %s, want argon2id", kdf)
	}
}

func TestAddAndRemove(t *testing.T) {
	image := luksfile.New(t, "first")
	v, ctx := volume(image), t.Context()
	v.Runner = fast{v.Runner}
	if err := v.Add(ctx, 3, []byte("first"), []byte("new\x00binary\n"), false); err != nil {
		t.Fatalf("Add = %v", err)
	}
	if got := luksfile.Opens(t, image, "new\x00binary\n"); got != 3 {
		t.Errorf("cryptsetup opens slot %d with the new key, want 3", got)
	}
	if err := v.Add(ctx, 4, []byte("wrong"), []byte("x"), false); err == nil {
		t.Error("Add with a wrong passphrase = nil, want an error")
	}
	if err := v.Add(ctx, 3, []byte("first"), []byte("x"), false); err == nil {
		t.Error("Add to a slot in use = nil, want an error")
	}

	// cryptsetup itself would wipe a slot with its own key, even the last.
	if err := v.Remove(ctx, 3, []byte("new\x00binary\n")); !errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("Remove by the slot's own key = %v, want ErrWrongPassphrase", err)
	}
	if err := v.Remove(ctx, 0, []byte("new\x00binary\n")); err != nil {
		t.Errorf("Remove by another key = %v", err)
	}
	if err := v.Remove(ctx, 3, []byte("new\x00binary\n")); !errors.Is(err, luks.ErrLastWay) {
		t.Errorf("Remove of the last slot = %v, want ErrLastWay", err)
	}
	if got := luksfile.Opens(t, image, "new\x00binary\n"); got != 3 {
		t.Errorf("after the refused Remove slot %d opens, want 3", got)
	}
}

// A slot of a token is no way in for a person.
func TestRemoveBesideToken(t *testing.T) {
	image := luksfile.New(t, "first", "tpm's")
	luksfile.AddTPM2Token(t, image, 1)
	if err := volume(image).Remove(t.Context(), 0, []byte("tpm's")); !errors.Is(err, luks.ErrLastWay) {
		t.Errorf("Remove with only a TPM's slot left = %v, want ErrLastWay", err)
	}
}

func TestRecoveryKey(t *testing.T) {
	image := luksfile.New(t, "first")
	v, ctx := volume(image), t.Context()
	key, err := luks.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}$`).Match(key) {
		t.Errorf("NewRecoveryKey = %s, want eight groups of eight letters", key)
	}
	if cap(key) != len(key) {
		t.Errorf("NewRecoveryKey: capacity %d for %d bytes: a copy may have been left behind", cap(key), len(key))
	}
	if err := v.Add(ctx, 1, []byte("first"), key, true); err != nil {
		t.Fatal(err)
	}
	if err := v.MarkRecovery(ctx, 1); err != nil {
		t.Fatal(err)
	}
	h := header(t, image)
	if got := h.KindOf(1); got != luks.Recovery {
		t.Errorf("KindOf(1) = %s, want %s", got, luks.Recovery)
	}
	if diff := cmp.Diff([]int{0, 1}, h.Typed()); diff != "" {
		t.Errorf("Typed (-want +got):\n%s", diff)
	}
	if h.Slots[1].KDF != "pbkdf2" {
		t.Errorf("a recovery key's slot has %s, want pbkdf2", h.Slots[1].KDF)
	}
	if got := luksfile.Opens(t, image, string(key)); got != 1 {
		t.Errorf("the recovery key opens slot %d, want 1", got)
	}
}

func TestBackup(t *testing.T) {
	image := luksfile.New(t, "first")
	file := filepath.Join(t.TempDir(), "header")
	v := volume(image)
	if _, err := v.Runner.Run(t.Context(), v.Backup(file)); err != nil {
		t.Fatal(err)
	}
	if got := luksfile.Opens(t, file, "first"); got != 0 {
		t.Errorf("the backup opens slot %d, want 0", got)
	}
	if _, err := v.Runner.Run(t.Context(), v.Backup(file)); err == nil {
		t.Error("Backup over a file that exists = nil, want an error")
	}
}

// No secret in an argument or the environment, whatever the command.
func TestCommandsHideSecrets(t *testing.T) {
	secret := []byte("MARKED-SECRET")
	v := luks.Volume{Device: "/dev/sda2"}
	file, err := run.SecretFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, c := range []run.Command{v.TestSlot(1, secret), v.AddKey(1, secret, file, true), v.KillSlot(1, secret)} {
		if text := strings.Join(append(c.Env, c.String()), " "); strings.Contains(text, string(secret)) {
			t.Errorf("%s names the secret", text)
		}
		if !c.Secret || !bytes.Equal(c.Stdin, secret) {
			t.Errorf("%s: standard input is not the secret, marked as one", c)
		}
	}
	if got, want := v.TestSlot(1, secret).String(),
		"cryptsetup open --test-passphrase --type luks2 --disable-external-tokens --key-file=- --key-slot 1 /dev/sda2"; got != want {
		t.Errorf("TestSlot = %s, want %s", got, want)
	}
	if got, want := v.AddKey(2, secret, file, true).String(),
		"cryptsetup luksAddKey --batch-mode --disable-external-tokens --key-file=- --key-slot 2 --pbkdf pbkdf2 "+
			"--pbkdf-force-iterations 1000 /dev/sda2 /proc/self/fd/3"; got != want {
		t.Errorf("AddKey = %s, want %s", got, want)
	}
}

// The end of the context is no wrong passphrase.
func TestInterrupted(t *testing.T) {
	image := luksfile.New(t, "first")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := volume(image).Opens(ctx, []byte("first"), []int{0}); !errors.Is(err, context.Canceled) {
		t.Errorf("Opens after the end of the context = %v, want context.Canceled", err)
	}
}

func FuzzRead(f *testing.F) {
	image := luksfile.New(f, "first")
	sound, err := os.ReadFile(image)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound[:0x8000])
	f.Add(sound[:4096])
	f.Fuzz(func(t *testing.T, volume []byte) {
		h, err := luks.Read(bytes.NewReader(volume))
		if (h == nil) == (err == nil) {
			t.Errorf("Read = %v, %v, want one of them", h, err)
		}
	})
}

// The header's JSON is where hostile input would come from; its checksum is
// made right here.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"keyslots":{"0":{"kdf":{"type":"pbkdf2"},"priority":0}},"tokens":{"0":{"type":"a","keyslots":["0"]}}}`))
	f.Add([]byte(`{"tokens":{"x":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := luks.Read(bytes.NewReader(luks.Forge(text)))
		if err != nil {
			return
		}
		for _, slot := range h.Typed() {
			if kind := h.KindOf(slot); kind == luks.TPM2 {
				t.Errorf("Typed has slot %d, which is a TPM's", slot)
			}
		}
	})
}
