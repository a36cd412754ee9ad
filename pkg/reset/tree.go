package reset

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// tree reads one subvolume by searching its b-tree: nothing is opened, so no name
// on disk can lead elsewhere, block, or be too deep. It is for one goroutine.
type tree struct {
	id     uint64 // tree id
	top    bool   // the volume itself, in whose root the toolkit has names of its own
	root   *os.File
	lookup *btrfs.Searcher
	scan   *btrfs.Searcher
}

// rootInode is the inode of every subvolume's root directory.
const rootInode = btrfs.FirstFreeID

// newTree reads the subvolume of which root is the open root directory.
func newTree(root *os.File, id uint64) *tree {
	return &tree{
		id: id, top: true, root: root,
		lookup: btrfs.NewLookup(root),
		scan:   btrfs.NewSearcher(root, 64<<10),
	}
}

// nested reads another subvolume through the same descriptor and buffers.
func (t *tree) nested(id uint64) *tree {
	n := *t
	n.id, n.top = id, false
	return &n
}

// entry is one name in a directory.
type entry struct {
	name      string
	inode     uint64 // or the tree id, of a subvolume
	index     uint64 // position in the directory; 0 when looked up by name
	subvolume bool   // a nested subvolume, or in a snapshot its stub
}

// same reports whether two entries name the same thing.
func (e entry) same(o entry) bool { return e.inode == o.inode && e.subvolume == o.subvolume }

// entries lists a directory in the order of creation, without the toolkit's own
// names in the volume's root.
func (t *tree) entries(dir uint64) ([]entry, error) {
	var out []entry
	key := btrfs.SearchKey{
		Tree: t.id,
		Min:  btrfs.Key{ObjectID: dir, Type: btrfs.DirIndexKey},
		Max:  btrfs.Key{ObjectID: dir, Type: btrfs.DirIndexKey, Offset: ^uint64(0)},
	}
	err := t.scan.Search(key, func(it btrfs.Item) error {
		items, err := btrfs.DecodeDirItems(it.Data)
		if err != nil {
			return fmt.Errorf("directory %d: %w", dir, err)
		}
		for _, d := range items {
			if t.top && dir == rootInode && reservedName(d.Name) {
				continue
			}
			out = append(out, entry{
				name: d.Name, inode: d.Location.ObjectID, index: it.Offset, subvolume: d.IsSubvolume(),
			})
		}
		return nil
	})
	return out, err
}

// find looks a name up in a directory; nil if there is none.
func (t *tree) find(dir uint64, name string) (*entry, error) {
	if t.top && dir == rootInode && reservedName(name) {
		return nil, nil
	}
	hash := btrfs.NameHash(name)
	key := btrfs.SearchKey{
		Tree: t.id,
		Min:  btrfs.Key{ObjectID: dir, Type: btrfs.DirItemKey, Offset: hash},
		Max:  btrfs.Key{ObjectID: dir, Type: btrfs.DirItemKey, Offset: hash},
	}
	var found *entry
	err := t.lookup.Search(key, func(it btrfs.Item) error {
		items, err := btrfs.DecodeDirItems(it.Data)
		if err != nil {
			return fmt.Errorf("directory %d: %w", dir, err)
		}
		for _, d := range items {
			if d.Name == name {
				found = &entry{name: name, inode: d.Location.ObjectID, subvolume: d.IsSubvolume()}
			}
		}
		return nil
	})
	return found, err
}

// inode is all that section 4 of the design calls "exactly", but for content.
type inode struct {
	number uint64
	btrfs.InodeItem
	xattrs []btrfs.DirItem // sorted by name
	refs   []btrfs.InodeRef
	// stub marks the stand-in of a nested subvolume in CLEAN, which counts as an
	// empty directory, 0755 root, whose time nobody knows.
	stub bool
}

func (n *inode) kind() uint32 { return n.Mode & unix.S_IFMT }
func (n *inode) isDir() bool  { return n.kind() == unix.S_IFDIR }

var errNoInode = errors.New("no such inode")

// read reads one inode.
func (t *tree) read(number uint64) (*inode, error) {
	n := &inode{number: number}
	found := false
	key := btrfs.SearchKey{
		Tree: t.id,
		Min:  btrfs.Key{ObjectID: number, Type: btrfs.InodeItemKey},
		Max:  btrfs.Key{ObjectID: number, Type: btrfs.XattrItemKey, Offset: ^uint64(0)},
	}
	err := t.lookup.Search(key, func(it btrfs.Item) (err error) {
		switch it.Type {
		case btrfs.InodeItemKey:
			found = true
			n.InodeItem, err = btrfs.DecodeInodeItem(it.Data)
		case btrfs.InodeRefKey, btrfs.InodeExtrefKey:
			var refs []btrfs.InodeRef
			refs, err = btrfs.DecodeInodeRefs(it.Key, it.Data)
			n.refs = append(n.refs, refs...)
		case btrfs.XattrItemKey:
			var attrs []btrfs.DirItem
			attrs, err = btrfs.DecodeDirItems(slices.Clone(it.Data))
			n.xattrs = append(n.xattrs, attrs...)
		}
		return err
	})
	if err == nil && !found {
		err = errNoInode
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", number, err)
	}
	slices.SortFunc(n.xattrs, func(a, b btrfs.DirItem) int { return strings.Compare(a.Name, b.Name) })
	return n, nil
}

// refs reads the names of an inode.
func (t *tree) refs(number uint64) ([]btrfs.InodeRef, error) {
	var out []btrfs.InodeRef
	key := btrfs.SearchKey{
		Tree: t.id,
		Min:  btrfs.Key{ObjectID: number, Type: btrfs.InodeRefKey},
		Max:  btrfs.Key{ObjectID: number, Type: btrfs.InodeExtrefKey, Offset: ^uint64(0)},
	}
	err := t.lookup.Search(key, func(it btrfs.Item) error {
		refs, err := btrfs.DecodeInodeRefs(it.Key, it.Data)
		out = append(out, refs...)
		return err
	})
	return out, err
}

// path gives the path of a directory's inode, beginning with a slash and empty for
// the root, by going up the references. cache may be nil.
func (t *tree) path(dir uint64, cache map[uint64]string) (string, error) {
	if dir == rootInode {
		return "", nil
	}
	if p, ok := cache[dir]; ok {
		return p, nil
	}
	var names []string
	for at := dir; at != rootInode; {
		refs, err := t.refs(at)
		if err != nil {
			return "", err
		}
		if len(refs) == 0 {
			return "", fmt.Errorf("directory %d has no name: %w", at, errNoInode)
		}
		names = append(names, refs[0].Name)
		at = refs[0].Parent
	}
	slices.Reverse(names)
	p := "/" + strings.Join(names, "/")
	if cache != nil {
		cache[dir] = p
	}
	return p, nil
}

// extent is one stretch of a file's data, holes left out.
type extent struct {
	at     uint64
	inline string
	btrfs.FileExtent
}

// extents yields the data of a file in order.
func (t *tree) extents(number uint64) iter.Seq2[extent, error] {
	return func(yield func(extent, error) bool) {
		key := btrfs.SearchKey{
			Tree: t.id,
			Min:  btrfs.Key{ObjectID: number, Type: btrfs.ExtentDataKey},
			Max:  btrfs.Key{ObjectID: number, Type: btrfs.ExtentDataKey, Offset: ^uint64(0)},
		}
		stopped := false
		// A search of its own: two of these run in step.
		err := btrfs.NewLookup(t.root).Search(key, func(it btrfs.Item) error {
			e, err := btrfs.DecodeFileExtent(it.Data)
			if err != nil {
				return fmt.Errorf("inode %d: %w", number, err)
			}
			if e.Kind != btrfs.ExtentInline && e.DiskByte == 0 {
				return nil
			}
			x := extent{at: it.Offset, inline: string(e.Inline), FileExtent: e}
			x.Inline, x.Generation = nil, 0
			if !yield(x, nil) {
				stopped = true
				return btrfs.ErrStop
			}
			return nil
		})
		if err != nil && !stopped {
			yield(extent{}, err)
		}
	}
}

func (e extent) equal(o extent) bool {
	return e.at == o.at && e.inline == o.inline && e.Kind == o.Kind && e.Compression == o.Compression &&
		e.RAMBytes == o.RAMBytes && e.DiskByte == o.DiskByte && e.DiskBytes == o.DiskBytes &&
		e.Offset == o.Offset && e.Bytes == o.Bytes
}

// firstDifference gives the offset from which the extents of two files differ, and
// false if they share all of them: then their content is the same, without a look
// at it. (A shared extent is never written in place.)
func firstDifference(a *tree, inodeA uint64, b *tree, inodeB uint64) (uint64, bool, error) {
	nextA, stopA := iter.Pull2(a.extents(inodeA))
	defer stopA()
	nextB, stopB := iter.Pull2(b.extents(inodeB))
	defer stopB()
	for {
		x, errX, okX := nextA()
		y, errY, okY := nextB()
		switch {
		case errX != nil || errY != nil:
			return 0, false, errors.Join(errX, errY)
		case !okX && !okY:
			return 0, false, nil
		case !okX:
			return y.at, true, nil
		case !okY:
			return x.at, true, nil
		case !x.equal(y):
			return min(x.at, y.at), true, nil
		}
	}
}
