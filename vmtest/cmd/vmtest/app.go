package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/vmtest"
	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/machine"
	"nixos-go/vmtest/stage"
)

const name = "vmtest"

// tool is the command in a world.
type tool struct {
	env    *clikit.Env
	guests []guest
}

func app(env *clikit.Env) *cli.App {
	t := &tool{env: env, guests: guests()}
	return clikit.New(&cli.App{
		Name:  name,
		Usage: "run the virtual machines of the tests by hand",
		Description: "A machine lives in .vm/machines/NAME of the project and goes on when the command ends. What it was at a " +
			"moment is kept in .vm/checkpoints/NAME: disks, firmware variables, TPM, and of a running machine its memory. " +
			"Tests keep their stages there too.\n\n" +
			"No root is needed. Packages for guests come from the Debian mirror that the machine's own apt uses, into " +
			"a cache: .cache/vm, or the folder in " + debian.CacheVariable + ".",
		Commands: []*cli.Command{
			t.setupCommand(), t.upCommand(), t.sshCommand(), t.runCommand(), t.stopCommand(), t.statusCommand(),
			t.snapshotCommand(), t.restoreCommand(), t.listCommand(),
			t.cleanCommand(), t.cleanAllCommand(), t.cleanFromCommand(),
		},
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "vmtest up", Does: "boot the minimal guest and leave it running"},
			{Command: "vmtest run -- ls -l /dev", Does: "run a program in it"},
			{Command: "vmtest snapshot before", Does: "keep all of it, memory too, under a name"},
			{Command: "vmtest restore before", Does: "be there again, a second later"},
			{Command: "vmtest ssh", Does: "a shell in the guest, by ssh or on its console"},
			{Command: "vmtest ssh two -- journalctl -b", Does: "a command line in the guest of the machine called two"},
			{Command: "vmtest stop", Does: "power off"},
			{Command: "vmtest clean-from minimal", Does: "forget a stage of the tests and all that came after it"},
		},
		Files: []clikit.File{
			{Path: ".vm/machines/NAME", Does: "a machine: its disks, logs, sockets, and qemu.sh, which repeats its boot"},
			{Path: ".vm/checkpoints/NAME", Does: "a checkpoint, or a stage of the tests"},
		},
		Environment: []clikit.File{
			{Path: vmtest.StateVariable, Does: "the folder of machines and checkpoints, instead of .vm"},
			{Path: debian.CacheVariable, Does: "the folder of what guests are made from, to be shared by several clones"},
			{Path: "NIXOS_GO_VM_ACCEL", Does: "kvm or tcg, instead of finding out which works"},
		},
	})
}

// nameFlag chooses a machine.
func nameFlag() cli.Flag {
	return &cli.StringFlag{Name: "name", Value: "vm", Usage: "the machine is called `NAME`"}
}

// place is where the project keeps what.
type place struct {
	state, cache string
	stages       stage.Store
}

func (t *tool) place(ctx context.Context) (place, error) {
	var p place
	var err error
	if p.state, err = vmtest.StateDir(); err != nil {
		return p, err
	}
	if p.cache, err = vmtest.CacheDir(); err != nil {
		return p, err
	}
	p.stages, err = stage.Open(ctx, filepath.Join(p.state, "checkpoints"), func(string) string { return "" })
	return p, err
}

func (p place) packages() debian.Cache     { return debian.Cache{Dir: filepath.Join(p.cache, "debian")} }
func (p place) machine(name string) string { return filepath.Join(p.state, "machines", name) }

// names are the machines that there are.
func (p place) names() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(p.state, "machines"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// action is that of a command: its arguments are checked before anything is
// looked at, then it does its work in the project.
func (t *tool) action(arguments func(*cli.Context) error, do func(*cli.Context, place) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := arguments(c); err != nil {
			return err
		}
		p, err := t.place(c.Context)
		if err != nil {
			return err
		}
		return do(c, p)
	}
}

// oneName is a usage error unless the arguments are the name of a checkpoint or
// a stage.
func oneName(c *cli.Context) error {
	if c.NArg() != 1 {
		return clikit.Usagef("want %s", c.Command.ArgsUsage)
	}
	return checkName(c.Args().First())
}

// checkName is a usage error where something cannot have this name.
func checkName(called string) error {
	if err := stage.CheckName(called); err != nil {
		return clikit.Usagef("%v", err)
	}
	return nil
}

// load finds a machine, running or not.
func (p place) load(called string) (*machine.Machine, error) {
	if err := checkName(called); err != nil {
		return nil, err
	}
	m, err := machine.Load(p.machine(called))
	if errors.Is(err, os.ErrNotExist) {
		return nil, clikit.WithHint(errors.New("there is no machine "+called), name+" up makes one; "+name+" status shows those that there are")
	}
	return m, err
}

// attach finds a machine that runs.
func (p place) attach(c *cli.Context, called string) (*machine.Machine, error) {
	m, err := p.load(called)
	if err != nil {
		return nil, err
	}
	if err := m.Attach(c.Context); err != nil {
		return nil, clikit.WithHint(err, name+" up starts it")
	}
	return m, nil
}
