package reset

import (
	"context"
	"fmt"
	"os"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// prepareFirst makes a first CLEAN, or tells what it would be.
func (n *NewClean) prepareFirst(ctx context.Context, live *os.File, dryRun bool) error {
	root := live
	if !dryRun {
		var err error
		if n.made, err = n.snapshot("snapshot live", live, false); err != nil {
			return err
		}
		if root, err = openDir(n.work.dir, n.made); err != nil {
			return err
		}
		defer root.Close()
	}
	var err error
	if n.Kept, err = prunedPaths(root, n.rules); err != nil {
		return err
	}
	if n.Changes, err = firstChanges(root, n.rulesAndLeft); err != nil {
		return err
	}
	pruned, err := prunedPaths(root, n.rulesAndLeft)
	if err != nil {
		return err
	}
	if n.LeftOut, err = n.leftOutOf(root, pruned); err != nil || dryRun {
		return err
	}
	return n.prune(ctx, root, n.rulesAndLeft)
}

// leftOutOf tells of the pruned paths that are not kept.
func (n *NewClean) leftOutOf(root *os.File, pruned []string) ([]Change, error) {
	info, err := btrfs.ReadInfo(root)
	if err != nil {
		return nil, err
	}
	t := newTree(root, info.ID)
	var out []Change
	for _, path := range pruned {
		if stateAt(n.rules, path).Kept() {
			continue
		}
		c, err := t.changeAt(path)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// changeAt tells of something that comes from a path of the tree, or would.
func (t *tree) changeAt(path string) (Change, error) {
	c := Change{Path: path, Kind: KindDeleted, Mode: modeDir | 0o755}
	at := &entry{inode: rootInode}
	for _, name := range splitComponents(path) {
		next, err := t.find(at.inode, name)
		if err != nil {
			return c, err
		}
		if next == nil {
			return c, errNoInode
		}
		if next.subvolume {
			return c, nil
		}
		at = next
	}
	n, err := t.read(at.inode)
	if err != nil {
		return c, err
	}
	c.Mode, c.Size = n.Mode, fileSize(n)
	return c, nil
}

// firstChanges is what a first CLEAN has in its root directory.
func firstChanges(live *os.File, left *keep.Matcher) ([]Change, error) {
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		return nil, err
	}
	t := newTree(live, info.ID)
	entries, err := t.entries(rootInode)
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, e := range entries {
		if left.Root().Step(e.name).Kept() {
			continue
		}
		c, err := t.changeAt("/" + e.name)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	sortBy(out, comparePaths, func(c *Change) string { return c.Path })
	return out, nil
}
