package btrfs

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LookupInode gives the path of a directory's inode from the root of its tree,
// without a trailing slash and empty for the root itself (BTRFS_IOC_INO_LOOKUP;
// tree 0 is the open file's). A path of more than 4,079 bytes is ENAMETOOLONG.
func LookupInode(f *os.File, tree, inode uint64) (string, error) {
	a := inoLookupArgs{treeID: tree, objectID: inode}
	if err := ioctl(f, "look up inode in", iocInoLookup, unsafe.Pointer(&a)); err != nil {
		return "", err
	}
	name := cString(a.name[:])
	if n := len(name); n > 0 && name[n-1] == '/' {
		name = name[:n-1]
	}
	return name, nil
}

// InodePaths gives the names of an inode of the open file's subvolume, as paths
// from its root (BTRFS_IOC_INO_PATHS). All of them: the buffer grows until
// nothing is missed.
func InodePaths(f *os.File, inode uint64) ([]string, error) {
	for size := 4 << 10; ; size *= 4 {
		buf := make([]uint64, size/8)
		a := inoPathArgs{inum: inode, size: uint64(size), fspath: uint64(uintptr(unsafe.Pointer(&buf[0])))}
		if err := ioctl(f, "read paths of inode in", iocInoPaths, unsafe.Pointer(&a)); err != nil {
			return nil, err
		}
		head := (*dataContainer)(unsafe.Pointer(&buf[0]))
		if head.missed > 0 && size < 16<<20 {
			continue
		}
		if head.missed > 0 {
			return nil, &os.PathError{Op: "read paths of inode in", Path: f.Name(), Err: unix.EOVERFLOW}
		}
		values := buf[unsafe.Sizeof(dataContainer{})/8:]
		data := unsafe.Slice((*byte)(unsafe.Pointer(&values[0])), len(values)*8)
		var out []string
		for i := range head.elements {
			// Each value is the offset of a path from the start of the values.
			at := binary.NativeEndian.Uint64(data[8*i:])
			out = append(out, cString(data[at:]))
		}
		return out, nil
	}
}

// Flags of FS_IOC_GETFLAGS (linux/fs.h) that btrfs knows.
const (
	FlagCompress   = 0x00000004
	FlagSync       = 0x00000008
	FlagImmutable  = 0x00000010
	FlagAppend     = 0x00000020
	FlagNoDump     = 0x00000040
	FlagNoAtime    = 0x00000080
	FlagNoCompress = 0x00000400
	FlagDirSync    = 0x00010000
	FlagNoCOW      = 0x00800000

	// FlagsSettable are the flags that btrfs lets FS_IOC_SETFLAGS change.
	FlagsSettable = FlagCompress | FlagSync | FlagImmutable | FlagAppend | FlagNoDump |
		FlagNoAtime | FlagNoCompress | FlagDirSync | FlagNoCOW
)

// Flags reads the flags that chattr shows, FlagsSettable alone.
func Flags(f *os.File) (uint32, error) {
	var flags uint32
	err := ioctl(f, "read flags of", unix.FS_IOC_GETFLAGS, unsafe.Pointer(&flags))
	return flags & FlagsSettable, err
}

// SetFlags replaces the flags that chattr shows.
func SetFlags(f *os.File, flags uint32) error {
	return ioctl(f, "set flags of", unix.FS_IOC_SETFLAGS, unsafe.Pointer(&flags))
}

// Clone makes dst, an empty regular file, share all of src's extents (FICLONE).
//
// Errors: EINVAL when one of them is NOCOW and the other is not, EOPNOTSUPP,
// EXDEV.
func Clone(dst, src *os.File) error {
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		return &os.PathError{Op: "clone to", Path: dst.Name(), Err: err}
	}
	return nil
}
