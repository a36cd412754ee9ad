package install

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

const gib = 1 << 30

// leastSystem is what a system without a desktop and one update of it need, in
// bytes.
const leastSystem = 12 * gib

// checkCopyable refuses a folder whose copy would not be the same flake, or
// would carry secrets.
func checkCopyable(f nix.Flake) error {
	if f.Sub != "" {
		return clikit.WithHint(fmt.Errorf("the flake lies in %s, below the root of its repository %s: on the machine it has to be the root of one", f.Dir(), f.Top),
			"make %s a repository of its own", f.Dir())
	}
	info, err := os.Stat(path.Join(f.Top, ".git"))
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return clikit.WithHint(fmt.Errorf("%s is a git worktree or submodule: a copy of it is no repository", f.Top), "install from a clone")
	}
	if _, err := os.Lstat(path.Join(f.Top, "secrets")); err == nil {
		return fmt.Errorf("%s is inside the flake: secrets in it end up in the world-readable store; move it away", path.Join(f.Top, "secrets"))
	}
	return nil
}

// checkMachine refuses a machine on which the host cannot boot.
func checkMachine(files run.Files, host settings.HostFile) error {
	if host.System != processor() {
		return fmt.Errorf("%s is a host for %s processors; this one is %s", host.Name, host.System, processor())
	}
	if !files.Exists("/sys/firmware/efi") {
		return clikit.WithHint(errors.New("this system was not booted by EFI, which the installed one needs"),
			"switch the firmware's legacy or CSM mode off and boot the live system's EFI entry")
	}
	return nil
}

// findDisk finds the host's disk among those that are there.
func findDisk(files run.Files, disks []blockDevice, s *settings.Settings) (*blockDevice, error) {
	if s.Disk.Device == "" {
		return nil, clikit.WithHint(errors.New("the host names no disk"), "set settings.disk.device, best to a name from /dev/disk/by-id")
	}
	resolved := resolveDevice(files, s.Disk.Device)
	for i := range disks {
		if disks[i].Path == resolved {
			return &disks[i], nil
		}
	}
	there := make([]string, 0, len(disks))
	for i := range disks {
		there = append(there, disks[i].Path)
	}
	return nil, clikit.WithHint(fmt.Errorf("the host's disk %s is not there; there are: %s", s.Disk.Device, strings.Join(there, ", ")),
		"set settings.disk.device in the host's file")
}

// resolveDevice follows the links of /dev/disk.
func resolveDevice(files run.Files, device string) string {
	to, err := files.Resolve(device)
	if err != nil {
		return device
	}
	return path.Clean("/" + strings.TrimPrefix(to, strings.TrimSuffix(files.Root(), "/")))
}

// checkDisk refuses a disk that must not or cannot be wiped. Mounts below root
// are an earlier attempt's own where ours says so: disko undoes them.
func checkDisk(disk *blockDevice, s *settings.Settings, root string, ours bool) error {
	points := disk.mounted()
	if ours {
		points = slices.DeleteFunc(points, func(p string) bool { return p == root || strings.HasPrefix(p, root+"/") || p == "[SWAP]" })
	}
	for _, point := range points {
		if runsFrom(point) {
			return fmt.Errorf("%s is the disk that this system runs from (%s is on it)", disk.Path, point)
		}
	}
	if len(points) > 0 {
		return clikit.WithHint(fmt.Errorf("%s is in use: mounted at %s", disk.Path, ui.Printable(strings.Join(points, ", "))),
			"unmount it first, if it is the right one")
	}
	if disk.ReadOnly {
		return fmt.Errorf("%s is read-only", disk.Path)
	}
	if need := neededSpace(s); disk.Size < need {
		return fmt.Errorf("%s has %s; the host needs at least %s", disk.Path, ui.Size(disk.Size), ui.Size(need))
	}
	return nil
}

// runsFrom tells whether a mount point is part of the running system, of NixOS's
// live media among others.
func runsFrom(point string) bool {
	return slices.Contains([]string{"/", "/boot", "/iso", "/nix", "/nix/store", "/nix/.ro-store"}, point)
}

// neededSpace is what the host's disk has to hold at least, in bytes.
func neededSpace(s *settings.Settings) int64 {
	need := int64(leastSystem) + s.Disk.ESPSizeMiB<<20
	if s.Disk.Swap.Enable {
		need += s.Disk.Swap.SizeGiB * gib
	}
	return need
}

// checkNamed refuses a --disk that is not the host's.
func checkNamed(files run.Files, named string, disk *blockDevice) error {
	if named == "" || isNameOf(files, named, disk) {
		return nil
	}
	return fmt.Errorf("--disk %s is not the host's disk: settings.disk.device leads to %s", named, disk.Path)
}

// isNameOf tells whether what somebody typed names a disk: its path, its path
// without /dev/, or a link to it.
func isNameOf(files run.Files, typed string, disk *blockDevice) bool {
	if typed == "" {
		return false
	}
	if !strings.HasPrefix(typed, "/") {
		typed = "/dev/" + typed
	}
	return resolveDevice(files, typed) == disk.Path
}
