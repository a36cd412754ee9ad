package reset

import (
	"errors"
	"fmt"
	"os"

	"nixos-go/pkg/btrfs"
)

// selection is what is to be restored at a path and below: the children named, or
// with nil in its place everything.
type selection struct{ below map[string]*selection }

// selectPaths makes one selection of paths; a path takes in those below it.
func selectPaths(paths []string) (*selection, error) {
	root := &selection{below: map[string]*selection{}}
	for _, path := range paths {
		names := splitComponents(path)
		if len(names) == 0 {
			return nil, errors.New("a whole volume is restored at boot: choose \"restore previous\" in the boot menu")
		}
		if reservedName(names[0]) {
			return nil, fmt.Errorf("%q is the toolkit's own", path)
		}
		at := root
		for i, name := range names {
			next, known := at.below[name]
			if known && next == nil {
				break // a path above it takes it in
			}
			if i == len(names)-1 {
				at.below[name] = nil
				break
			}
			if !known {
				next = &selection{below: map[string]*selection{}}
				at.below[name] = next
			}
			at = next
		}
	}
	return root, nil
}

// restoreTree is a volume with all that is nested in it.
type restoreTree struct {
	*tree

	nested map[dirName]uint64
}

func newRestoreTree(root *os.File) (*restoreTree, error) {
	info, err := btrfs.ReadInfo(root)
	if err != nil {
		return nil, err
	}
	t := &restoreTree{tree: newTree(root, info.ID), nested: map[dirName]uint64{}}
	for list := []uint64{info.ID}; len(list) > 0; list = list[1:] {
		children, err := btrfs.Children(root, list[0])
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			t.nested[dirName{list[0], c.DirID, c.Name}] = c.ID
			list = append(list, c.ID)
		}
	}
	return t, nil
}

// thing is what stands at a path in a tree: its inode, and the place of its entries if
// it is a directory.
type thing struct {
	*inode

	place  place
	nested bool // the root of a nested subvolume
}

func (t *restoreTree) at(number uint64) *thing {
	root := &inode{number: number}
	root.Mode = modeDir
	return &thing{inode: root, place: place{t.tree, number}}
}

// lookup reads what an entry of a directory names. Of a stub the inode says so.
func (t *restoreTree) lookup(dir place, e *entry) (*thing, error) {
	if !e.subvolume {
		n, err := dir.read(e.inode)
		if err != nil {
			return nil, err
		}
		return &thing{inode: n, place: place{dir.tree, e.inode}}, nil
	}
	id, nested := t.nested[dirName{dir.id, dir.dir, e.name}]
	if !nested {
		stub := &inode{number: btrfs.EmptyDirID, stub: true}
		stub.Mode = modeDir | 0o755
		return &thing{inode: stub}, nil
	}
	at := place{dir.nested(id), rootInode}
	n, err := at.read(rootInode)
	if err != nil {
		return nil, err
	}
	return &thing{inode: n, place: at, nested: true}, nil
}

// find looks a name up; nil if there is none.
func (t *restoreTree) find(dir place, name string) (*thing, error) {
	e, err := dir.find(dir.dir, name)
	if err != nil || e == nil {
		return nil, err
	}
	return t.lookup(dir, e)
}
