package install

import (
	"context"
	"errors"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
)

// finish says and offers what comes next.
func (s *session) finish(ctx context.Context, _ []run.Command) error {
	s.env.UI.Donef("the installation is complete")
	if err := s.offerRecoveryKey(ctx); err != nil {
		return err
	}
	s.report.Next = s.next()
	for _, text := range s.report.Next {
		s.env.UI.Hintf("%s", text)
	}
	if err := s.removeState(); err != nil {
		return err
	}
	s.state = nil
	return s.leave(ctx)
}

// next is what is left to the owner, in order.
func (s *session) next() []string {
	var list []string
	if s.r.settings.Boot.Method == "Secure-Boot" {
		list = append(list, "Secure Boot: after the first boot, put the firmware into setup mode and run sudo nixos-secure-boot enable")
	}
	if s.r.settings.TPM.Enable && s.r.settings.Disk.Encryption.Enable {
		list = append(list, "TPM2: after Secure Boot, sudo nixos-tpm2 enable unlocks the disk without the passphrase")
	}
	if s.r.settings.Disk.Encryption.Enable && !s.hasRecoveryKey {
		list = append(list, "recovery key: sudo nixos-tpm2 enable --recovery-key, or sudo systemd-cryptenroll --recovery-key "+
			s.r.settings.Disk.ByPartlabel.Main+", makes one; keep it away from the machine")
	}
	return append(list, "log in as "+s.admin()+"; sudo nixos-update applies changes of "+target)
}

// offerRecoveryKey offers to make a further key, which is shown once, to the person
// at the terminal alone.
func (s *session) offerRecoveryKey(ctx context.Context) error {
	if !s.r.settings.Disk.Encryption.Enable || s.r.options.Yes || s.r.options.JSON {
		return nil
	}
	ok, err := s.env.Ask.Confirm(ctx, prompt.Question{
		Text: "Make a recovery key for the disk now?",
		Help: "A recovery key opens the disk when the passphrase is forgotten and the TPM refuses. It is shown once.",
		Flag: "--yes (which makes none)",
	}, false)
	if none := (*prompt.NoTerminalError)(nil); errors.As(err, &none) {
		return nil
	}
	if err != nil || !ok {
		return err
	}
	err = s.makeRecoveryKey(ctx)
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case s.hasRecoveryKey:
		s.env.UI.Warnf("the recovery key opens the disk, but the disk's header does not say that it is one: %v", err)
	default: // the system is installed all the same
		s.env.UI.Warnf("no recovery key was made: %v", err)
	}
	return nil
}

// makeRecoveryKey adds the key, tests it and shows it, and only then marks its slot:
// a slot that is marked has been seen by its owner.
func (s *session) makeRecoveryKey(ctx context.Context) error {
	volume, err := luks.Of(s.r.settings, s.env.Host, "")
	if err != nil {
		return err
	}
	header, err := volume.Header()
	if err != nil {
		return err
	}
	slot, err := header.FreeSlot()
	if err != nil {
		return err
	}
	if s.passphrase == nil {
		if err := s.askPassphrase(ctx, false); err != nil {
			return err
		}
	}
	key, err := luks.NewRecoveryKey()
	if err != nil {
		return err
	}
	defer run.Wipe(key)
	s.env.Redact.Add(key)
	s.env.UI.Stepf("adding a recovery key to key slot %d, and testing it", slot)
	if err = volume.Add(ctx, slot, s.passphrase, key, true); err == nil {
		err = s.showRecoveryKey(key)
	}
	if err != nil {
		return errors.Join(err, s.takeBack(context.WithoutCancel(ctx), volume, slot))
	}
	s.hasRecoveryKey = true
	return volume.MarkRecovery(ctx, slot)
}

// showRecoveryKey shows the key on its one occasion.
func (s *session) showRecoveryKey(key []byte) error {
	s.env.UI.Infof("This is the recovery key. It opens the disk when the TPM and the passphrase do not. " +
		"Write it down and keep it away from this machine: it is never shown again.")
	return s.env.UI.Print("\n    " + string(key) + "\n")
}

// takeBack removes a recovery key that nobody has seen.
func (s *session) takeBack(ctx context.Context, volume luks.Volume, slot int) error {
	header, err := volume.Header()
	if err != nil {
		return err
	}
	if _, there := header.Slots[slot]; !there {
		return nil
	}
	return volume.Remove(ctx, slot, s.passphrase)
}

// leave unmounts and reboots, as far as that is wanted.
func (s *session) leave(ctx context.Context) error {
	if s.r.inPlace {
		return nil
	}
	reboot := s.r.reboot
	if !reboot && !s.r.options.Yes && !s.r.options.JSON && !s.r.unmount {
		ok, err := s.env.Ask.Confirm(ctx, prompt.Question{Text: "Unmount and reboot now?", Flag: "--reboot"}, false)
		if none := (*prompt.NoTerminalError)(nil); err != nil && !errors.As(err, &none) {
			return err
		}
		reboot = ok && err == nil
	}
	if !reboot && !s.r.unmount {
		s.env.UI.Hintf("the target stays mounted at %s; umount --recursive %s, then reboot", s.r.root, s.r.root)
		return nil
	}
	if err := s.unmountTarget(ctx); err != nil || !reboot {
		return err
	}
	s.env.UI.Stepf("Rebooting")
	_, err := s.env.Host.Run(ctx, run.New("systemctl", "reboot"))
	return err
}
