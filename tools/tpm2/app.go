// Package tpm2tool is the command nixos-tpm2: it lets the TPM unlock the
// encrypted disk, refuses where that would give the disk away or lock the
// owner out, and explains what is enrolled.
package tpm2tool

import (
	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/tpm2"
)

const name = "nixos-tpm2"

// Hooks are what tests replace.
type Hooks struct {
	// Open opens the TPM; nil opens the machine's.
	Open func(run.Files) (*tpm2.Device, error)
	// TPM names it for systemd-cryptenroll; "" is the only one.
	TPM string
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
	if hooks.Open == nil {
		hooks.Open = tpm2.Open
	}
	t := &tool{env: env, hooks: hooks}
	device := &cli.StringFlag{Name: "device", Usage: "the encrypted `DEVICE` (default: the one in the settings)"}
	passphrase := &cli.StringFlag{Name: "current-password-file", Usage: "read a passphrase or recovery key of the disk from `FILE`"}
	return clikit.New(&cli.App{
		Name:  name,
		Usage: "let the TPM unlock the encrypted disk",
		Description: "The TPM gives the disk's key only to a machine in the state that it was enrolled in: by default " +
			"Secure Boot with its keys (PCR 7), nothing slipped to the kernel (PCR 12), and no volume opened before " +
			"in this boot (PCR 15 at zero, so that nobody who swaps the partition gets a second secret).\n\n" +
			"A passphrase or a recovery key always stays, and is tested before anything changes.",
		Commands: []*cli.Command{
			{
				Name:   "status",
				Usage:  "explain the key slots, the TPM, and whether it would unlock",
				Flags:  []cli.Flag{device, clikit.FlakeFlag(), clikit.JSONFlag()},
				Action: t.status,
			},
			{
				Name:  "enable",
				Usage: "enrol the TPM; what it had before is wiped first",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "pcrs", Value: "7+12", Usage: "bind to these `PCRS`; PCR 15 at zero always comes on top"},
					&cli.BoolFlag{Name: "pin", Usage: "ask for a PIN at boot as well"},
					&cli.StringFlag{Name: "pin-file", Usage: "read the new PIN from `FILE`"},
					&cli.BoolFlag{Name: "recovery-key", Usage: "make a recovery key, and show it once"},
					&cli.StringFlag{Name: "header-backup", Usage: "save the disk's header to `FILE` before anything changes"},
					&cli.BoolFlag{Name: "insecure", Usage: "enrol without Secure Boot, with PCR 7 alone"},
					passphrase, device, clikit.FlakeFlag(), clikit.DryRunFlag(), clikit.YesFlag(), clikit.JSONFlag(),
				},
				Action: t.enable,
			},
			{
				Name:   "disable",
				Usage:  "remove the TPM's key slots",
				Flags:  []cli.Flag{passphrase, device, clikit.FlakeFlag(), clikit.DryRunFlag(), clikit.YesFlag(), clikit.JSONFlag()},
				Action: t.disable,
			},
		},
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "sudo nixos-tpm2 status", Does: "who can open the disk, and whether the TPM would"},
			{Command: "sudo nixos-tpm2 enable --recovery-key", Does: "the TPM unlocks; a recovery key to write down"},
			{Command: "sudo nixos-tpm2 enable --pin --header-backup /mnt/stick/header.luks", Does: "a PIN besides, and a backup first"},
			{Command: "sudo nixos-tpm2 disable", Does: "the boot asks for the passphrase again"},
		},
		SeeAlso: []string{"systemd-cryptenroll(1)", "cryptsetup(8)", "nixos-secure-boot(8)"},
	})
}
