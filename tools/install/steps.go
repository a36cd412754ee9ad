package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"nixos-go/pkg/passwd"
	"nixos-go/pkg/permissions"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// targetFiles are the files of the installed system.
func (s *session) targetFiles() run.Files { return run.Below(s.r.root) }

// mountByDisko runs disko with the passphrase at hand.
func (s *session) mountByDisko(ctx context.Context, commands []run.Command) (err error) {
	if err := s.writePassphraseFile(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.removePassphraseFile()) }()
	if err := s.commands(ctx, commands); err != nil {
		return err
	}
	mounted, err := isMounted(s.files, s.r.root)
	if err == nil && !mounted {
		err = fmt.Errorf("disko ended well, but nothing is mounted at %s", s.r.root)
	}
	if err == nil && s.r.mountOnly {
		s.sayMounted()
	}
	return err
}

// sayMounted says what can be done with a mounted machine.
func (s *session) sayMounted() {
	s.env.UI.Donef("%s is mounted at %s", s.r.host.Name, s.r.root)
	s.hintMounted()
}

func (s *session) hintMounted() {
	s.env.UI.Hintf("enter it: nixos-enter --root %s; when done: umount --recursive %s", s.r.root, s.r.root)
}

// configuration copies the flake, and says which of its hosts the machine is.
// The copy gets its name when it is complete.
func (s *session) configuration(ctx context.Context, commands []run.Command) error {
	to := s.r.below(target)
	if _, err := os.Lstat(path.Join(to, "flake.nix")); err == nil {
		s.env.UI.Infof("%s holds a flake already; it is left as it is", to)
		return s.writeConfig(to)
	}
	incomplete := s.r.below(copyName)
	err := errors.Join(
		os.RemoveAll(incomplete),
		s.targetFiles().MkdirAll(path.Dir(target), 0o755))
	if err != nil {
		return err
	}
	if err := s.commands(ctx, commands); err != nil {
		return err
	}
	if err := s.writeConfig(incomplete); err != nil {
		return err
	}
	// An empty folder may be there, as disko makes mount points.
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is in the way: %w", to, err)
	}
	return os.Rename(incomplete, to)
}

func (s *session) writeConfig(dir string) error {
	config, err := settings.ReadConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		config, err = &settings.Config{}, nil
	}
	if err != nil {
		return err
	}
	config.HostPath, config.Target = s.r.host.Path, settings.StandardBoot
	return settings.WriteConfig(dir, config)
}

// secrets writes the hash of the admin's password to where the installed system
// reads it. It has to be there before nixos-install runs: an account whose
// password file is missing is locked.
func (s *session) secrets(context.Context, []run.Command) error {
	if s.password == nil {
		s.env.UI.Infof("%s is there already", s.r.settings.Secrets.HashedPasswordFile)
		return nil
	}
	hash, err := passwd.Hash(s.password)
	if err != nil {
		return err
	}
	return settings.WriteSecret(s.targetFiles(), s.r.settings.Secrets.HashedPasswordFile, []byte(hash+"\n"))
}

// permissions gives the configuration to the admin and the secrets to root.
func (s *session) permissions(ctx context.Context, _ []run.Command) error {
	files := s.targetFiles()
	facts, err := settings.Read(files, path.Join(settings.SystemProfile, settings.File))
	if err != nil {
		return fmt.Errorf("the installed system: %w", err)
	}
	account, err := permissions.FindAccount(files, facts.User.Admin.Name)
	if err != nil {
		return err
	}
	for _, tree := range []permissions.Tree{
		{Path: files.Path(target), UID: account.UID, GID: account.GID, Kind: permissions.Configuration},
		{Path: files.Path(facts.Secrets.Path), Kind: permissions.Secrets},
	} {
		plan, err := permissions.Plan(ctx, tree)
		if err != nil {
			return err
		}
		if err := permissions.Apply(ctx, tree, plan.Changes); err != nil {
			return err
		}
		for _, skipped := range plan.Skipped {
			s.env.UI.Warnf("%s is left alone: %s", ui.Printable(path.Join(tree.Path, skipped.Path)), skipped.Reason)
		}
	}
	return nil
}

// takeClean takes CLEAN, as the installed system's own plan says. It comes last:
// what changes afterwards would be wiped by the first boot.
func (s *session) takeClean(ctx context.Context, _ []run.Command) error {
	plan, err := settings.ReadPlan(s.targetFiles(), path.Join(settings.SystemProfile, settings.PlanFile))
	if err != nil {
		return err
	}
	if plan == nil {
		s.env.UI.Infof("This host is not reset at boot: it needs no CLEAN.")
		return nil
	}
	if s.report.Clean, err = s.clean(ctx, plan); err != nil {
		return err
	}
	for _, result := range s.report.Clean {
		without := ""
		if result.LeftOut > 0 {
			without = ", without " + ui.Count(int64(result.LeftOut), "kept path")
		}
		s.env.UI.Donef("CLEAN of %s is taken%s", result.Volume, without)
	}
	return nil
}
