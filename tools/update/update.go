// Package update is nixos-update: it builds the machine's configuration, shows
// what would change, and makes it the running system, the next boot's, or both.
//
// A request, read from the command line, becomes a plan: a list of steps that a
// dry run shows and a session carries out, the same list in both cases.
package update

import (
	"context"
	"os"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/nix"
)

// App is the tool.
func App() *cli.App { return newApp(clikit.System()) }

const description = "Builds the configuration of this machine from its flake, shows which packages " +
	"change and how much larger the system gets, asks, and switches to it. The running system is not " +
	"touched before the answer.\n\n" +
	"A generation that no longer keeps a path which holds data asks separately and names it: the next " +
	"boot would wipe it. When a switch fails, what state the machine is in is said, and how to go back."

func newApp(env *clikit.Env) *cli.App {
	t := tool{env}
	return clikit.New(&cli.App{
		Name:        "nixos-update",
		Usage:       "rebuild this machine from its flake and switch to it",
		Description: description,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "upgrade", Usage: "take the newest revisions of the flake's inputs first"},
			&cli.StringSliceFlag{Name: "input", Usage: "upgrade the input `NAME` alone; may be repeated"},
			&cli.BoolFlag{Name: "clean", Usage: "delete old generations and unused packages first"},
			&cli.StringFlag{Name: "older-than", Value: "14d", Usage: "with --clean: generations older than `AGE`, such as 14d"},
			&cli.BoolFlag{Name: "boot", Usage: "make it the system of the next boot, leave the running one alone"},
			&cli.BoolFlag{Name: "test", Usage: "switch to it, but boot the old one next time"},
			&cli.BoolFlag{Name: "build", Usage: "build it and show what would change, no more"},
			&cli.BoolFlag{Name: "rollback", Usage: "go back to the generation before"},
			&cli.BoolFlag{Name: "rebuild-filesystem", Usage: "write the boot loader again"},
			&cli.BoolFlag{Name: "allow-wipe", Usage: "go on when the new generation no longer keeps paths that hold data"},
			&cli.BoolFlag{Name: "reboot", Usage: "reboot when everything went well"},
			&cli.StringFlag{Name: "target-host", Usage: "update the machine `USER@HOST` instead of this one"},
			&cli.StringFlag{Name: "build-host", Usage: "build on the machine `USER@HOST`"},
			flake.HostFlag(), flake.TargetFlag(), clikit.FlakeFlag(),
			clikit.DryRunFlag(), clikit.JSONFlag(), clikit.YesFlag(),
		},
		Action: t.run,
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "sudo nixos-update", Does: "apply what was changed in /etc/nixos"},
			{Command: "sudo nixos-update --upgrade --clean", Does: "the weekly round: newest packages, old ones deleted"},
			{Command: "nixos-update --upgrade --build", Does: "what an upgrade would change; changes flake.lock alone"},
			{Command: "sudo nixos-update --boot --reboot", Does: "boot into it, for a new kernel or driver"},
			{Command: "sudo nixos-update --rollback", Does: "undo the last update"},
			{Command: "nixos-update --host SERVER --target-host me@server", Does: "update another machine from here"},
		},
		Files: []clikit.File{
			{Path: "/etc/nixos", Does: "the flake"},
			{Path: "/etc/nixos/config.json", Does: "which configuration of the flake the machine is"},
			{Path: "/nix/var/nix/profiles/system", Does: "the generations"},
		},
		Choices: map[string][]string{"TARGET": {"Standard-Boot", "Secure-Boot"}},
		SeeAlso: []string{"nixos-diff(8)", "nixos-eval(8)", "nixos-rebuild(8)", "nix3-flake-update(1)"},
	})
}

type tool struct{ env *clikit.Env }

func (t tool) run(c *cli.Context) error {
	r, err := newRequest(c)
	if err != nil {
		return err
	}
	if r.needsRoot() && !r.options.DryRun {
		if err := t.env.RequireRoot("nixos-update"); err != nil {
			return err
		}
	}
	if !r.rollback {
		if r, err = t.locate(c.Context, r, c); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp("", "nixos-update-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	steps := r.plan(work)
	if r.options.DryRun {
		return t.show(r, steps)
	}
	return newSession(t.env, r, work).run(c.Context, steps)
}

// locate finds the flake and the configuration in it.
func (t tool) locate(ctx context.Context, r request, c *cli.Context) (request, error) {
	dir, err := flake.Dir(c.String("flake"))
	if err != nil {
		return r, err
	}
	selected, err := flake.Select(dir, c.String("host"), c.String("target"))
	if err != nil {
		return r, err
	}
	r.configuration = selected.Configuration()
	r.flake, err = flake.Open(ctx, t.env, r.options, dir)
	return r, err
}

// request is what the command line asks for.
type request struct {
	options       clikit.Options
	action        nix.Action
	rollback      bool
	upgrade       bool
	inputs        []string
	clean         bool
	olderThan     string
	bootloader    bool
	reboot        bool
	allowWipe     bool
	targetHost    string
	buildHost     string
	flake         nix.Flake
	configuration string
}

func newRequest(c *cli.Context) (request, error) {
	r := request{
		options:  clikit.OptionsOf(c),
		action:   nix.Switch,
		rollback: c.Bool("rollback"),
		upgrade:  c.Bool("upgrade") || len(c.StringSlice("input")) > 0,
		inputs:   c.StringSlice("input"),
		clean:    c.Bool("clean"), olderThan: c.String("older-than"),
		bootloader: c.Bool("rebuild-filesystem"),
		reboot:     c.Bool("reboot"),
		allowWipe:  c.Bool("allow-wipe"),
		targetHost: c.String("target-host"), buildHost: c.String("build-host"),
	}
	if err := clikit.NoArgs(c); err != nil {
		return r, err
	}
	for _, action := range []nix.Action{nix.Boot, nix.Test, nix.Build} {
		if !c.Bool(string(action)) {
			continue
		}
		if r.action != nix.Switch {
			return r, clikit.Usagef("--%s and --%s exclude each other", r.action, action)
		}
		r.action = action
	}
	return r, r.check(c)
}

// check refuses what contradicts itself.
func (r request) check(c *cli.Context) error {
	for _, conflict := range []struct {
		is    bool
		flags string
	}{
		{r.rollback && r.action == nix.Build, "--rollback and --build"},
		{r.rollback && r.upgrade, "--rollback and --upgrade"},
		{r.rollback && (r.targetHost != "" || r.buildHost != ""), "--rollback and another machine"},
		{r.rollback && r.bootloader, "--rollback and --rebuild-filesystem"},
		{r.action == nix.Build && r.reboot, "--build and --reboot"},
		{r.action == nix.Test && r.reboot, "--test and --reboot (which would boot the old system)"},
		{r.action == nix.Build && r.bootloader, "--build and --rebuild-filesystem"},
		{r.action == nix.Test && r.bootloader, "--test and --rebuild-filesystem"},
		{r.targetHost != "" && r.reboot, "--target-host and --reboot"},
		{r.targetHost != "" && r.clean, "--target-host and --clean"},
	} {
		if conflict.is {
			return clikit.Usagef("%s exclude each other", conflict.flags)
		}
	}
	if c.IsSet("older-than") && !r.clean {
		return clikit.Usagef("--older-than says what --clean deletes: use both")
	}
	if !validAge(r.olderThan) {
		return clikit.Usagef("--older-than %q: use a number of days such as 14d", r.olderThan)
	}
	return nil
}

// validAge tells whether nix-collect-garbage takes an age: a number of days.
func validAge(age string) bool {
	if len(age) < 2 || age[len(age)-1] != 'd' {
		return false
	}
	for _, digit := range age[:len(age)-1] {
		if digit < '0' || digit > '9' {
			return false
		}
	}
	return true
}

// needsRoot tells whether this machine is changed.
func (r request) needsRoot() bool {
	return r.clean || (r.action != nix.Build && r.targetHost == "")
}
