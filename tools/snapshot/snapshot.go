// Package snapshot is nixos-snapshot: it lists what the resets keep of the past,
// fetches lost files back, makes the factory state anew, checks whether the next boot
// has what it needs, and cleans up after the last.
//
// What touches the disk is in pkg/reset; here are the command lines, what is shown,
// and the questions. Every command that changes something plans first, shows the plan,
// and then carries out that very plan.
package snapshot

import (
	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/settings"
)

// App is the tool.
func App() *cli.App { return newApp(clikit.System()) }

const description = "Each volume that is reset at boot has snapshots: CLEAN, the factory state that a reset goes " +
	"back to; PREVIOUS and PENULTIMATE, the volume as it was when the last boot began and the one " +
	"before; REPLACED, what a restore at boot displaced; CURRENT, what the last reset made, by which " +
	"the next one knows what changed; and aged ones, which wait for gc.\n\n" +
	"A VOLUME is named by its subvolume (@home) or its mount point (/home); without one, all are meant."

func newApp(env *clikit.Env) *cli.App {
	t := tool{env}
	app := &cli.App{
		Name:        "nixos-snapshot",
		Usage:       "list snapshots, fetch lost files back, renew the factory state",
		Description: description,
		ArgsUsage:   "",
		Flags: []cli.Flag{
			clikit.JSONFlag(), clikit.DryRunFlag(), clikit.YesFlag(),
			&cli.StringFlag{Name: "plan", Usage: "take the rules from the plan file `FILE`"},
			&cli.StringFlag{Name: "device", Usage: "the file system is on the device `PATH`, or its top level is mounted there"},
			&cli.StringFlag{Name: "root", Usage: "the machine's root is mounted at `DIR`"},
		},
		Commands: []*cli.Command{
			t.listCommand(), t.wipedCommand(), t.restoreCommand(), t.verifyCommand(),
			t.initCommand(), t.rebaseCommand(), t.gcCommand(),
		},
		DisableSliceFlagSeparator: true, // a rule may hold a comma
	}
	return clikit.New(app, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "sudo nixos-snapshot wiped", Does: "what the reset of this boot threw away"},
			{Command: "sudo nixos-snapshot restore /home/alice/notes.txt", Does: "fetch a file back from PREVIOUS"},
			{Command: "sudo nixos-snapshot list", Does: "all snapshots, with age and size"},
			{Command: "sudo nixos-snapshot rebase --dry-run", Does: "what a new factory state would take from the running system"},
			{Command: "sudo nixos-snapshot verify", Does: "whether the next boot has what it needs"},
		},
		Files: []clikit.File{
			{Path: settings.PlanFile, Does: "the rules of the running system"},
			{Path: settings.SystemProfile + settings.PlanFile, Does: "those of the next boot; init, rebase and verify go by them"},
			{Path: reportFile, Does: "what the reset at boot did"},
			{Path: wipedFile, Does: "what it wiped and changed back"},
		},
		Choices: map[string][]string{
			"SNAPSHOT": {"PREVIOUS", "PENULTIMATE", "REPLACED"},
		},
		SeeAlso: []string{"nixos-diff(8)", "nixos-update(8)", "btrfs-subvolume(8)"},
	})
}

type tool struct{ env *clikit.Env }

// What the reset at boot leaves behind.
const (
	reportFile = "/run/initrd-reset/report.json"
	wipedFile  = "/run/initrd-reset/wiped.jsonl"
)
