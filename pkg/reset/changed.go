package reset

import (
	"errors"

	"nixos-go/pkg/btrfs"
)

// markChanges finds the inodes outside kept paths that a transaction after CURRENT
// touched, and marks each directory above them. Editing a file does not touch its
// parents, so they are reached through the inode's references. The kernel skips
// what is older; inodes that are new since CURRENT lie in directories that changed.
func (w *walker) markChanges() error {
	changed, changedDirs, err := w.searchChanged(w.src.Outside)
	if err != nil {
		return err
	}
	for _, number := range append(changed, w.src.Shared...) {
		if err := w.mark(number); err != nil {
			return err
		}
	}
	for _, dir := range changedDirs {
		if err := w.markMovedIn(dir); err != nil && !w.tolerates(err) {
			return err
		}
	}
	return nil
}

// searchChanged finds the inodes in ranges that a transaction after CURRENT touched,
// and which of them are directories.
func (w *walker) searchChanged(ranges []Range) (changed, dirs []uint64, err error) {
	w.marked, w.parents = map[uint64]bool{}, map[uint64]uint64{}
	for _, r := range ranges {
		key := btrfs.SearchKey{
			Tree:       w.live.id,
			Min:        btrfs.Key{ObjectID: r.First, Type: btrfs.InodeItemKey},
			Max:        btrfs.Key{ObjectID: r.Last, Type: btrfs.InodeItemKey},
			MinTransID: w.src.Since + 1,
		}
		err := w.live.scan.Search(key, func(it btrfs.Item) error {
			if it.Type == btrfs.InodeRefKey {
				return w.noteParent(it)
			}
			if it.Type != btrfs.InodeItemKey {
				return nil
			}
			n, err := btrfs.DecodeInodeItem(it.Data)
			if err == nil && n.TransID > w.src.Since {
				changed = append(changed, it.ObjectID)
				if n.Links == 1 {
					w.parents[it.ObjectID] = 0
				}
				if n.Mode&modeType == modeDir {
					dirs = append(dirs, it.ObjectID)
				}
			}
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return changed, dirs, nil
}

// noteParent notes the directory of an inode with one name, if it is one that changed
// and the search came past its reference.
func (w *walker) noteParent(it btrfs.Item) error {
	if _, single := w.parents[it.ObjectID]; !single {
		return nil
	}
	refs, err := btrfs.DecodeInodeRefs(it.Key, it.Data)
	if err == nil && len(refs) == 1 && it.ObjectID != rootInode {
		w.parents[it.ObjectID] = refs[0].Parent
	}
	return err
}

// markMovedIn marks the inodes with several names in a directory that was outside
// kept paths and lies at or below a kept one now: names of theirs that are still
// outside may not share an inode with it, and nothing about them has changed.
func (w *walker) markMovedIn(dir uint64) error {
	path, err := w.live.path(dir)
	if errors.Is(err, errNoInode) || err == nil && !stateAt(w.matcher, path).Kept() {
		return nil
	}
	if err != nil {
		return err
	}
	for todo := []uint64{dir}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		entries, err := w.live.entries(at)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.subvolume {
				continue
			}
			n, err := w.live.read(e.inode)
			switch {
			case err != nil:
				return err
			case n.isDir():
				todo = append(todo, e.inode)
			case n.Links > 1:
				if err := w.mark(e.inode); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// mark marks an inode and the directories above all of its names.
func (w *walker) mark(number uint64) error {
	todo := []uint64{number}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if w.marked[at] {
			continue
		}
		w.marked[at] = true
		if parent := w.parents[at]; parent != 0 {
			todo = append(todo, parent)
			continue
		}
		refs, err := w.live.refs(at)
		if err != nil {
			return err
		}
		for _, ref := range refs {
			if ref.Parent != at { // the root refers to itself
				todo = append(todo, ref.Parent)
			}
		}
	}
	return nil
}
