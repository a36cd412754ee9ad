package nix

import (
	"strings"

	"nixos-go/pkg/run"
)

// Action is what nixos-rebuild does with a configuration.
type Action string

// The actions (nixos-rebuild(8)).
const (
	Switch Action = "switch"
	Boot   Action = "boot"
	Test   Action = "test"
	Build  Action = "build"
)

// Rebuild is a call of nixos-rebuild.
type Rebuild struct {
	Action Action
	// Configuration is the name of the flake's configuration.
	Configuration string
	// TargetHost and BuildHost are USER@HOST; empty is this machine.
	TargetHost, BuildHost string
	// InstallBootloader writes the boot loader again.
	InstallBootloader bool
}

// Command is the call.
func (r Rebuild) Command(f Flake) run.Command {
	args := []string{string(r.Action), "--flake", f.Configuration(r.Configuration), locked}
	if r.InstallBootloader {
		args = append(args, "--install-bootloader")
	}
	if r.BuildHost != "" {
		args = append(args, "--build-host", r.BuildHost)
	}
	if r.TargetHost != "" {
		args = append(args, "--target-host", r.TargetHost)
		if !strings.HasPrefix(r.TargetHost, "root@") {
			args = append(args, "--sudo")
		}
	}
	return rebuild(f.Owner, args...)
}

// Rollback goes back to the generation before the present one.
func Rollback(action Action) run.Command {
	return rebuild(0, string(action), "--rollback")
}

func rebuild(owner int, args ...string) run.Command {
	c := run.New("nixos-rebuild", args...)
	c.Env = environment(owner)
	c.Stream = true
	return c
}

// Toplevel builds a configuration's system and prints its store path, without
// a link to it.
func (f Flake) Toplevel(name string) run.Command {
	c := f.nix("build", "--no-link", "--print-out-paths", locked, f.Attribute(name, "config.system.build.toplevel"))
	c.Stream = true
	return c
}

// Disko runs the disk script of a configuration: disko from the flake's own
// inputs. With wipe it destroys, formats and mounts, asking nothing; without, it
// mounts what is there.
func (f Flake) Disko(name string, wipe bool) run.Command {
	args := []string{"run", locked, f.Attribute(name, "config.system.build.mount")}
	if wipe {
		args = []string{
			"run", locked, f.Attribute(name, "config.system.build.destroyFormatMount"),
			"--", "--yes-wipe-all-disks",
		}
	}
	c := f.nix(args...)
	c.Stream = true
	return c
}

// Install runs nixos-install for a system whose root is mounted at root.
func (f Flake) Install(name, root string) run.Command {
	c := run.New("nixos-install", "--root", root, "--flake", f.Configuration(name),
		"--no-root-passwd", "--no-channel-copy", locked)
	c.Env = environment(f.Owner)
	c.Stream = true
	return c
}

// CollectGarbage deletes generations older than an age such as "14d", of every
// profile, and what nothing refers to any more.
func CollectGarbage(olderThan string) run.Command {
	c := run.New("nix-collect-garbage", "--delete-older-than", olderThan)
	c.Stream = true
	return c
}
