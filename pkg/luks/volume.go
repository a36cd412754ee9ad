package luks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"nixos-go/pkg/run"
)

// Volume is a LUKS2 volume: a partition, or a file.
type Volume struct {
	// Device is its path.
	Device string
	// Runner runs cryptsetup.
	Runner run.Runner
}

// ErrWrongPassphrase is a passphrase that opens no slot.
var ErrWrongPassphrase = errors.New("no key slot opens with this passphrase")

// ErrLastWay is a slot whose removal would leave nothing that a person could
// type.
var ErrLastWay = errors.New("nothing that can be typed would open the volume any more")

// Exit statuses of cryptsetup(8).
const statusNoPermission = 2

// Header reads the volume's header.
func (v Volume) Header() (*Header, error) {
	file, err := os.Open(v.Device)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	h, err := Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.Device, err)
	}
	return h, nil
}

// keyOnStdin is how every command gets the passphrase that it is allowed by:
// all of standard input, without a newline being cut off.
const keyOnStdin = "--key-file=-"

// TestSlot is the command that tests a passphrase against one slot.
func (v Volume) TestSlot(slot int, passphrase []byte) run.Command {
	c := run.New("cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--disable-external-tokens",
		keyOnStdin, "--key-slot", strconv.Itoa(slot), v.Device)
	c.Stdin, c.Secret = passphrase, true
	return c
}

// AddKey is the command that adds a key to a free slot; the file holds the new
// key. A generated key needs no slow derivation: its randomness protects it.
func (v Volume) AddKey(slot int, existing []byte, added *os.File, generated bool) run.Command {
	args := []string{"luksAddKey", "--batch-mode", "--disable-external-tokens", keyOnStdin, "--key-slot", strconv.Itoa(slot)}
	if generated {
		args = append(args, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
	}
	c := run.New("cryptsetup", append(args, v.Device, "/proc/self/fd/3")...)
	c.Stdin, c.Secret = existing, true
	c.ExtraFiles = []*os.File{added}
	return c
}

// KillSlot is the command that wipes a slot; a key of another slot allows it.
func (v Volume) KillSlot(slot int, other []byte) run.Command {
	c := run.New("cryptsetup", "luksKillSlot", "--batch-mode", "--disable-external-tokens", keyOnStdin, v.Device, strconv.Itoa(slot))
	c.Stdin, c.Secret = other, true
	return c
}

// ImportToken is the command that adds a token.
func (v Volume) ImportToken(token []byte) run.Command {
	c := run.New("cryptsetup", "token", "import", "--json-file", "-", v.Device)
	c.Stdin = token
	return c
}

// Backup is the command that saves the header and all key slots to a file,
// which must not exist.
func (v Volume) Backup(file string) run.Command {
	return run.New("cryptsetup", "luksHeaderBackup", "--header-backup-file", file, v.Device)
}

// Opens finds the slot that a passphrase opens, among the slots given. Each try
// takes as long as an unlocking does.
func (v Volume) Opens(ctx context.Context, passphrase []byte, slots []int) (int, error) {
	for _, slot := range slots {
		_, err := v.Runner.Run(ctx, v.TestSlot(slot, passphrase))
		if err == nil {
			return slot, nil
		}
		if status, ran := run.StatusOf(err); !ran || status != statusNoPermission {
			return 0, fmt.Errorf("test the passphrase on key slot %d: %w", slot, err)
		}
	}
	return 0, ErrWrongPassphrase
}

// Add adds a key to a slot and tests that it opens it.
func (v Volume) Add(ctx context.Context, slot int, existing, added []byte, generated bool) error {
	file, err := run.SecretFile(added)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := v.Runner.Run(ctx, v.AddKey(slot, existing, file, generated)); err != nil {
		return fmt.Errorf("add a key to slot %d: %w", slot, err)
	}
	if _, err := v.Opens(ctx, added, []int{slot}); err != nil {
		return fmt.Errorf("the key just added to slot %d does not open it: %w", slot, err)
	}
	return nil
}

// Remove wipes a slot, after it has made sure that the other key opens another
// slot which a person can type: cryptsetup itself would wipe the last one.
func (v Volume) Remove(ctx context.Context, slot int, other []byte) error {
	h, err := v.Header()
	if err != nil {
		return err
	}
	rest := without(h.Typed(), slot)
	if len(rest) == 0 {
		return fmt.Errorf("key slot %d: %w", slot, ErrLastWay)
	}
	if _, err := v.Opens(ctx, other, rest); err != nil {
		return fmt.Errorf("before key slot %d is wiped: %w", slot, err)
	}
	if _, err := v.Runner.Run(ctx, v.KillSlot(slot, other)); err != nil {
		return fmt.Errorf("wipe key slot %d: %w", slot, err)
	}
	return nil
}

func without(slots []int, slot int) []int {
	var rest []int
	for _, s := range slots {
		if s != slot {
			rest = append(rest, s)
		}
	}
	return rest
}

// MarkRecovery says in the header that a slot holds a recovery key, as
// systemd-cryptenroll(1) does.
func (v Volume) MarkRecovery(ctx context.Context, slot int) error {
	token, err := json.Marshal(map[string]any{"type": TokenRecovery, "keyslots": []string{strconv.Itoa(slot)}})
	if err != nil {
		return err
	}
	if _, err := v.Runner.Run(ctx, v.ImportToken(token)); err != nil {
		return fmt.Errorf("mark key slot %d as a recovery key: %w", slot, err)
	}
	return nil
}
