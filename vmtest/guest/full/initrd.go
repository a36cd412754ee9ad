package full

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"nixos-go/pkg/run"
	"nixos-go/vmtest/cpio"
	"nixos-go/vmtest/guest/minimal"
)

// The parts of systemd that an initrd of NixOS has, too: no shell among them.
const systemdDir = "usr/lib/systemd/"

func initrdPrograms() []string {
	var names []string
	for _, name := range []string{
		"systemd", "systemd-executor", "systemd-udevd", "systemd-journald", "systemd-modules-load", "systemd-sysctl",
		"systemd-cryptsetup", "systemd-hibernate-resume", "systemd-sysroot-fstab-check", "systemd-shutdown", "systemd-reply-password",
		"systemd-sulogin-shell", "systemd-tpm2-setup", "systemd-pcrextend",
		"system-generators/systemd-fstab-generator", "system-generators/systemd-cryptsetup-generator",
		"system-generators/systemd-hibernate-resume-generator", "system-generators/systemd-tpm2-generator",
		"system-generators/systemd-debug-generator",
	} {
		names = append(names, systemdDir+name)
	}
	return append(names,
		"usr/bin/systemctl", "usr/bin/udevadm", "usr/bin/systemd-tmpfiles", "usr/bin/systemd-tty-ask-password-agent",
		"usr/bin/journalctl", "usr/bin/mount", "usr/bin/umount", "usr/bin/kmod", "usr/sbin/modprobe")
}

// initrdLibraries are opened by dlopen(3), which no table of a program tells.
func initrdLibraries() []string {
	var names []string
	for _, name := range []string{
		"libcryptsetup.so.12", "libtss2-esys.so.0", "libtss2-mu.so.0", "libtss2-rc.so.0", "libtss2-tcti-device.so.0",
		"libkmod.so.2", "libgcc_s.so.1", "libblkid.so.1", "cryptsetup/libcryptsetup-token-systemd-tpm2.so",
	} {
		names = append(names, libraryDirs[0]+"/"+name)
	}
	return names
}

func initrdUnits() []string {
	return strings.Fields(`
		basic.target cryptsetup.target cryptsetup-pre.target remote-cryptsetup.target emergency.service emergency.target
		rescue.service rescue.target final.target halt.target poweroff.target reboot.target shutdown.target umount.target
		initrd.target initrd-fs.target initrd-root-device.target initrd-root-fs.target initrd-usr-fs.target
		initrd-switch-root.target initrd-switch-root.service initrd-cleanup.service initrd-parse-etc.service
		initrd-udevadm-cleanup-db.service
		local-fs.target local-fs-pre.target paths.target slices.target sockets.target swap.target sysinit.target timers.target
		systemd-ask-password-console.path systemd-ask-password-console.service systemd-hibernate-resume.service
		systemd-journald-dev-log.socket systemd-journald.service systemd-journald.socket systemd-modules-load.service
		systemd-sysctl.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udevd.service
		systemd-udev-trigger.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service
		systemd-tmpfiles-setup.service systemd-halt.service systemd-poweroff.service systemd-reboot.service
		system-systemd\x2dcryptsetup.slice tpm2.target modprobe@.service
		systemd-pcrphase-initrd.service systemd-pcrextend.socket systemd-pcrextend@.service`)
}

// accounts are the users and groups that udev's rules and journald name.
const (
	initrdUsers  = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\ntss:x:101:101::/:/bin/false\n"
	initrdGroups = "root:x:0:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nkmem:x:15:\ndialout:x:20:\ncdrom:x:24:\ntape:x:26:\n" +
		"audio:x:29:\nutmp:x:43:\nvideo:x:44:\ntss:x:101:\ninput:x:990:\nrender:x:991:\nkvm:x:992:\nsgx:x:993:\n" +
		"clock:x:994:\nsystemd-journal:x:999:\nnobody:x:65534:\n"
)

// buildInitrd writes the part of the initrd that is the same for all boots; see
// [Boot] for the rest.
func buildInitrd(ctx context.Context, tree Tree, out string) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	w := cpio.NewWriter(f)
	b := initrdBuilder{tree: tree, w: w, pick: &picker{root: tree.Root, to: w, done: map[string]bool{}}}
	err = errors.Join(b.skeleton(), b.system(), b.units(), b.modules(ctx))
	return errors.Join(err, w.Close(), f.Close())
}

type initrdBuilder struct {
	tree Tree
	w    *cpio.Writer
	pick *picker
}

func (b *initrdBuilder) skeleton() error {
	var errs []error
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		errs = append(errs, b.w.Symlink(dir, "usr/"+dir))
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "sysroot", "var", "root", "etc/systemd/system"} {
		errs = append(errs, b.w.Dir(dir, 0o755))
	}
	errs = append(errs,
		b.w.Dir("tmp", 0o777|fs.ModeSticky),
		b.w.CharDevice("dev/console", 0o600, 5, 1),
		b.w.Symlink("init", systemdDir+"systemd"))
	release, err := os.ReadFile(filepath.Join(b.tree.Root, "usr/lib/os-release"))
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"etc/initrd-release": string(release), "etc/os-release": string(release), "etc/machine-id": "", "etc/fstab": "",
		"etc/passwd": initrdUsers, "etc/group": initrdGroups, "etc/shadow": "root:*:::::::\n",
		// Emulation is slow, and a busy machine slower.
		"etc/systemd/system.conf":             "[Manager]\nDefaultTimeoutStartSec=240\nDefaultDeviceTimeoutSec=240\n",
		"etc/modules-load.d/guest.conf":       "dm_crypt\nbtrfs\nvirtio_blk\nvirtio_console\n",
		"etc/systemd/journald.conf.d/vm.conf": "[Journal]\nRateLimitBurst=0\n",
	} {
		errs = append(errs, b.w.File(name, 0o644, []byte(content)))
	}
	return errors.Join(errs...)
}

func (b *initrdBuilder) system() error {
	var errs []error
	for _, name := range append(initrdPrograms(), initrdLibraries()...) {
		errs = append(errs, b.pick.add(name))
	}
	for _, rule := range []string{
		"50-udev-default", "55-dm", "60-block", "60-persistent-storage", "60-persistent-storage-dm", "60-tpm-udev",
		"64-btrfs", "64-btrfs-dm", "80-drivers", "95-dm-notify", "99-systemd",
	} {
		errs = append(errs, b.pick.add("usr/lib/udev/rules.d/"+rule+".rules"))
	}
	for _, name := range []string{"static-nodes-permissions", "20-systemd-stub", "systemd"} {
		errs = append(errs, b.pick.add("usr/lib/tmpfiles.d/"+name+".conf"))
	}
	// The rules of device mapper ask it.
	return errors.Join(append(errs, b.pick.add("usr/sbin/dmsetup"))...)
}

func (b *initrdBuilder) units() error {
	const dir = systemdDir + "system/"
	var errs []error
	for _, unit := range initrdUnits() {
		errs = append(errs, b.pick.add(dir+unit))
	}
	errs = append(errs, b.w.Symlink(dir+"default.target", "initrd.target"))
	for _, target := range []string{"sysinit.target", "sockets.target", "initrd.target", "initrd-root-device.target"} {
		entries, err := os.ReadDir(filepath.Join(b.tree.Root, dir+target+".wants"))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if b.w.Has(dir + entry.Name()) {
				errs = append(errs, b.w.Symlink(path.Join(dir+target+".wants", entry.Name()), "../"+entry.Name()))
			}
		}
	}
	return errors.Join(errs...)
}

// modules adds the kernel's modules, unpacked, with the tables that modprobe
// reads.
func (b *initrdBuilder) modules(ctx context.Context) error {
	work, err := os.MkdirTemp("", "initrd-modules-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := writeModules(ctx, b.tree, initrdModules(), work); err != nil {
		return err
	}
	pick := &picker{root: work, to: b.w, done: map[string]bool{}}
	return pick.add("usr/lib/modules")
}

// writeModules writes modules and what they need below a root, with modprobe's
// tables.
func writeModules(ctx context.Context, tree Tree, names []string, root string) error {
	modules, err := minimal.LoadModules(ctx, tree.Root, tree.Release, names)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "usr/lib/modules", tree.Release)
	if err := os.MkdirAll(filepath.Join(dir, "kernel"), 0o755); err != nil {
		return err
	}
	for _, m := range modules {
		if err := os.WriteFile(filepath.Join(dir, "kernel", m.Name+".ko"), m.Content, 0o644); err != nil {
			return err
		}
	}
	for _, table := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		b, err := os.ReadFile(filepath.Join(tree.Root, "usr/lib/modules", tree.Release, table))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, table), b, 0o644); err != nil {
			return err
		}
	}
	// depmod wants lib/modules.
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := (&run.Local{}).Run(ctx, run.New("depmod", "-b", root, tree.Release)); err != nil {
		return fmt.Errorf("tables of modules: %w", err)
	}
	return nil
}
