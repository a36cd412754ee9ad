package minimal

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Module is a kernel module, unpacked.
type Module struct {
	Name    string
	Content []byte
}

// LoadModules reads modules and those that they need from an unpacked kernel
// package, in the order in which they can be loaded. Names that the kernel has
// compiled in are left out; one that it does not have is an error.
func LoadModules(ctx context.Context, root, release string, names []string) ([]Module, error) {
	l := loader{ctx: ctx, files: map[string]string{}, builtin: map[string]bool{}, done: map[string]bool{}}
	dir, err := firstFile(root, "lib/modules/"+release, "usr/lib/modules/"+release)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if name, ok := moduleName(path); ok && !entry.IsDir() {
			l.files[name] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for path := range strings.FieldsSeq(string(builtin)) {
		name, _ := moduleName(path)
		l.builtin[name] = true
	}
	for _, name := range names {
		if err := l.load(normal(name)); err != nil {
			return nil, err
		}
	}
	return l.modules, nil
}

type loader struct {
	ctx     context.Context
	files   map[string]string
	builtin map[string]bool
	done    map[string]bool
	modules []Module
}

// normal is a name as the kernel has it: dashes and underscores are the same.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName is the module in a file such as btrfs.ko.xz.
func moduleName(path string) (name string, ok bool) {
	name, _, ok = strings.Cut(filepath.Base(path), ".ko")
	return normal(name), ok
}

func (l *loader) load(name string) error {
	if l.done[name] || l.builtin[name] {
		return nil
	}
	l.done[name] = true
	path := l.files[name]
	if path == "" {
		return fmt.Errorf("the kernel has no module %s: %w", name, fs.ErrNotExist)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(path, ".ko") {
		if content, err = decompress(l.ctx, path, content); err != nil {
			return err
		}
	}
	needs, wants, err := dependencies(content)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, need := range needs {
		if err := l.load(need); err != nil {
			return fmt.Errorf("%s needs: %w", name, err)
		}
	}
	for _, want := range wants {
		if l.files[want] == "" {
			continue // an algorithm's name, or one that was not built
		}
		if err := l.load(want); err != nil {
			return err
		}
	}
	l.modules = append(l.modules, Module{Name: name, Content: content})
	return nil
}

// dependencies are what a module must have before it, and what it should have:
// "depends" and the "pre:" part of "softdep" of its section .modinfo, which
// holds NUL-terminated KEY=VALUE pairs (linux/module.h).
func dependencies(content []byte) (needs, wants []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, nil, err
	}
	for pair := range bytes.SplitSeq(info, []byte{0}) {
		key, value, _ := strings.Cut(string(pair), "=")
		switch key {
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					needs = append(needs, normal(name))
				}
			}
		case "softdep":
			pre, _, _ := strings.Cut(value, "post:")
			for name := range strings.FieldsSeq(strings.TrimPrefix(strings.TrimSpace(pre), "pre:")) {
				wants = append(wants, normal(name))
			}
		}
	}
	return needs, wants, nil
}
