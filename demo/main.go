package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/ui"
)

// options are the command line.
type options struct {
	binary string // initrd-reset
	source string // a folder with a source tree to copy
	plan   string // of the run that is to be cut off
	cut    string // at which step; not empty in the process that is cut off alone
}

func main() {
	// The signals stay caught until the process ends.
	ctx, _ := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	os.Exit(run(ctx, os.Args[1:], ui.ForTerminal(os.Stdout, os.Stderr, os.Getenv)))
}

func run(ctx context.Context, args []string, u *ui.UI) int {
	var o options
	set := flag.NewFlagSet("demo", flag.ContinueOnError)
	set.StringVar(&o.binary, "initrd-reset", "", "the `binary` to show")
	set.StringVar(&o.source, "source", "", "a `folder` with source code, to have real files")
	set.StringVar(&o.plan, "plan", "", "plan `file` of the run that is cut off")
	set.StringVar(&o.cut, "cut", "", "run the plan and die at this `step`")
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if o.cut != "" {
		return runAndDie(o.plan, o.cut, u)
	}
	if o.binary == "" || o.source == "" {
		u.Errorf("run scripts/demo, which builds what this needs")
		return 2
	}
	err := show(ctx, o, u)
	switch {
	case ctx.Err() != nil && !errors.Is(err, errLeft):
		u.Infof("\nInterrupted. The disk of the demo is gone; nothing is left behind.")
		return 130
	case err != nil:
		u.Errorf("%v", err)
		explain(err, u)
		return 1
	}
	return 0
}

var errNotRoot = errors.New("loop devices and mounts need root")

// errLeft says that something of the demo could not be undone.
var errLeft = errors.New("not everything could be cleaned up")

// errDisk says that the machine could not give a disk.
var errDisk = errors.New("the demo needs a loop device and btrfs")

// explain says what to do about an error.
func explain(err error, u *ui.UI) {
	switch {
	case errors.Is(err, errNotRoot):
		u.Hintf("run it as root, or scripts/demo, which takes sudo where there is one")
	case errors.Is(err, exec.ErrNotFound):
		u.Hintf("install btrfs-progs (on NixOS: nix develop)")
	case errors.Is(err, unix.ENOSPC):
		u.Hintf("it wants 1 GiB in %s: name another folder in TMPDIR", os.TempDir())
	case errors.Is(err, errDisk):
		u.Hintf("%s", `on a machine of your own: modprobe loop && modprobe btrfs
in a container the devices are the host's to give: run the demo on the host, or
start the container with --privileged; a virtual machine has all that it needs`)
	case errors.Is(err, fs.ErrNotExist):
	default:
		u.Hintf("this is a bug: please report it with all that stands above")
	}
}

// wrapDisk marks an error as one of the machine.
func wrapDisk(err error) error { return fmt.Errorf("%w: %w", errDisk, err) }
