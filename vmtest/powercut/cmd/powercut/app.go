package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/vmtest/powercut"
	"nixos-go/vmtest/powercut/resets"
)

const name = "powercut"

// tool is the command in a world.
type tool struct {
	env *clikit.Env
}

func app(env *clikit.Env) *cli.App {
	t := &tool{env: env}
	return clikit.New(&cli.App{
		Name:  name,
		Usage: "cut the power of a btrfs disk at every instant that matters",
		Description: "It records what a program writes to a disk, replays prefixes of that onto the disk as it was " +
			"before, and asks of each such image what must hold: the file system checks clean and mounts, " +
			"nothing is lost, and the next run finishes the work.\n\n" +
			"It needs root, loop devices, FUSE and qemu-storage-daemon, and works in memory (/dev/shm) where it can.",
		Commands: []*cli.Command{t.runCommand(), t.listCommand(), t.replayCommand(), t.imageCommand(), t.showCommand(), t.recordCommand()},
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "powercut run", Does: "every flush of every scenario, and a sample of the rest"},
			{Command: "powercut run --all 'reset-*'", Does: "every flush, write and many subsets of some scenarios"},
			{Command: "powercut run --seed 7 --json > result.json", Does: "another sample, the result as JSON"},
			{Command: "powercut replay --scenario cleanup DIR flush:12", Does: "try a point that failed again, from the recording that it left"},
			{Command: "powercut image DIR write:40 disk.img", Does: "make the disk that a cut after entry 40 leaves"},
			{Command: "powercut record --base disk.img --out DIR -- PROGRAM {}", Does: "record any program; {} becomes the block device"},
			{Command: "powercut show DIR", Does: "list what a recording has"},
		},
	})
}

// The programs that are cut off, by the flag that names another binary of each.
const (
	initrdReset   = "initrd-reset"
	nixosSnapshot = "nixos-snapshot"
)

func programFlags() []cli.Flag {
	var flags []cli.Flag
	for _, program := range []string{initrdReset, nixosSnapshot} {
		flags = append(flags, &cli.StringFlag{
			Name: program, Value: filepath.Join(".cache", "bin", program),
			Usage: "the binary `FILE` that is cut off (scripts/powercut makes it)",
		})
	}
	return flags
}

// program finds the binary of a program.
func program(c *cli.Context, name string) (string, error) {
	binary, err := filepath.Abs(c.String(name))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(binary); err != nil {
		return "", clikit.WithHint(err, "scripts/powercut makes it; --%s names another", name)
	}
	return binary, nil
}

// scenarios is the table, with the programs that the command line names.
func (t *tool) scenarios(c *cli.Context) ([]*powercut.Scenario, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	reset, err := program(c, initrdReset)
	if err != nil {
		return nil, err
	}
	snapshot, err := program(c, nixosSnapshot)
	if err != nil {
		return nil, err
	}
	return resets.Tools{Run: t.programs(), InitrdReset: reset, Snapshot: snapshot, Helper: self}.Scenarios(), nil
}

func (t *tool) programs() run.Runner { return t.env.Host.Runner }
