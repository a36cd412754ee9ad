package btrfs

import "os"

// Child is a subvolume directly nested in another.
type Child struct {
	ID    uint64 // tree id
	DirID uint64 // inode of the directory in the parent that holds it
	Name  string
}

// Children lists the subvolumes that lie directly in the one with the given tree
// id, wherever in it, by the references in the root tree: a plain directory can
// not be mistaken for a subvolume, and nothing is opened. The file may be any on
// the file system.
func Children(f *os.File, id uint64) ([]Child, error) {
	var out []Child
	key := SearchKey{
		Tree: RootTreeID,
		Min:  Key{id, RootRefKey, 0},
		Max:  Key{id, RootRefKey, ^uint64(0)},
	}
	err := NewLookup(f).Search(key, func(it Item) error {
		ref, err := DecodeRootRef(it.Data)
		if err != nil {
			return err
		}
		out = append(out, Child{ID: it.Offset, DirID: ref.DirID, Name: ref.Name})
		return nil
	})
	return out, err
}
