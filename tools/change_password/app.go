// Package changepassword is the command nixos-change-password: it changes the
// passphrase of the encrypted disk and the password of the account, so that
// whatever fails, the owner knows one that works.
package changepassword

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/settings"
)

const name = "nixos-change-password"

// App is the command line on this machine.
func App() *cli.App { return New(clikit.System(), Hooks{}) }

// Hooks are what tests replace.
type Hooks struct {
	// Step is called before and after each step.
	Step func(kind string, done bool)
	// TPM names the TPM to enrol; "" is the only one.
	TPM string
}

type tool struct {
	env   *clikit.Env
	hooks Hooks
}

// Flags that say what is changed.
const (
	diskOnly    = "full-disk-encryption-only"
	accountOnly = "user-account-only"
	updateTPM2  = "update-tpm2"
)

// New is the command line in a given world.
func New(env *clikit.Env, hooks Hooks) *cli.App {
	t := &tool{env: env, hooks: hooks}
	return clikit.New(&cli.App{
		Name:  name,
		Usage: "change the disk's passphrase and the account's password",
		Description: "Both become the same new password, unless one of the --…-only flags is given.\n\n" +
			"The new passphrase is added to the disk and tested before the old one is removed, and the " +
			"account's hash is checked after it was activated. Whatever fails, the tool goes back as far as it can " +
			"and says which passphrase works. A desktop's wallet keeps its old password.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: diskOnly, Usage: "change the disk's passphrase alone"},
			&cli.BoolFlag{Name: accountOnly, Usage: "change the account's password alone"},
			&cli.BoolFlag{Name: updateTPM2, Usage: "enrol the TPM again afterwards, with the policy it has"},
			&cli.StringFlag{Name: "current-password-file", Usage: "read the disk's present passphrase from `FILE`"},
			&cli.StringFlag{Name: "password-file", Usage: "read the new password from `FILE`"},
			&cli.StringFlag{Name: "pin-file", Usage: "read the TPM's PIN from `FILE`, for --update-tpm2"},
			&cli.StringFlag{Name: "device", Usage: "the encrypted `DEVICE` (default: the one in the settings)"},
			clikit.FlakeFlag(), clikit.DryRunFlag(), clikit.JSONFlag(),
		},
		Action: t.run,
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "sudo nixos-change-password", Does: "one new password for disk and account"},
			{Command: "sudo nixos-change-password --full-disk-encryption-only", Does: "only what the boot asks for"},
			{Command: "sudo nixos-change-password --user-account-only", Does: "only what the login asks for"},
			{Command: "sudo nixos-change-password --dry-run", Does: "what would be done; asks for no password"},
		},
		Files: []clikit.File{
			{Path: "/var/lib/nixos-go/secrets/hashed-password", Does: "the hash of the account's password (settings.secrets.hashedPasswordFile)"},
		},
		SeeAlso: []string{"cryptsetup(8)", "nixos-tpm2(8)"},
	})
}

// session is one change.
type session struct {
	*tool

	options  clikit.Options
	settings *settings.Settings
	volume   luks.Volume
	header   *luks.Header
	secrets  secrets
	plan     Plan
	result   Result
}

func (t *tool) run(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	if c.Bool(diskOnly) && c.Bool(accountOnly) {
		return clikit.Usagef("--%s and --%s exclude each other", diskOnly, accountOnly)
	}
	if c.Bool(accountOnly) && c.Bool(updateTPM2) {
		return clikit.Usagef("--%s and --%s exclude each other: the account has nothing to do with the TPM", accountOnly, updateTPM2)
	}
	if err := t.env.RequireRoot(name); err != nil {
		return err
	}
	s := &session{tool: t, options: clikit.OptionsOf(c)}
	defer s.wipe()
	if err := s.look(c); err != nil {
		return err
	}
	if s.options.DryRun {
		return s.dryRun()
	}
	if err := s.ask(c); err != nil {
		return err
	}
	if err := s.findNew(c.Context); err != nil {
		return err
	}
	return s.apply(c.Context)
}

// look reads the machine's facts and the disk's header, and plans.
func (s *session) look(c *cli.Context) error {
	var err error
	if s.settings, err = flake.Settings(c.Context, s.env, c.String("flake")); err != nil {
		return err
	}
	want := Want{Disk: !c.Bool(accountOnly), Account: !c.Bool(diskOnly), TPM2: c.Bool(updateTPM2)}
	if want.Disk {
		s.volume, err = luks.Of(s.settings, s.env.Host, c.String("device"))
		switch {
		case err != nil && want.Account && c.String("device") == "":
			s.env.UI.Infof("%v: only the account's password is changed", err)
			want.Disk = false
		case err != nil:
			return err
		default:
			if s.header, err = s.readHeader(); err != nil {
				return err
			}
		}
	}
	s.plan, err = MakePlan(want, s.settings, s.volume.Device, s.header)
	return err
}

// readHeader reads the disk's header and refuses one that is not sound.
func (s *session) readHeader() (*luks.Header, error) {
	h, err := s.volume.Header()
	if version, ok := errors.AsType[luks.VersionError](err); ok {
		return nil, clikit.WithHint(err, "LUKS%d can be converted offline, from a live system: cryptsetup convert --type luks2 %s",
			int(version), s.volume.Device)
	}
	if err != nil {
		return nil, err
	}
	if h.OneCopy {
		return nil, clikit.WithHint(fmt.Errorf("%s: one of the two copies of the header is damaged; nothing was changed", s.volume.Device),
			"cryptsetup repair %s", s.volume.Device)
	}
	return h, nil
}
