package run

import (
	"context"
	"path"
	"strings"
)

// systemBin is where an installed NixOS has its programs before it has booted
// (nixos-enter runs without /run/current-system being ours to rely on).
const systemBin = "/nix/var/nix/profiles/system/sw/bin"

// Chroot runs programs inside a mounted installation, by nixos-enter(8). The
// programs are those of the installed system, whatever PATH says outside.
type Chroot struct {
	// Root is where the installation is mounted.
	Root string
	// Base runs nixos-enter.
	Base Runner
}

// Run implements [Runner].
func (c Chroot) Run(ctx context.Context, command Command) (Result, error) {
	return c.Base.Run(ctx, c.Enter(command))
}

// Enter is the command that runs another one inside the installation.
func (c Chroot) Enter(command Command) Command {
	args := []string{"--root", c.Root}
	if !command.Stream && !command.Interactive {
		args = append(args, "--silent")
	}
	args = append(args, "--")
	if command.Dir != "" {
		args = append(args, path.Join(systemBin, "env"), "--chdir="+command.Dir)
	}
	program := command.Program
	if !strings.Contains(program, "/") {
		program = path.Join(systemBin, program)
	}
	entered := command
	entered.Program = "nixos-enter"
	entered.Args = append(append(args, program), command.Args...)
	entered.Dir = ""
	return entered
}
