package reset

import "nixos-go/pkg/btrfs"

// markChanges finds the inodes outside kept paths that a transaction after CURRENT
// touched, and marks each directory above them. Editing a file does not touch its
// parents, so they are reached through the inode's references. The kernel skips
// what is older; inodes that are new since CURRENT lie in directories that changed.
func (w *walker) markChanges() error {
	w.marked = map[uint64]bool{}
	var changed []uint64
	for _, r := range w.src.Outside {
		key := btrfs.SearchKey{
			Tree:       w.live.id,
			Min:        btrfs.Key{ObjectID: r.First, Type: btrfs.InodeItemKey},
			Max:        btrfs.Key{ObjectID: r.Last, Type: btrfs.InodeItemKey},
			MinTransID: w.src.Since + 1,
		}
		err := w.live.scan.Search(key, func(it btrfs.Item) error {
			if it.Type != btrfs.InodeItemKey {
				return nil
			}
			n, err := btrfs.DecodeInodeItem(it.Data)
			if err == nil && n.TransID > w.src.Since {
				changed = append(changed, it.ObjectID)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, number := range changed {
		if err := w.mark(number); err != nil {
			return err
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
