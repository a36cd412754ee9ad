package full

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"nixos-go/vmtest/cpio"
)

// libraryDirs are where the loader looks, below the tree; the last one by the
// run path of systemd's programs.
var libraryDirs = []string{"usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib/x86_64-linux-gnu/systemd"} //nolint:gochecknoglobals // a constant

// picker copies files of a tree into an initrd, with all that they lead to:
// targets of links, and the libraries of programs.
type picker struct {
	root string
	to   *cpio.Writer
	done map[string]bool
}

// merged spells a path as it is where /bin, /sbin and /lib are links into /usr.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, dir := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(name, dir) {
			return "usr/" + name
		}
	}
	return name
}

// add copies a file, a link with its target, or a folder with what is in it.
func (p *picker) add(name string) error {
	name = merged(name)
	if p.done[name] {
		return nil
	}
	p.done[name] = true
	host := filepath.Join(p.root, name)
	info, err := os.Lstat(host)
	if err != nil {
		return err
	}
	switch info.Mode().Type() { //nolint:exhaustive // the rest is an error
	case fs.ModeSymlink:
		return p.addLink(name, host)
	case fs.ModeDir:
		entries, err := os.ReadDir(host)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := p.add(path.Join(name, entry.Name())); err != nil {
				return err
			}
		}
		return nil
	case 0:
		return p.addFile(name, host, info.Mode())
	default:
		return fmt.Errorf("%s: %v does not belong into an initrd", host, info.Mode())
	}
}

func (p *picker) addLink(name, host string) error {
	target, err := os.Readlink(host)
	if err != nil {
		return err
	}
	if err := p.to.Symlink(name, target); err != nil {
		return err
	}
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(name), target)
	}
	if strings.HasPrefix(target, "/dev/") {
		return nil // a masked unit
	}
	return p.add(target)
}

func (p *picker) addFile(name, host string, mode fs.FileMode) error {
	content, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	if err := p.to.File(name, mode, content); err != nil {
		return err
	}
	if !strings.HasPrefix(string(content[:min(4, len(content))]), elf.ELFMAG) {
		return nil
	}
	f, err := elf.NewFile(strings.NewReader(string(content)))
	if err != nil {
		return fmt.Errorf("%s: %w", host, err)
	}
	return p.addLibraries(name, f)
}

func (p *picker) addLibraries(name string, f *elf.File) error {
	for _, segment := range f.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		loader, err := io.ReadAll(segment.Open())
		if err != nil {
			return err
		}
		if err := p.add(strings.TrimRight(string(loader), "\x00")); err != nil {
			return err
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, library := range needed {
		if err := p.library(library); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (p *picker) library(name string) error {
	for _, dir := range libraryDirs {
		err := p.add(path.Join(dir, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("library %s: %w", name, fs.ErrNotExist)
}
