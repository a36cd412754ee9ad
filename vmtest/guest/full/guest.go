package full

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/machine"
	"nixos-go/vmtest/versions"
)

// ResetUnit is the name of the reset's unit among [Units].
const ResetUnit = "immutability.service"

// Guest is what a machine is made from. It is shared: nobody writes to it.
type Guest struct {
	Tree

	// Disk is the image of an installed machine's disk, raw.
	Disk string
	// Live is the same system without a partition table and encryption, as the
	// only thing on a disk: a live medium.
	Live string

	initrd string
}

// Need are the programs of the host that making the guest takes.
func Need() []string {
	return []string{"mmdebstrap", "cryptsetup", "mkfs.btrfs", "mke2fs", "mformat", "mcopy", "depmod", "zstd", "xz", "tar"}
}

// Check tells, by an error, what is missing here.
func Check() error {
	for _, program := range Need() {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	if runtime.GOARCH != arch {
		return fmt.Errorf("the full guest is a PC (%s) and is made by running its programs; this is %s", arch, runtime.GOARCH)
	}
	if os.Geteuid() != 0 {
		return errors.New("the full guest is made as root: owners of files, loop devices")
	}
	return debian.Available()
}

// Build makes the guest in a folder of the cache, or finds it there. The
// unit of the reset, if it is among the system's, is left to the boot.
func Build(ctx context.Context, cache debian.Cache, dir string, system System) (Guest, error) {
	var g Guest
	err := locked(dir, func() (err error) {
		g, err = build(ctx, cache, dir, system)
		return err
	})
	return g, err
}

func build(ctx context.Context, cache debian.Cache, dir string, system System) (Guest, error) {
	tree, err := fetchTree(ctx, cache, dir)
	if err != nil {
		return Guest{}, err
	}
	system.Units = maps.Clone(system.Units)
	delete(system.Units, ResetUnit)
	parts := []string{tree.key, string(system.Plan), string(system.Settings)}
	for _, name := range slices.Sorted(maps.Keys(system.Units)) {
		parts = append(parts, name, system.Units[name])
	}
	for _, name := range slices.Sorted(maps.Keys(system.Programs)) {
		parts = append(parts, name, system.Programs[name])
	}
	key, err := recipe(parts...)
	if err != nil {
		return Guest{}, err
	}
	g := Guest{
		Tree: tree,
		Disk: filepath.Join(dir, "disk-"+key+".raw"), Live: filepath.Join(dir, "live-"+key+".raw"),
		initrd: filepath.Join(dir, "initrd-"+key+".cpio"),
	}
	if err := g.part(g.initrd, func(out string) error { return buildInitrd(ctx, tree, out) }); err != nil {
		return Guest{}, fmt.Errorf("initrd: %w", err)
	}
	if err := g.part(g.Live, func(out string) error { return buildFilesystem(ctx, tree, system, out) }); err != nil {
		return Guest{}, fmt.Errorf("file system: %w", err)
	}
	if err := g.part(g.Disk, func(out string) error { return buildImage(ctx, g.Live, out) }); err != nil {
		return Guest{}, fmt.Errorf("disk image: %w", err)
	}
	return g, forget(dir, g.Root, g.Disk, g.Live, g.initrd)
}

// part makes a file unless it is there; it appears when it is complete.
func (g Guest) part(name string, produce func(out string) error) error {
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	partial := name + ".part"
	defer os.Remove(partial)
	if err := produce(partial); err != nil {
		return err
	}
	return os.Rename(partial, name)
}

// spared is how many earlier ones stay for a while, of each kind.
const spared = 2

// forget notes what is in use, and takes away what earlier recipes and packages
// have made, and what was cut off. It is called under the lock of the folder.
func forget(dir string, inUse ...string) error {
	for _, part := range inUse {
		kind, _, _ := strings.Cut(filepath.Base(part), "-")
		same, err := filepath.Glob(filepath.Join(dir, kind+"-*"+filepath.Ext(part)))
		if err == nil {
			err = versions.Used(part)
		}
		if err != nil {
			return err
		}
		if _, err := versions.Forget(part, same, spared); err != nil {
			return err
		}
	}
	return versions.Scraps(dir, ".installing-*", ".image-*", "*.part")
}

// Cmdline is the kernel's command line for the guest's disk.
func Cmdline() []string {
	return append([]string{"root=/dev/mapper/root", "rootfstype=btrfs", "rootflags=subvol=@root,compress=zstd,noatime", "rw"}, common()...)
}

// LiveDisk is the id of the disk with the live medium.
const LiveDisk = "live"

// LiveCmdline is the kernel's command line for the live medium: nothing of
// /etc/fstab, which is the installed machine's.
func LiveCmdline() []string {
	const live = "/dev/disk/by-id/virtio-" + LiveDisk
	return append([]string{
		"root=" + live, "rootfstype=btrfs", "rootflags=subvol=@root", "rw", "fstab=0", "rd.fstab=0",
		"systemd.mount-extra=" + live + ":/nix:btrfs:subvol=@nix",
		"systemd.mount-extra=" + live + ":/home:btrfs:subvol=@home",
		"systemd.mount-extra=/dev/disk/by-id/virtio-" + ToolsDisk + ":/opt/vm:ext4:ro",
	}, common()...)
}

func common() []string {
	return []string{
		"console=ttyS0", "panic=-1", "quiet", "systemd.show_status=1", "systemd.gpt_auto=0",
		"mitigations=off", "apparmor=0", "cryptomgr.notests", "tsc=reliable", "no_timer_check",
		// An emulated processor stands still while the host does something else.
		"nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1",
	}
}

// Spec is a machine that QEMU boots directly: kernel, an initrd of
// [Guest.WriteInitrd], and its disks.
func (g Guest) Spec(name, initrd string, tools Toolbox) machine.Spec {
	return machine.Spec{
		Name: name, Arch: machine.AMD64, MemoryMiB: 1024,
		// Emulated processors of one machine have now and then lost each other's
		// interrupts on a busy host; one alone has not so far.
		CPUs:   1,
		Kernel: g.Kernel, Initrd: initrd, Cmdline: Cmdline(),
		Disks: []machine.Disk{
			{ID: "main", Base: g.Disk},
			{ID: ToolsDisk, Base: tools.Disk, ReadOnly: true},
		},
		Credentials: map[string]string{"cryptsetup.passphrase": Passphrase},
	}
}
