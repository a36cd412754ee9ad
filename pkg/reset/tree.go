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

	fetched map[uint64]*inode // read ahead, until they are asked for
}

// rootInode is the inode of every subvolume's root directory.
const rootInode = btrfs.FirstFreeID

// newTree reads the subvolume of which root is the open root directory.
func newTree(root *os.File, id uint64) *tree {
	return &tree{
		id: id, top: true, root: root,
		lookup:  btrfs.NewLookup(root),
		scan:    btrfs.NewSearcher(root, 64<<10),
		fetched: map[uint64]*inode{},
	}
}

// nested reads another subvolume through the same descriptor and buffers.
func (t *tree) nested(id uint64) *tree {
	n := *t
	n.id, n.top = id, false
	n.fetched = map[uint64]*inode{}
	return &n
}

// entry is one name in a directory.
type entry struct {
	name      string
	inode     uint64 // or the tree id, of a subvolume
	index     uint64 // position in the directory; 0 when looked up by name
	transID   uint64 // transaction that gave the name
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
				name: d.Name, inode: d.Location.ObjectID, index: it.Offset, transID: d.TransID, subvolume: d.IsSubvolume(),
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
				found = &entry{name: name, inode: d.Location.ObjectID, transID: d.TransID, subvolume: d.IsSubvolume()}
			}
		}
		return nil
	})
	return found, err
}

// inode is all that section 4 of the design calls "exactly", but for content and
// names.
type inode struct {
	btrfs.InodeItem

	number uint64
	xattrs []btrfs.DirItem // sorted by name
	// stub marks the stand-in of a nested subvolume in CLEAN, which counts as an
	// empty directory, 0755 root, whose time nobody knows.
	stub bool
}

func (n *inode) kind() uint32 { return n.Mode & unix.S_IFMT }
func (n *inode) isDir() bool  { return n.kind() == unix.S_IFDIR }

var errNoInode = errors.New("no such inode")

// fewLinks is how many names of an inode a search for something else passes by. An
// inode can have 65,535, and each of them may lead here.
const fewLinks = 16

// read reads one inode.
func (t *tree) read(number uint64) (*inode, error) {
	if n := t.fetched[number]; n != nil {
		delete(t.fetched, number)
		return n, nil
	}
	n := &inode{number: number}
	found, many := false, false
	key := btrfs.SearchKey{
		Tree: t.id,
		Min:  btrfs.Key{ObjectID: number, Type: btrfs.InodeItemKey},
		Max:  btrfs.Key{ObjectID: number, Type: btrfs.XattrItemKey, Offset: ^uint64(0)},
	}
	err := t.lookup.Search(key, func(it btrfs.Item) error {
		err := n.add(it)
		if err != nil || it.Type != btrfs.InodeItemKey {
			return err
		}
		found, many = true, n.Links > fewLinks
		if many {
			return btrfs.ErrStop
		}
		return nil
	})
	if err == nil && many {
		key.Min = btrfs.Key{ObjectID: number, Type: btrfs.XattrItemKey}
		err = t.lookup.Search(key, n.add)
	}
	if err == nil && !found {
		err = errNoInode
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", number, err)
	}
	n.sortXattrs()
	return n, nil
}

// add takes one item of the inode in.
func (n *inode) add(it btrfs.Item) (err error) {
	switch it.Type {
	case btrfs.InodeItemKey:
		n.InodeItem, err = btrfs.DecodeInodeItem(it.Data)
	case btrfs.XattrItemKey:
		var attrs []btrfs.DirItem
		attrs, err = btrfs.DecodeDirItems(slices.Clone(it.Data))
		n.xattrs = append(n.xattrs, attrs...)
	}
	return err
}

func (n *inode) sortXattrs() {
	sortBy(n.xattrs, strings.Compare, func(x *btrfs.DirItem) string { return x.Name })
}

// Bounds of reading ahead: inodes at most so far apart are read in one search, and a
// search that meets so many items for each of them is given up, since large
// directories or files lie between. An inode with more bytes of attributes is not
// held, nor are more than so many inodes.
const (
	fetchGap    = 8
	fetchItems  = 32
	fetchXattrs = 1024
	fetchMost   = 4096
)

// fetch reads inodes ahead, runs of near ones with one search each. It is worth it
// where a directory's entries were made one after another. What it cannot read in
// this way is left to read.
func (t *tree) fetch(numbers []uint64) error {
	if len(t.fetched) > fetchMost {
		clear(t.fetched)
	}
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	for len(numbers) > 0 {
		run := 1
		for run < len(numbers) && run < fetchMost && numbers[run]-numbers[run-1] <= fetchGap {
			run++
		}
		if run > 1 {
			if err := t.fetchRun(numbers[:run]); err != nil {
				return err
			}
		}
		numbers = numbers[run:]
	}
	return nil
}

func (t *tree) fetchRun(numbers []uint64) error {
	key := btrfs.SearchKey{
		Tree: t.id,
		Min:  btrfs.Key{ObjectID: numbers[0], Type: btrfs.InodeItemKey},
		Max:  btrfs.Key{ObjectID: numbers[len(numbers)-1], Type: btrfs.XattrItemKey, Offset: ^uint64(0)},
	}
	got := make(map[uint64]*inode, len(numbers))
	var last *inode
	items, xattrs := 0, 0
	err := t.scan.Search(key, func(it btrfs.Item) error {
		if items++; items > fetchItems*len(numbers) {
			delete(got, it.ObjectID) // not read to its end
			return btrfs.ErrStop
		}
		if it.Type == btrfs.InodeItemKey {
			last, xattrs = &inode{number: it.ObjectID}, 0
			got[it.ObjectID] = last
		}
		if last == nil || last.number != it.ObjectID {
			return nil
		}
		if it.Type == btrfs.XattrItemKey {
			if xattrs += len(it.Data); xattrs > fetchXattrs {
				delete(got, it.ObjectID)
				last = nil
				return nil
			}
		}
		return last.add(it)
	})
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if n := got[number]; n != nil {
			n.sortXattrs()
			t.fetched[number] = n
		}
	}
	return nil
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
// the root, by going up the references.
func (t *tree) path(dir uint64) (string, error) {
	if dir == rootInode {
		return "", nil
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
	return "/" + strings.Join(names, "/"), nil
}

// extent is one stretch of a file's data, holes left out.
type extent struct {
	btrfs.FileExtent

	at     uint64
	inline string
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
