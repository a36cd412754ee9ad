package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/passwd"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// longestPassphrase is what cryptsetup takes from a terminal, in bytes
// (cryptsetup(8), "passphrase processing"); a longer one could not be typed at
// boot.
const longestPassphrase = 512

// askSecrets reads or asks what the steps need.
func (s *session) askSecrets(ctx context.Context, steps []step) error {
	has := func(name stepName) bool {
		return slices.ContainsFunc(steps, func(st step) bool { return st.name == name })
	}
	wipes := has(stepPartition)
	if s.r.settings.Disk.Encryption.Enable && (wipes || has(stepMount)) {
		if err := s.askPassphrase(ctx, wipes); err != nil {
			return err
		}
	}
	if !has(stepSecrets) || (!wipes && s.hasPassword()) {
		return nil
	}
	return s.askPassword(ctx)
}

// askPassphrase asks for the disk's passphrase: twice where it is new.
func (s *session) askPassphrase(ctx context.Context, isNew bool) (err error) {
	q := prompt.Question{Text: "Passphrase of the disk", Flag: "--disk-password-file FILE"}
	switch {
	case s.r.diskPassword != "":
		s.passphrase, err = s.readSecret(s.r.diskPassword, checkPassphrase)
	case isNew:
		q.Text = "New passphrase of the disk"
		s.passphrase, err = prompt.NewPassword(ctx, s.env.Ask, q, checkPassphrase, s.complain)
	default:
		s.passphrase, err = s.env.Ask.Password(ctx, q)
	}
	if err == nil {
		err = checkPassphrase(s.passphrase)
	}
	if err != nil {
		return err
	}
	s.env.Redact.Add(s.passphrase)
	if isNew {
		s.env.UI.Infof("The disk's passphrase is %s.", passwd.Estimate(s.passphrase, s.r.host.Name, s.admin()))
	}
	return nil
}

// checkPassphrase refuses what could never be typed at boot.
func checkPassphrase(passphrase []byte) error {
	switch {
	case len(passphrase) == 0:
		return errors.New("the passphrase is empty")
	case len(passphrase) > longestPassphrase:
		return fmt.Errorf("the passphrase is longer than %d bytes", longestPassphrase)
	case bytes.ContainsAny(passphrase, "\n\r\x00"):
		return errors.New("the passphrase has a line end in it")
	}
	return nil
}

// askPassword asks for the admin's password.
func (s *session) askPassword(ctx context.Context) (err error) {
	admin := s.admin()
	q := prompt.Question{Text: "New password of " + admin, Flag: "--password-file FILE"}
	switch {
	case s.r.passwordFile != "" && s.r.passwordFile == s.r.diskPassword && s.passphrase != nil:
		s.password = bytes.Clone(s.passphrase) // a pipe can be read once
	case s.r.passwordFile != "":
		s.password, err = s.readSecret(s.r.passwordFile, passwd.Check)
	default:
		var same bool
		if same, err = s.sharesPassphrase(ctx, admin); err != nil {
			return err
		}
		if same {
			s.password = bytes.Clone(s.passphrase)
			break
		}
		s.password, err = prompt.NewPassword(ctx, s.env.Ask, q, passwd.Check, s.complain)
	}
	if err == nil {
		err = passwd.Check(s.password)
	}
	if err != nil {
		return err
	}
	s.env.Redact.Add(s.password)
	s.env.UI.Infof("The password of %s is %s.", admin, passwd.Estimate(s.password, s.r.host.Name, admin))
	return nil
}

// sharesPassphrase asks whether the admin's password is the disk's passphrase, where
// that was typed.
func (s *session) sharesPassphrase(ctx context.Context, admin string) (bool, error) {
	fits := passwd.Check(s.passphrase) == nil
	if !fits || s.r.diskPassword != "" {
		return false, nil
	}
	return s.env.Ask.Confirm(ctx, prompt.Question{
		Text: "Use it as the password of " + admin + " as well?", Flag: "--password-file FILE",
	}, false)
}

func (s *session) admin() string { return s.r.settings.User.Admin.Name }

func (s *session) complain(text string) { s.env.UI.Warnf("%s", text) }

// readSecret reads a secret from a file and checks it, and warns if others may read
// the file.
func (s *session) readSecret(name string, check func([]byte) error) ([]byte, error) {
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		s.env.UI.Warnf("others on this system may read %s (mode %04o)", ui.Printable(name), info.Mode().Perm())
	}
	secret, err := run.ReadSecret(name)
	if err != nil {
		return nil, err
	}
	if err := check(secret); err != nil {
		run.Wipe(secret)
		return nil, fmt.Errorf("%s: %w", ui.Printable(name), err)
	}
	return secret, nil
}

// passphraseFile is where disko reads the passphrase.
func (s *session) passphraseFile() string {
	if s.r.settings == nil || !s.r.settings.Disk.Encryption.Enable {
		return ""
	}
	return s.r.settings.Disk.Encryption.PasswordFile
}

// writePassphraseFile leaves the passphrase for disko, in memory, 0600 in 0700.
func (s *session) writePassphraseFile() error {
	name := s.passphraseFile()
	if name == "" || s.passphrase == nil {
		return nil
	}
	if !strings.HasPrefix(path.Clean(name), "/run/") || path.Dir(path.Clean(name)) == "/run" {
		return fmt.Errorf("settings.disk.encryption.passwordFile is %s: it has to be in a folder of its own below /run, which is memory", name)
	}
	return settings.WriteSecret(s.files, name, s.passphrase)
}

// removePassphraseFile takes it away; it runs on every way out.
func (s *session) removePassphraseFile() error {
	if name := s.passphraseFile(); name != "" {
		return s.files.Remove(name)
	}
	return nil
}

// hasPassword tells whether an earlier run has written the hash.
func (s *session) hasPassword() bool {
	_, err := s.targetFiles().Lstat(s.r.settings.Secrets.HashedPasswordFile)
	return !errors.Is(err, fs.ErrNotExist) && err == nil
}
