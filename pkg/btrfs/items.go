package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Types of the items that this package decodes (btrfs_tree.h).
const (
	InodeItemKey   = 1
	InodeRefKey    = 12
	InodeExtrefKey = 13
	XattrItemKey   = 24
	DirItemKey     = 84
	DirIndexKey    = 96
	ExtentDataKey  = 108
	RootItemKey    = 132
	RootBackrefKey = 144
	RootRefKey     = 156
)

// Flags of an inode item that chattr can set, and the ones that it cannot
// (btrfs_tree.h, BTRFS_INODE_*).
const (
	InodeNoDataSum  = 1 << 0
	InodeNoDataCOW  = 1 << 1
	InodeNoCompress = 1 << 3
	InodePrealloc   = 1 << 4
	InodeSync       = 1 << 5
	InodeImmutable  = 1 << 6
	InodeAppend     = 1 << 7
	InodeNoDump     = 1 << 8
	InodeNoAtime    = 1 << 9
	InodeDirSync    = 1 << 10
	InodeCompress   = 1 << 11

	// InodeFlagsSettable are the flags that FS_IOC_SETFLAGS can change.
	InodeFlagsSettable = InodeNoDataCOW | InodeNoCompress | InodeSync | InodeImmutable |
		InodeAppend | InodeNoDump | InodeNoAtime | InodeDirSync | InodeCompress
)

// ErrItem says that an item is shorter than its own structure claims.
var ErrItem = errors.New("malformed tree item")

// Timespec is a time in an inode item: seconds since 1970 and nanoseconds.
type Timespec struct {
	Sec  int64
	Nsec uint32
}

// InodeItem is struct btrfs_inode_item without what no reader needs.
type InodeItem struct {
	Generation uint64 // transaction that created the inode
	TransID    uint64 // last transaction that changed it
	Size       uint64
	Links      uint32
	UID, GID   uint32
	Mode       uint32 // as st_mode
	Rdev       uint64 // in the kernel's own encoding: compare, never use
	Flags      uint64 // InodeNoDataSum and so on
	MTime      Timespec
}

// DecodeInodeItem reads struct btrfs_inode_item.
func DecodeInodeItem(b []byte) (InodeItem, error) {
	if len(b) < 160 {
		return InodeItem{}, fmt.Errorf("inode item of %d bytes: %w", len(b), ErrItem)
	}
	le := binary.LittleEndian
	return InodeItem{
		Generation: le.Uint64(b), TransID: le.Uint64(b[8:]), Size: le.Uint64(b[16:]),
		Links: le.Uint32(b[40:]), UID: le.Uint32(b[44:]), GID: le.Uint32(b[48:]),
		Mode: le.Uint32(b[52:]), Rdev: le.Uint64(b[56:]), Flags: le.Uint64(b[64:]),
		MTime: Timespec{Sec: int64(le.Uint64(b[136:])), Nsec: le.Uint32(b[144:])},
	}, nil
}

// DirItem is one struct btrfs_dir_item: a name in a directory, or an extended
// attribute with its value in Data.
type DirItem struct {
	Location Key // the inode, or with type RootItemKey the subvolume, that it names
	TransID  uint64
	Type     uint8 // BTRFS_FT_*, the d_type of getdents but for subvolumes
	Name     string
	Data     []byte // valid as long as the bytes it was decoded from
}

// IsSubvolume reports whether the name is that of a subvolume, or in a snapshot
// of its stub.
func (d DirItem) IsSubvolume() bool { return d.Location.Type == RootItemKey }

// DecodeDirItems reads one or more struct btrfs_dir_item, as items of type
// DirItemKey, DirIndexKey and XattrItemKey hold them.
func DecodeDirItems(b []byte) ([]DirItem, error) {
	const head = 30
	var out []DirItem
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < head {
			return nil, fmt.Errorf("directory item of %d bytes: %w", len(b), ErrItem)
		}
		dataLen, nameLen := int(le.Uint16(b[25:])), int(le.Uint16(b[27:]))
		if len(b) < head+nameLen+dataLen {
			return nil, fmt.Errorf("directory item of %d bytes for a name of %d and %d of data: %w", len(b), nameLen, dataLen, ErrItem)
		}
		out = append(out, DirItem{
			Location: Key{le.Uint64(b), b[8], le.Uint64(b[9:])},
			TransID:  le.Uint64(b[17:]),
			Type:     b[29],
			Name:     string(b[head : head+nameLen]),
			Data:     b[head+nameLen : head+nameLen+dataLen],
		})
		b = b[head+nameLen+dataLen:]
	}
	return out, nil
}

// InodeRef is one name of an inode.
type InodeRef struct {
	Parent uint64 // inode of the directory
	Index  uint64 // the offset of its DirIndexKey item there
	Name   string
}

// DecodeInodeRefs reads the names in an item of type InodeRefKey, whose key gives
// the parent, or InodeExtrefKey.
func DecodeInodeRefs(key Key, b []byte) ([]InodeRef, error) {
	head := 10
	if key.Type == InodeExtrefKey {
		head = 18
	}
	var out []InodeRef
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < head {
			return nil, fmt.Errorf("inode reference of %d bytes: %w", len(b), ErrItem)
		}
		parent, rest := key.Offset, b
		if key.Type == InodeExtrefKey {
			parent, rest = le.Uint64(b), b[8:]
		}
		nameLen := int(le.Uint16(rest[8:]))
		if len(b) < head+nameLen {
			return nil, fmt.Errorf("inode reference of %d bytes for a name of %d: %w", len(b), nameLen, ErrItem)
		}
		out = append(out, InodeRef{Parent: parent, Index: le.Uint64(rest), Name: string(b[head : head+nameLen])})
		b = b[head+nameLen:]
	}
	return out, nil
}

// Kinds of a file extent (BTRFS_FILE_EXTENT_*).
const (
	ExtentInline   = 0
	ExtentRegular  = 1
	ExtentPrealloc = 2
)

// FileExtent is struct btrfs_file_extent_item.
type FileExtent struct {
	Generation  uint64
	RAMBytes    uint64
	Compression uint8
	Kind        uint8
	Inline      []byte // of an inline extent; valid as long as the bytes it was decoded from

	DiskByte  uint64 // 0 is a hole
	DiskBytes uint64
	Offset    uint64 // into the extent once decompressed
	Bytes     uint64
}

// DecodeFileExtent reads struct btrfs_file_extent_item.
func DecodeFileExtent(b []byte) (FileExtent, error) {
	const inlineAt, whole = 21, 53
	if len(b) < inlineAt {
		return FileExtent{}, fmt.Errorf("file extent of %d bytes: %w", len(b), ErrItem)
	}
	le := binary.LittleEndian
	e := FileExtent{Generation: le.Uint64(b), RAMBytes: le.Uint64(b[8:]), Compression: b[16], Kind: b[20]}
	if e.Kind == ExtentInline {
		e.Inline = b[inlineAt:]
		e.Bytes = e.RAMBytes
		return e, nil
	}
	if len(b) < whole {
		return FileExtent{}, fmt.Errorf("file extent of %d bytes: %w", len(b), ErrItem)
	}
	e.DiskByte, e.DiskBytes = le.Uint64(b[21:]), le.Uint64(b[29:])
	e.Offset, e.Bytes = le.Uint64(b[37:]), le.Uint64(b[45:])
	return e, nil
}

// RootRef is struct btrfs_root_ref: where a subvolume lies in its parent.
type RootRef struct {
	DirID uint64 // inode of the directory in the parent
	Name  string
}

// DecodeRootRef reads struct btrfs_root_ref.
func DecodeRootRef(b []byte) (RootRef, error) {
	const head = 18
	if len(b) < head {
		return RootRef{}, fmt.Errorf("root reference of %d bytes: %w", len(b), ErrItem)
	}
	le := binary.LittleEndian
	nameLen := int(le.Uint16(b[16:]))
	if len(b) < head+nameLen {
		return RootRef{}, fmt.Errorf("root reference of %d bytes for a name of %d: %w", len(b), nameLen, ErrItem)
	}
	return RootRef{DirID: le.Uint64(b), Name: string(b[head : head+nameLen])}, nil
}

// NameHash is the offset of the DirItemKey item that holds a name (btrfs_name_hash:
// CRC-32C from the seed ~1, not inverted at the end).
func NameHash(name string) uint64 {
	return uint64(^crc32.Update(1, crc32.MakeTable(crc32.Castagnoli), []byte(name)))
}
