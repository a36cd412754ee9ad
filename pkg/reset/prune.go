package reset

import (
	"context"
	"errors"
	"fmt"
	"os"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// prunedPaths lists the top-most paths of a subvolume that are kept with all below them,
// in order. A kept directory that exclude rules leave a part of is not among them, but
// what else is in it.
func prunedPaths(root *os.File, m *keep.Matcher) ([]string, error) {
	info, err := btrfs.ReadInfo(root)
	if err != nil {
		return nil, err
	}
	p := pruner{tree: newTree(root, info.ID)}
	if _, err := p.visit("", rootInode, m.Root()); err != nil {
		return nil, err
	}
	return p.paths, nil
}

type pruner struct {
	tree  *tree
	paths []string
}

// visit looks through a directory that holds kept paths, or is one with excluded parts.
// It reports whether anything of it stays.
func (p *pruner) visit(path string, dir uint64, state keep.State) (stays bool, err error) {
	entries, err := p.tree.entries(dir) // a file has none
	if err != nil {
		return false, fmt.Errorf("%q: %w", path, err)
	}
	sortBy(entries, comparePaths, func(e *entry) string { return e.name })
	before := len(p.paths)
	for i := range entries {
		e := &entries[i]
		child, next := path+"/"+e.name, state.Step(e.name)
		switch {
		case e.subvolume, next.Kept() && !next.MayWipeBelow(), !next.Kept() && !next.MayKeepBelow():
			if next.Kept() {
				p.paths = append(p.paths, child)
			} else {
				stays = true
			}
			continue
		}
		below, err := p.visit(child, e.inode, next)
		if err != nil {
			return false, err
		}
		stays = stays || below
	}
	if state.Kept() && !stays {
		p.paths = append(p.paths[:before], path) // all of it
	}
	// What is not kept stays itself, whatever of it does.
	return stays || !state.Kept(), nil
}

// removePaths removes paths and all below them, and puts back the times of the
// directories that held them.
func removePaths(ctx context.Context, root *os.File, paths []string) error {
	for _, path := range paths {
		parent, name := splitPath(path)
		dir, err := openDir(root, parent)
		if err != nil {
			return err
		}
		err = removeHeld(ctx, dir, name)
		dir.Close()
		if err != nil {
			return fmt.Errorf("remove %q: %w", path, err)
		}
	}
	return nil
}

// removeHeld is removeTree, and puts back the time of the directory that held it.
func removeHeld(ctx context.Context, dir *os.File, name string) error {
	done, err := holdDirs(dir)
	if err != nil {
		return err
	}
	return errors.Join(removeTree(ctx, dir, name), done())
}
