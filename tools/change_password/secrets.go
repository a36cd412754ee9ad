package changepassword

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/passwd"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
)

// secrets are the passwords of one change; wiped at its end, whatever its end.
type secrets struct {
	current, changed, pin []byte
}

func (s *session) wipe() {
	for _, secret := range [][]byte{s.secrets.current, s.secrets.changed, s.secrets.pin} {
		run.Wipe(secret)
	}
	s.env.Redact.Wipe()
}

var errSame = errors.New("the new password is the present one; nothing was changed")

// ask gets the passwords: from files, or from the person. The present one is
// tested before a new one is thought up and typed twice.
func (s *session) ask(c *cli.Context) error {
	var err error
	if s.plan.Disk != nil {
		s.secrets.current, err = s.secret(c, "current-password-file", "Present passphrase of the disk", false)
		if err != nil {
			return err
		}
		if err := s.findPresent(c.Context); err != nil {
			return err
		}
	}
	if s.secrets.changed, err = s.secret(c, "password-file", s.newQuestion(), true); err != nil {
		return err
	}
	if err := passwd.Check(s.secrets.changed); err != nil {
		return err
	}
	if s.plan.Disk != nil && bytes.Equal(s.secrets.current, s.secrets.changed) && s.plan.Account == nil {
		return errSame
	}
	s.tellStrength()
	if s.plan.TPM2 != nil && s.plan.TPM2.Policy.PIN {
		if s.secrets.pin, err = s.secret(c, "pin-file", "New PIN for the TPM", true); err != nil {
			return err
		}
		return passwd.Check(s.secrets.pin)
	}
	return nil
}

func (s *session) newQuestion() string {
	switch {
	case s.plan.Disk == nil:
		return "New password of " + s.plan.Account.Name
	case s.plan.Account == nil:
		return "New passphrase of the disk"
	default:
		return "New password of the disk and of " + s.plan.Account.Name
	}
}

// secret reads one secret; a new one is typed twice.
func (s *session) secret(c *cli.Context, flag, text string, fresh bool) ([]byte, error) {
	var secret []byte
	var err error
	question := prompt.Question{Text: text, Flag: "--" + flag + " FILE"}
	switch {
	case c.String(flag) != "":
		secret, err = run.ReadSecret(c.String(flag))
	case fresh:
		say := func(text string) { s.env.UI.Warnf("%s", text) }
		secret, err = prompt.NewPassword(c.Context, s.env.Ask, question, passwd.Check, say)
	default:
		secret, err = s.env.Ask.Password(c.Context, question)
	}
	if err != nil {
		return nil, clikit.Unchanged(err)
	}
	s.env.Redact.Add(secret)
	return secret, nil
}

// tellStrength says what the new password is worth. It forbids nothing.
func (s *session) tellStrength() {
	strength := passwd.Estimate(s.secrets.changed, s.settings.User.Admin.Name, s.settings.Networking.HostName)
	if strength.Level() == "weak" {
		s.env.UI.Warnf("strength: %s", strength)
		s.env.UI.Hintf("four or more words picked at random are easy to remember and hard to guess")
		return
	}
	s.env.UI.Infof("strength: %s", strength)
}

// findPresent finds the slot that the present passphrase opens.
func (s *session) findPresent(ctx context.Context) error {
	s.env.UI.Stepf("looking for the key slot of the present passphrase")
	slot, err := s.volume.Opens(ctx, s.secrets.current, s.header.Typed())
	if errors.Is(err, luks.ErrWrongPassphrase) {
		return fmt.Errorf("%s: %w; nothing was changed", s.volume.Device, err)
	}
	if err != nil {
		return err
	}
	s.plan.Disk.from(s.header, slot)
	return nil
}

// findNew finds whether the new passphrase opens a slot already.
func (s *session) findNew(ctx context.Context) error {
	if s.plan.Disk == nil {
		return nil
	}
	if bytes.Equal(s.secrets.current, s.secrets.changed) {
		s.env.UI.Infof("the disk has this passphrase already: only the account's password is changed")
		s.plan.Disk = nil
		return nil
	}
	slot, err := s.volume.Opens(ctx, s.secrets.changed, without(s.header.Typed(), s.plan.Disk.OldSlot))
	if errors.Is(err, luks.ErrWrongPassphrase) {
		return nil
	}
	if err != nil {
		return err
	}
	s.plan.Disk.NewSlot, s.plan.Disk.Added = slot, true
	return nil
}

func without(slots []int, slot int) []int {
	rest := make([]int, 0, len(slots))
	for _, s := range slots {
		if s != slot {
			rest = append(rest, s)
		}
	}
	return rest
}
