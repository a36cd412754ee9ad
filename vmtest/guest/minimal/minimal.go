// Package minimal makes the smallest guest there is: a Debian cloud kernel and
// an initrd with the agent as PID 1, the modules that it needs, busybox, and
// what a test adds. From start to the first command it takes some three seconds
// under emulation.
package minimal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nixos-go/vmtest/cpio"
	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/gobuild"
	"nixos-go/vmtest/machine"
)

// ConsoleShell is a word of the kernel's command line that gives the guest a shell
// on its serial console.
const ConsoleShell = "vm-agent.shell"

// File is one more file of the initrd.
type File struct {
	// Path is its name there.
	Path string
	// Source is the file of the host that it is a copy of; empty: Content.
	Source  string
	Content []byte
	// Mode is its permission bits.
	Mode fs.FileMode
}

// Options say what the guest has.
type Options struct {
	// Arch is the architecture; it need not be the host's.
	Arch machine.Arch
	// Modules are modules beyond the usual ones, in the order to be loaded.
	Modules []string
	// Files are further files.
	Files []File
	// Links are symbolic links: name to target.
	Links map[string]string
}

// Guest is what boots.
type Guest struct {
	// Arch is its architecture.
	Arch machine.Arch
	// Kernel, Initrd and Cmdline are what [machine.Spec] takes.
	Kernel, Initrd string
	Cmdline        []string
	// Release is the kernel's.
	Release string
}

// Spec is a machine that boots the guest.
func (g Guest) Spec(name string) machine.Spec {
	return machine.Spec{Name: name, Arch: g.Arch, Kernel: g.Kernel, Initrd: g.Initrd, Cmdline: g.Cmdline}
}

// base is what an architecture's guest is made from.
type base struct {
	suite, meta string
	console     string
	modules     []string
}

func baseOf(arch machine.Arch) base {
	// Compiled in where the list of a kernel has no module of the name.
	modules := []string{
		"virtio_pci", "virtio_console", "virtio_blk", "nvme", "virtio_rng", "virtio_net",
		"crc32c_generic", "xxhash_generic", "libcrc32c", "btrfs", "qemu_fw_cfg", "tpm_tis", "tpm_crb",
	}
	if arch == machine.ARM64 {
		return base{suite: "trixie", meta: "linux-image-cloud-arm64", console: "ttyAMA0", modules: modules}
	}
	return base{suite: "bookworm", meta: "linux-image-cloud-amd64", console: "ttyS0", modules: modules}
}

// Build makes the guest's initrd in a folder; the kernel comes from the cache.
func Build(ctx context.Context, cache debian.Cache, dir string, o Options) (Guest, error) {
	b := baseOf(o.Arch)
	name, err := cache.Kernel(ctx, b.suite, string(o.Arch), b.meta)
	if err != nil {
		return Guest{}, err
	}
	tree, err := cache.Fetch(ctx, debian.Set{Suite: b.suite, Arch: string(o.Arch), Packages: []string{name}})
	if err != nil {
		return Guest{}, err
	}
	tools, err := cache.Fetch(ctx, debian.Set{Suite: b.suite, Arch: string(o.Arch), Packages: []string{"busybox-static"}})
	if err != nil {
		return Guest{}, err
	}
	kernel, release, err := findKernel(tree.Root)
	if err != nil {
		return Guest{}, err
	}
	agent := filepath.Join(dir, "vm-agent-"+string(o.Arch))
	if err := gobuild.Build(ctx, string(o.Arch), "nixos-go/vmtest/agent/cmd/vm-agent", agent); err != nil {
		return Guest{}, err
	}
	g := Guest{
		Arch: o.Arch, Kernel: kernel, Release: release,
		Initrd: filepath.Join(dir, "minimal-"+string(o.Arch)+".cpio"),
		Cmdline: []string{
			"console=" + b.console, "panic=-1", "quiet", "mitigations=off", "apparmor=0",
			"cryptomgr.notests", "tsc=reliable", "no_timer_check", "nokaslr",
		},
	}
	modules, err := LoadModules(ctx, tree.Root, release, append(b.modules, o.Modules...))
	if err != nil {
		return Guest{}, err
	}
	busybox, err := firstFile(tools.Root, "bin/busybox", "usr/bin/busybox")
	if err != nil {
		return Guest{}, err
	}
	files := append([]File{
		{Path: "/init", Source: agent, Mode: 0o755},
		{Path: "/bin/busybox", Source: busybox, Mode: 0o755},
	}, o.Files...)
	return g, writeInitrd(g.Initrd, modules, files, o.Links)
}

func firstFile(root string, names ...string) (string, error) {
	for _, name := range names {
		path := filepath.Join(root, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: none of %v: %w", root, names, fs.ErrNotExist)
}

// writeInitrd writes the archive.
func writeInitrd(path string, modules []Module, files []File, links map[string]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := cpio.NewWriter(f)
	err = fill(w, modules, files, links)
	return errors.Join(err, w.Close(), f.Close())
}

func fill(w *cpio.Writer, modules []Module, files []File, links map[string]string) error {
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "mnt", "root", "etc", "usr/bin", "usr/sbin", "sbin"} {
		if err := w.Dir(dir, 0o755); err != nil {
			return err
		}
	}
	// PID 1 has it as its standard streams before /dev is mounted.
	if err := w.CharDevice("dev/console", 0o600, 5, 1); err != nil {
		return err
	}
	var list bytes.Buffer
	for _, m := range modules {
		name := m.Name + ".ko"
		fmt.Fprintln(&list, name)
		if err := w.File("lib/modules/"+name, 0o644, m.Content); err != nil {
			return err
		}
	}
	if err := w.File("modules.list", 0o644, list.Bytes()); err != nil {
		return err
	}
	for _, f := range files {
		content := f.Content
		if f.Source != "" {
			var err error
			if content, err = os.ReadFile(f.Source); err != nil {
				return err
			}
		}
		if err := w.File(f.Path, f.Mode, content); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := w.Symlink(name, target); err != nil {
			return err
		}
	}
	return nil
}
