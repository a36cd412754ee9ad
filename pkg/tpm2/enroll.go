package tpm2

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/run"
)

// Enrolment binds a key slot of a volume to the TPM, by systemd-cryptenroll(1).
type Enrolment struct {
	Volume luks.Volume
	Policy Policy
	// TPM names the TPM as --tpm2-device takes it; "" is the only one.
	TPM string
}

// Wipe is the command that removes every key slot and token of a TPM. It is
// always a call of its own: asked to wipe and enrol at once,
// systemd-cryptenroll finds the policy enrolled already, does nothing, and
// wipes nothing.
func (e Enrolment) Wipe() run.Command {
	return run.New("systemd-cryptenroll", "--wipe-slot=tpm2", e.Volume.Device)
}

// Enrol is the command that adds a key slot and a token. The file of the
// passphrase is descriptor 3; with a PIN, its file is descriptor 4, and
// credentials is a folder made by [Credentials].
func (e Enrolment) Enrol(passphrase *os.File, pin *os.File, credentials string) run.Command {
	device := e.TPM
	if device == "" {
		device = "auto"
	}
	args := []string{
		"--unlock-key-file=/proc/self/fd/3",
		"--tpm2-device=" + device,
		"--tpm2-pcrs=" + e.Policy.Argument(),
		// Nothing else: not a signed policy besides, for which a key in
		// /etc/systemd would otherwise be picked up.
		"--tpm2-public-key=",
	}
	c := run.New("systemd-cryptenroll", args...)
	c.ExtraFiles = []*os.File{passphrase}
	if pin != nil {
		c.Args = append(c.Args, "--tpm2-with-pin=yes")
		c.Env = []string{"CREDENTIALS_DIRECTORY=" + credentials}
		c.ExtraFiles = append(c.ExtraFiles, pin)
	}
	c.Args = append(c.Args, e.Volume.Device)
	return c
}

// credentialNames are what systemd-cryptenroll asks for a new PIN under: the
// first since version 256, the second before.
var credentialNames = []string{"cryptenroll.new-tpm2-pin", "cryptenroll.tpm2-pin"}

// Credentials makes a folder through which systemd-cryptenroll finds a PIN in
// its descriptor 4: it holds links and no secret. Without it a PIN could only
// be typed, or stand in the environment.
func Credentials() (folder string, remove func(), err error) {
	folder, err = os.MkdirTemp("", "cryptenroll-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(folder) }
	for _, name := range credentialNames {
		if err := os.Symlink("/proc/self/fd/4", filepath.Join(folder, name)); err != nil {
			remove()
			return "", nil, err
		}
	}
	return folder, remove, nil
}

// EnrolError is an enrolling that failed. The old token may be gone by then.
type EnrolError struct {
	// Wiped says that what the TPM had before was removed.
	Wiped bool
	Cause error
}

// Error says what failed.
func (e *EnrolError) Error() string { return e.Cause.Error() }

// Unwrap is the cause.
func (e *EnrolError) Unwrap() error { return e.Cause }

// ErrNotEnrolled is a program that said it had enrolled and had not.
var ErrNotEnrolled = errors.New("systemd-cryptenroll ended well, and the header has no token of a TPM")

// Apply wipes what the TPM has, enrols, and looks whether the header has the
// new token. The passphrase must open a slot that a person types; the pin is
// nil for none.
func (e Enrolment) Apply(ctx context.Context, passphrase, pin []byte) error {
	h, err := e.Volume.Header()
	if err != nil {
		return err
	}
	typed := h.Typed()
	if len(typed) == 0 {
		return luks.ErrLastWay
	}
	if _, err := e.Volume.Opens(ctx, passphrase, typed); err != nil {
		return err
	}
	wiped := false
	if len(h.TokensOf(luks.TokenTPM2)) > 0 {
		if _, err := e.Volume.Runner.Run(ctx, e.Wipe()); err != nil {
			return &EnrolError{Cause: fmt.Errorf("wipe the old TPM slots: %w", err)}
		}
		wiped = true
	}
	if err := e.enrol(ctx, passphrase, pin); err != nil {
		return &EnrolError{Wiped: wiped, Cause: err}
	}
	return nil
}

func (e Enrolment) enrol(ctx context.Context, passphrase, pin []byte) error {
	key, err := run.SecretFile(passphrase)
	if err != nil {
		return err
	}
	defer key.Close()
	if err := key.Chmod(0o600); err != nil { // else it is warned about
		return err
	}
	var pinFile *os.File
	credentials := ""
	if pin != nil {
		if pinFile, err = run.SecretFile(pin); err != nil {
			return err
		}
		defer pinFile.Close()
		var remove func()
		if credentials, remove, err = Credentials(); err != nil {
			return err
		}
		defer remove()
	}
	if _, err := e.Volume.Runner.Run(ctx, e.Enrol(key, pinFile, credentials)); err != nil {
		return fmt.Errorf("enrol the TPM: %w", err)
	}
	h, err := e.Volume.Header()
	if err != nil {
		return err
	}
	if len(h.TokensOf(luks.TokenTPM2)) == 0 {
		return ErrNotEnrolled
	}
	return nil
}

// Remove wipes every slot and token of a TPM, if a passphrase or a recovery
// key is left.
func (e Enrolment) Remove(ctx context.Context) error {
	h, err := e.Volume.Header()
	if err != nil {
		return err
	}
	if len(h.Typed()) == 0 {
		return luks.ErrLastWay
	}
	if _, err := e.Volume.Runner.Run(ctx, e.Wipe()); err != nil {
		return fmt.Errorf("wipe the TPM slots: %w", err)
	}
	return nil
}
