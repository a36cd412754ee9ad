package nixos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"nixos-go/pkg/run"
	"nixos-go/vmtest/machine"
)

// DiskID is the id of the disk that is installed to.
const DiskID = "main"

// BuildInstaller is the command that builds the live system; it leaves a link to
// it in out. project is the project's folder, a git repository.
func BuildInstaller(project, out string) run.Command {
	c := run.New("nix", "--extra-experimental-features", "nix-command flakes", "build", "--impure",
		"--file", filepath.Join(project, "vmtest/guest/nixos/installer.nix"),
		"--argstr", "flake", "git+file://"+project, "--out-link", out)
	c.Stream = true
	return c
}

// LiveSpec is a machine that boots the live system that was built to a folder,
// with an empty disk.
func LiveSpec(built string, firmware *machine.Firmware, accel machine.Accel) (machine.Spec, error) {
	cmdline, err := os.ReadFile(filepath.Join(built, "cmdline"))
	if err != nil {
		return machine.Spec{}, fmt.Errorf("the live system: %w", err)
	}
	return machine.Spec{
		Name: "nixos", Arch: machine.AMD64, Accel: accel, MemoryMiB: 4096, CPUs: 2,
		Kernel: filepath.Join(built, "kernel"), Initrd: filepath.Join(built, "initrd"),
		Cmdline:  strings.Fields(string(cmdline)),
		Firmware: firmware,
		TPM:      true,
		Disks:    []machine.Disk{{ID: DiskID, Size: 32 << 30, Boot: 1}},
		Network:  &machine.Network{Forward: []int{22}},
	}, nil
}

// Installed changes the spec of a live machine into that of the machine which it
// has installed: the firmware starts what is on the disk.
func Installed(s machine.Spec) machine.Spec {
	s.Kernel, s.Initrd, s.Cmdline = "", "", nil
	return s
}

// Build builds the live system, or finds it in nix' store.
func Build(ctx context.Context, project, out string) error {
	_, err := (&run.Local{}).Run(ctx, BuildInstaller(project, out))
	return err
}
