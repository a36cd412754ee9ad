package full

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/machine"
)

// Emulator is QEMU with what belongs to it, of one Debian release and apart from
// what the host has: machines do not change with the host.
type Emulator struct {
	// Programs start in their own tree.
	Programs machine.Programs
	// Code is UEFI firmware that checks signatures and keeps its variables from
	// the operating system (needs [machine.Firmware.SecureFlash]); Vars are its
	// variables as it comes: in setup mode, without keys.
	Code, Vars string
}

// FetchEmulator fetches QEMU, the firmware and the software TPM, or finds them
// in the cache.
func FetchEmulator(ctx context.Context, cache debian.Cache) (Emulator, error) {
	tree, err := cache.Fetch(ctx, debian.Set{
		Suite: suite, Arch: arch, Depends: true,
		Packages: []string{"qemu-system-x86", "qemu-utils", "ovmf", "swtpm", "seabios"},
	})
	if err != nil {
		return Emulator{}, err
	}
	e := Emulator{
		Programs: machine.Programs{
			QEMU:  append(inTree(tree.Root, "qemu-system-x86_64"), "-L", filepath.Join(tree.Root, "usr/share/qemu"), "-L", filepath.Join(tree.Root, "usr/share/seabios")),
			Image: inTree(tree.Root, "qemu-img"),
			TPM:   inTree(tree.Root, "swtpm"),
		},
		Code: filepath.Join(tree.Root, "usr/share/OVMF/OVMF_CODE_4M.secboot.fd"),
		Vars: filepath.Join(tree.Root, "usr/share/OVMF/OVMF_VARS_4M.fd"),
	}
	for _, name := range []string{e.Code, e.Vars, e.Programs.QEMU[0]} {
		if _, err := os.Stat(name); err != nil {
			return Emulator{}, fmt.Errorf("emulator: %w", err)
		}
	}
	return e, nil
}

// inTree is how a program of an unpacked tree is started: by the tree's own
// loader, with the tree's libraries.
func inTree(root, program string) []string {
	libraries := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	return []string{
		filepath.Join(libraries, "ld-linux-x86-64.so.2"),
		"--library-path", libraries + ":" + filepath.Join(libraries, "swtpm") + ":" + filepath.Join(libraries, "systemd"),
		"--argv0", program,
		filepath.Join(root, "usr/bin", program),
	}
}
