package reset

import (
	"strings"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// findNested finds the subvolumes that lie in a live subvolume, by the references
// in the root tree. Those at or below a kept path move; in one that may hold kept
// paths it looks further.
func (w *walker) findNested(t *tree, prefix string) error {
	children, err := btrfs.Children(w.src.Live, t.id)
	if err != nil {
		return err
	}
	for _, c := range children {
		dir, err := t.path(c.DirID)
		if w.tolerates(err) {
			continue
		}
		if err != nil {
			return err
		}
		path := prefix + dir + "/" + c.Name
		state := stateAt(w.matcher, path)
		w.nested[dirName{t.id, c.DirID, c.Name}] = c.ID
		if state.Kept() {
			w.plan.Moves = append(w.plan.Moves, Move{Path: path, ID: c.ID})
			continue
		}
		if w.marked != nil && t.id == w.live.id {
			// A branch is compared whatever the marks say of its directory.
			if err := w.mark(c.DirID); err != nil {
				return err
			}
		}
		if state.MayKeepBelow() {
			if err := w.findNested(t.nested(c.ID), path); err != nil {
				return err
			}
		}
	}
	return nil
}

// stateAt walks the rules to a path.
func stateAt(m matcher, path string) keep.State {
	state := m.Root()
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name != "" {
			state = state.Step(name)
		}
	}
	return state
}

// visitSubvolume decides about a name that is a nested subvolume in live, or the
// stub of one.
func (w *walker) visitSubvolume(a at) error {
	_, name := splitPath(a.path)
	id, nested := w.nested[dirName{a.liveDir.id, a.liveDir.dir, name}]
	switch {
	case a.state.Kept() && nested:
		return nil // it moves
	case a.state.Kept(), !nested && a.clean == nil:
		w.plan.stubs = append(w.plan.stubs, a.path)
		return nil
	case nested:
		root := place{a.liveDir.nested(id), rootInode}
		holds, err := w.holdsKept(root, a.state)
		if err != nil {
			return w.wrap(a, err)
		}
		if holds {
			return w.visitBranch(a, root)
		}
	}
	if a.clean == nil {
		w.add(a, Change{Kind: KindAdded, Mode: modeDir, act: actRemove | actStub})
		return nil
	}
	return w.bring(a, KindType, actRemove|actStub)
}

// visitBranch compares a nested subvolume that counts as a directory. Nothing is
// known of how it was when CURRENT was made, so everything in it is compared.
func (w *walker) visitBranch(a at, root place) error {
	w.plan.Branches = append(w.plan.Branches, Branch{Path: a.path, ID: root.id})
	live, err := root.read(rootInode)
	if err != nil {
		return w.wrap(a, err)
	}
	clean, err := w.readClean(a)
	if err != nil {
		return w.wrap(a, err)
	}
	a.current = nil
	if err := w.findBranchStubs(a, root.tree); err != nil {
		return w.wrap(a, err)
	}
	return w.compareDir(a, live, clean, actMetadata)
}

// findBranchStubs looks for stubs in a branch, unless a reset made it.
func (w *walker) findBranchStubs(a at, t *tree) error {
	if w.src.NoStubs {
		dir, err := openDir(w.src.Live, a.path)
		if err != nil {
			return err
		}
		defer dir.Close()
		info, err := btrfs.ReadInfo(dir)
		if err != nil || info.OTransID <= w.src.Since {
			return err
		}
	}
	return w.findStubsBelow(t, a.path)
}

func (w *walker) findStubs(t *tree) error { return w.findStubsBelow(t, "") }

// findStubsBelow looks through all directories of a subvolume for names of
// subvolumes that do not lie there: what a snapshot shows of its source's. Those
// outside kept paths the walk finds as well.
func (w *walker) findStubsBelow(t *tree, prefix string) error {
	found, err := w.subvolumeNames(t)
	if err != nil {
		return err
	}
	for _, path := range found {
		if stateAt(w.matcher, prefix+path).Kept() {
			w.plan.stubs = append(w.plan.stubs, prefix+path)
		}
	}
	return nil
}

// subvolumeEntries finds the names of subvolumes in a tree that do not lie there.
func (w *walker) subvolumeEntries(t *tree) ([]dirName, error) {
	var found []dirName
	key := btrfs.SearchKey{
		Tree: t.id,
		Min:  btrfs.Key{ObjectID: rootInode, Type: btrfs.DirIndexKey},
		Max:  btrfs.Key{ObjectID: btrfs.LastFreeID, Type: btrfs.DirIndexKey, Offset: ^uint64(0)},
	}
	err := btrfs.NewScanner(w.src.Live).Search(key, func(it btrfs.Item) error {
		if it.Type != btrfs.DirIndexKey {
			return nil
		}
		items, err := btrfs.DecodeDirItems(it.Data)
		for _, d := range items {
			at := dirName{t.id, it.ObjectID, d.Name}
			if _, nested := w.nested[at]; d.IsSubvolume() && !nested {
				found = append(found, at)
			}
		}
		return err
	})
	return found, err
}

// subvolumeNames gives the paths of subvolumeEntries from the tree's own root.
func (w *walker) subvolumeNames(t *tree) ([]string, error) {
	found, err := w.subvolumeEntries(t)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, at := range found {
		dir, err := t.path(at.dir)
		if err != nil {
			return nil, err
		}
		out = append(out, dir+"/"+at.name)
	}
	return out, nil
}
