package btrfs

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Key names one item of a tree; items are ordered by it, field by field.
type Key struct {
	ObjectID uint64
	Type     uint8
	Offset   uint64
}

// next is the least key that is greater, and false after the last of all.
func (k Key) next() (Key, bool) {
	switch {
	case k.Offset != ^uint64(0):
		k.Offset++
	case k.Type != 255:
		k.Type, k.Offset = k.Type+1, 0
	case k.ObjectID != ^uint64(0):
		k = Key{ObjectID: k.ObjectID + 1}
	default:
		return k, false
	}
	return k, true
}

// less orders keys as the tree does.
func (k Key) less(o Key) bool {
	if k.ObjectID != o.ObjectID {
		return k.ObjectID < o.ObjectID
	}
	if k.Type != o.Type {
		return k.Type < o.Type
	}
	return k.Offset < o.Offset
}

// SearchKey says which items of which tree a search visits.
type SearchKey struct {
	Tree     uint64 // tree id; 0 is the subvolume of the open file
	Min, Max Key    // inclusive, in the order of the tree

	// MinTransID skips every leaf, and every subtree, that no transaction from
	// this one on has written. Items in the leaves that remain may be older.
	MinTransID uint64
}

// Item is one item that a search found. Data is valid during the visit only.
type Item struct {
	Key

	LeafTransID uint64 // the transaction that last wrote the leaf
	Data        []byte
}

// ErrStop is what a visit returns to end a search early and without an error.
var ErrStop = errors.New("stop the search")

// Buffer sizes: the kernel touches the whole buffer for each leaf, so a lookup
// wants a small one and a scan a large one.
const (
	smallBuffer = 8 << 10
	scanBuffer  = 512 << 10
)

// Searcher runs tree searches (BTRFS_IOC_TREE_SEARCH_V2) with one buffer, which
// grows when an item does not fit. It is for one goroutine, and a visit must not
// search with the Searcher that called it.
//
// The kernel searches the tree as it is in memory, but inode and directory items
// can still be on their way into it: sync first where the volume is in use.
type Searcher struct {
	f      *os.File
	buffer []uint64 // searchArgsV2, then the items; 8-byte aligned
}

// NewSearcher makes a Searcher with a buffer of size bytes on the file system (and
// for tree 0, the subvolume) of an open file, which stays the caller's.
func NewSearcher(f *os.File, size int) *Searcher {
	s := &Searcher{f: f}
	s.grow(size)
	return s
}

// NewScanner is a Searcher with a large buffer, for scans over many items.
func NewScanner(f *os.File) *Searcher { return NewSearcher(f, scanBuffer) }

// NewLookup is a Searcher with a small buffer, for single items.
func NewLookup(f *os.File) *Searcher { return NewSearcher(f, smallBuffer) }

func (s *Searcher) grow(size int) {
	s.buffer = make([]uint64, (int(unsafe.Sizeof(searchArgsV2{}))+size+7)/8)
}

// Search visits the items that key describes, in order.
func (s *Searcher) Search(key SearchKey, visit func(Item) error) error {
	from := key.Min
	for {
		count, err := s.fill(key, from)
		if err != nil {
			return err
		}
		if count == 0 {
			return nil
		}
		last, err := s.visitAll(count, visit)
		if errors.Is(err, ErrStop) {
			return nil
		}
		if err != nil {
			return err
		}
		next, more := last.next()
		if !more || key.Max.less(next) {
			return nil
		}
		from = next
	}
}

// fill asks the kernel for the next items and gives their number.
func (s *Searcher) fill(key SearchKey, from Key) (uint32, error) {
	for {
		head := unsafe.Sizeof(searchArgsV2{})
		args := (*searchArgsV2)(unsafe.Pointer(&s.buffer[0]))
		*args = searchArgsV2{
			key: searchKey{
				treeID:      key.Tree,
				minObjectID: from.ObjectID, maxObjectID: key.Max.ObjectID,
				minType: uint32(from.Type), maxType: uint32(key.Max.Type),
				minOffset: from.Offset, maxOffset: key.Max.Offset,
				minTransID: key.MinTransID, maxTransID: ^uint64(0),
				items: ^uint32(0),
			},
			bufSize: uint64(len(s.buffer))*8 - uint64(head),
		}
		err := ioctl(s.f, "search tree of", iocTreeSearchV2, unsafe.Pointer(args))
		if errors.Is(err, unix.EOVERFLOW) {
			s.grow(int(args.bufSize) + smallBuffer) // the kernel says what the item needs
			continue
		}
		return args.key.items, err
	}
}

// visitAll hands out the items in the buffer and gives the last one's key.
func (s *Searcher) visitAll(count uint32, visit func(Item) error) (Key, error) {
	data := unsafe.Slice((*byte)(unsafe.Pointer(&s.buffer[0])), len(s.buffer)*8)
	data = data[unsafe.Sizeof(searchArgsV2{}):]
	var last Key
	for range count {
		var h searchHeader
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), unsafe.Sizeof(h)), data)
		data = data[unsafe.Sizeof(h):]
		last = Key{h.objectID, uint8(h.itemType), h.offset}
		if err := visit(Item{Key: last, LeafTransID: h.transID, Data: data[:h.length:h.length]}); err != nil {
			return last, err
		}
		data = data[h.length:]
	}
	return last, nil
}
