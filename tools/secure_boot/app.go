// Package secureboottool is the command nixos-secure-boot: it takes a machine
// from systemd-boot to lanzaboote under the owner's own keys, and back, as one
// transaction: the machine boots at every moment in between.
package secureboottool

import (
	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
)

const name = "nixos-secure-boot"

// Hooks are what tests replace.
type Hooks struct {
	// Step is called before and after each step.
	Step func(kind string, done bool)
}

// App is the command line on this machine.
func App() *cli.App { return New(clikit.System(), Hooks{}) }

type tool struct {
	env   *clikit.Env
	hooks Hooks
}

// New is the command line in a given world.
func New(env *clikit.Env, hooks Hooks) *cli.App {
	t := &tool{env: env, hooks: hooks}
	esp := &cli.StringFlag{Name: "esp", Value: "/boot", Usage: "where the EFI partition is mounted, `DIR`"}
	return clikit.New(&cli.App{
		Name:  name,
		Usage: "switch Secure Boot on and off, with keys of your own",
		Description: "Enabling makes keys, rebuilds the system with signed boot images, verifies every one of them, and only " +
			"then gives the keys to the firmware. The firmware has to be in setup mode; the tool says how to get there. " +
			"Microsoft's certificates stay by default: the option ROMs of graphics cards are signed with them.\n\n" +
			"Whatever fails, the configuration, the boot files and the default generation are put back, also by the next " +
			"run after a crash.",
		Commands: []*cli.Command{
			{
				Name:   "status",
				Usage:  "firmware, keys, signatures, the entry that booted, and what to do next",
				Flags:  []cli.Flag{esp, clikit.FlakeFlag(), clikit.JSONFlag()},
				Action: t.status,
			},
			{
				Name:  "enable",
				Usage: "sign everything, verify it, and enrol the keys",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "no-microsoft", Usage: "leave Microsoft's certificates out (the screen can stay dark)"},
					&cli.StringFlag{Name: "confirm", Usage: "the `TEXT` that --no-microsoft has one type, for unattended use"},
					esp, clikit.FlakeFlag(), clikit.DryRunFlag(), clikit.YesFlag(), clikit.JSONFlag(),
				},
				Action: t.enable,
			},
			{
				Name:   "disable",
				Usage:  "go back to systemd-boot without signatures",
				Flags:  []cli.Flag{esp, clikit.FlakeFlag(), clikit.DryRunFlag(), clikit.YesFlag(), clikit.JSONFlag()},
				Action: t.disable,
			},
		},
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "sudo nixos-secure-boot status", Does: "where the machine stands, and the next step"},
			{Command: "sudo nixos-secure-boot enable --dry-run", Does: "what would be done"},
			{Command: "sudo nixos-secure-boot enable", Does: "from setup mode to a machine that boots signed images only"},
			{Command: "sudo nixos-secure-boot disable", Does: "back, once Secure Boot is off in the firmware"},
		},
		Files: []clikit.File{
			{Path: "/var/lib/sbctl", Does: "the keys (settings.boot.pkiBundle); must persist"},
			{Path: Folder, Does: "the journal and the copy of the boot files while a change is under way"},
			{Path: "/etc/nixos/config.json", Does: `"target" is Standard-Boot or Secure-Boot`},
		},
		SeeAlso: []string{"sbctl(8)", "nixos-tpm2(8)", "nixos-update(8)"},
	})
}
