package full

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx"
)

// The disk, in bytes:
//
//	1 MiB        EFI partition, FAT, disk-main-esp
//	257 MiB      main partition, disk-main-luks: LUKS2, in it BTRFS with
//	             @root @home @nix @snapshots, and a CLEAN of the first two
//	2561 MiB     swap, disk-main-swap
//	3073 MiB     the second table
const (
	mib       = 1 << 20
	espStart  = 1 * mib
	espSize   = 256 * mib
	mainStart = espStart + espSize
	mainSize  = 2304 * mib
	swapStart = mainStart + mainSize
	swapSize  = 512 * mib
	diskSize  = swapStart + swapSize + mib

	labelESP  = "disk-main-esp"
	labelMain = "disk-main-luks"
	labelSwap = "disk-main-swap"
)

// Passphrase opens the disk. LUKSUUID is the partition's.
const (
	Passphrase = "correct horse battery staple"
	LUKSUUID   = "7c1b1bd6-3d39-4ac8-9d5b-5b0f9a3e6f10"
)

// buildImage makes the disk of an installed machine, sparse, raw, from the image
// of its file system.
func buildImage(ctx context.Context, plain, out string) error {
	work, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	part := filepath.Join(work, "disk.raw")
	disk, err := os.Create(part)
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := disk.Truncate(diskSize); err != nil {
		return err
	}
	err = writeGPT(disk, diskSize, []partition{
		{label: labelESP, kind: typeESP, start: espStart, bytes: espSize},
		{label: labelMain, kind: typeLinux, start: mainStart, bytes: mainSize},
		{label: labelSwap, kind: typeSwap, start: swapStart, bytes: swapSize},
	})
	if err != nil {
		return err
	}
	if err := writeLUKS(ctx, plain, disk, mainStart, LUKSUUID, Passphrase); err != nil {
		return err
	}
	esp := filepath.Join(work, "esp.fat")
	if err := BuildESP(ctx, esp, nil); err != nil {
		return err
	}
	if err := copyData(esp, &section{disk, espStart}, func([]byte, int64) {}); err != nil {
		return err
	}
	return errors.Join(disk.Sync(), os.Rename(part, out))
}

// section writes a file from an offset on.
type section struct {
	f     *os.File
	start int64
}

func (s *section) WriteAt(b []byte, at int64) (int, error) { return s.f.WriteAt(b, s.start+at) }

// buildFilesystem makes the image of the BTRFS file system.
func buildFilesystem(ctx context.Context, tree Tree, system System, image string) (err error) {
	work, err := os.MkdirTemp(filepath.Dir(image), ".filesystem-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.RemoveAll(image); err != nil { // of a run that was cut off
		return err
	}
	loop, err := testx.AttachLoop(image, mainSize-luksOffset)
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	defer func() { err = errors.Join(err, loop.Detach()) }()
	if _, err := (&run.Local{}).Run(ctx, run.New("mkfs.btrfs", "--quiet", "--label", "nixos", loop.Path)); err != nil {
		return err
	}
	top := filepath.Join(work, "top")
	if err := os.Mkdir(top, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(loop.Path, top, "btrfs", unix.MS_NOATIME, "compress-force=zstd:1"); err != nil {
		return &os.PathError{Op: "mount", Path: loop.Path, Err: err}
	}
	defer func() {
		if e := unix.Unmount(top, 0); e != nil {
			err = errors.Join(err, &os.PathError{Op: "unmount", Path: top, Err: e})
		}
	}()
	return fillFilesystem(ctx, tree, system, top)
}

func fillFilesystem(ctx context.Context, tree Tree, system System, top string) error {
	dir, err := os.Open(top)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range []string{"@root", "@home", "@nix", "@snapshots"} {
		if err := btrfs.Create(dir, name); err != nil {
			return err
		}
	}
	root := filepath.Join(top, "@root")
	if _, err := (&run.Local{}).Run(ctx, run.New("cp", "-a", tree.Root+"/.", root)); err != nil {
		return err
	}
	err = errors.Join(
		trimSystem(ctx, tree, root),
		writeSystem(root, system),
		addAccount(root, filepath.Join(top, "@home")),
		os.Chmod(filepath.Join(top, "@snapshots"), 0o700),
		writeGeneration(filepath.Join(top, "@nix"), system))
	if err != nil {
		return err
	}
	return takeClean(top)
}

// writeGeneration writes the first generation and the profile that leads to it.
func writeGeneration(nix string, system System) error {
	store := filepath.Join(nix, strings.TrimPrefix(generation, "nix/"))
	profiles := filepath.Join(nix, "var/nix/profiles")
	return errors.Join(
		writeFile(filepath.Join(store, "etc/immutability/plan.json"), string(system.Plan)),
		writeFile(filepath.Join(store, "etc/nixos-go/settings.json"), string(system.Settings)),
		writeFile(filepath.Join(store, "activate"), activate),
		os.Chmod(filepath.Join(store, "activate"), 0o755),
		replaceLink(filepath.Join(profiles, "system-1-link"), "/"+generation),
		replaceLink(filepath.Join(profiles, "system"), "system-1-link"))
}

// takeClean takes the factory state of both volumes, as an installer does.
func takeClean(top string) error {
	for _, volume := range []string{"@root", "@home"} {
		folder := filepath.Join(top, "@snapshots", volume)
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		source, err := os.Open(filepath.Join(top, volume))
		if err != nil {
			return err
		}
		target, err := os.Open(folder)
		if err == nil {
			err = errors.Join(btrfs.Snapshot(source, target, "CLEAN", true), target.Close())
		}
		if err := errors.Join(err, source.Close()); err != nil {
			return err
		}
	}
	return nil
}

// trimSystem leaves the modules that the guest can have a use for, and no
// kernel: that is QEMU's or the firmware's business.
func trimSystem(ctx context.Context, tree Tree, root string) error {
	for _, name := range []string{"usr/lib/modules", "boot"} {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(root, "boot"), 0o700); err != nil {
		return err
	}
	return writeModules(ctx, tree, append(initrdModules(), systemModules()...), root)
}

// writeSystem makes the installed packages the machine that boots.
func writeSystem(root string, system System) error {
	files := systemFiles()
	for name, text := range system.Units {
		files["etc/systemd/system/"+name] = text
	}
	for name, text := range files {
		if err := writeFile(filepath.Join(root, name), text); err != nil {
			return err
		}
	}
	unitDir := filepath.Join(root, "etc/systemd/system")
	for _, unit := range masked() {
		if err := replaceLink(filepath.Join(unitDir, unit), "/dev/null"); err != nil {
			return err
		}
	}
	links := map[string]string{
		"etc/systemd/system/sysinit.target.wants/vm-generation.service": "../vm-generation.service",
		"etc/immutability": "/run/current-system/etc/immutability",
		"etc/nixos-go":     "/run/current-system/etc/nixos-go",
		"etc/systemd/system/multi-user.target.wants/vm-agent.service": "../vm-agent.service",
		"etc/systemd/system/sockets.target.wants/vm-ssh.socket":       "../vm-ssh.socket",
		"etc/systemd/system/default.target":                           "/usr/lib/systemd/system/multi-user.target",
	}
	for name, text := range system.Units {
		for _, target := range wantedBy(text) {
			links["etc/systemd/system/"+target+".wants/"+name] = "../" + name
		}
	}
	// The commands of the toolkit, where NixOS has them for whoever calls them.
	for _, name := range append(Tools(), "nixos-go", "initrd-reset") {
		links["usr/bin/"+name] = "/opt/vm/bin/" + name
	}
	for name, text := range system.Programs {
		program := filepath.Join(root, "usr/bin", name)
		if err := errors.Join(writeFile(program, text), os.Chmod(program, 0o755)); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := replaceLink(filepath.Join(root, name), target); err != nil {
			return err
		}
	}
	for _, name := range []string{"opt/vm", "home", "nix", ".snapshots", "mnt"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// wantedBy are the targets that a unit's [Install] section names: what
// `systemctl enable` makes links for, and NixOS too.
func wantedBy(unit string) []string {
	for line := range strings.Lines(unit) {
		if targets, ok := strings.CutPrefix(strings.TrimSpace(line), "WantedBy="); ok {
			return strings.Fields(targets)
		}
	}
	return nil
}

func writeFile(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(text), 0o644)
}

func replaceLink(name, target string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, name)
}

// addAccount adds the owner's account, without a password, and the home.
func addAccount(root, homes string) error {
	for name, line := range map[string]string{
		"etc/passwd": Account + ":x:1000:1000::/home/" + Account + ":/bin/bash\n",
		"etc/group":  Account + ":x:1000:\nwheel:x:1001:" + Account + "\n",
		"etc/shadow": Account + ":!:20000:0:99999:7:::\n",
	} {
		f, err := os.OpenFile(filepath.Join(root, name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(line)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	home := filepath.Join(homes, Account)
	err := errors.Join(os.MkdirAll(filepath.Join(home, "Documents"), 0o755),
		writeFile(filepath.Join(home, ".bashrc"), "alias ll='ls -l'\n"))
	if err != nil {
		return err
	}
	for _, name := range []string{"", "Documents", ".bashrc"} {
		if err := os.Lchown(filepath.Join(home, name), 1000, 1000); err != nil {
			return err
		}
	}
	return nil
}
