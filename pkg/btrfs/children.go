package btrfs

import (
	"encoding/binary"
	"fmt"
	"os"
)

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

// Generation gives the last transaction that changed the subvolume with the given
// tree id, or made a snapshot of it, without opening it.
func Generation(f *os.File, id uint64) (uint64, error) {
	const generationAt = 160 // after the inode item in struct btrfs_root_item
	generation, found := uint64(0), false
	key := SearchKey{
		Tree: RootTreeID,
		Min:  Key{id, RootItemKey, 0},
		Max:  Key{id, RootItemKey, ^uint64(0)},
	}
	err := NewLookup(f).Search(key, func(it Item) error {
		if len(it.Data) < generationAt+8 {
			return fmt.Errorf("root item of %d bytes: %w", len(it.Data), ErrItem)
		}
		generation, found = binary.LittleEndian.Uint64(it.Data[generationAt:]), true
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("subvolume %d: %w", id, os.ErrNotExist)
	}
	return generation, err
}
