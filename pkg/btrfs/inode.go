package btrfs

import (
	"os"
	"path"
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
// from its root: all of them, by the references in the tree (BTRFS_IOC_INO_PATHS
// answers with 4,096 bytes at most). Names inside a nested subvolume are not of this
// one. An inode that is not there is ENOENT.
func InodePaths(f *os.File, inode uint64) ([]string, error) {
	if inode == FirstFreeID {
		return []string{""}, nil
	}
	var refs []InodeRef
	key := SearchKey{Min: Key{inode, InodeRefKey, 0}, Max: Key{inode, InodeExtrefKey, ^uint64(0)}}
	err := NewLookup(f).Search(key, func(it Item) error {
		more, err := DecodeInodeRefs(it.Key, it.Data)
		refs = append(refs, more...)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(refs) == 0 {
		return nil, &os.PathError{Op: "read paths of inode in", Path: f.Name(), Err: unix.ENOENT}
	}
	folders := map[uint64]string{}
	out := make([]string, 0, len(refs))
	for _, ref := range refs {
		folder, known := folders[ref.Parent]
		if !known {
			if folder, err = LookupInode(f, 0, ref.Parent); err != nil {
				return nil, err
			}
			folders[ref.Parent] = folder
		}
		out = append(out, path.Join(folder, ref.Name))
	}
	return out, nil
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
