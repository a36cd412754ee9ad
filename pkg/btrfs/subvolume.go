package btrfs

import (
	"encoding/binary"
	"errors"
	"os"
	"path"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Info is what the kernel knows of one subvolume (BTRFS_IOC_GET_SUBVOL_INFO).
type Info struct {
	ID       uint64 // tree id
	ParentID uint64 // tree id of the subvolume that holds it; 0 for the top level
	DirID    uint64 // inode of the directory that holds it
	Name     string // in that directory

	Generation uint64 // last transaction that changed it, or made a snapshot of it
	CTransID   uint64 // last transaction that changed an inode of it
	OTransID   uint64 // transaction that created it
	Created    time.Time
	Changed    time.Time // when an inode of it changed last; a snapshot has its source's

	UUID       UUID
	ParentUUID UUID // of the subvolume that it is a snapshot of, or zero
	ReadOnly   bool
}

// IsSubvolume reports whether an open directory is the root of a subvolume, as
// opposed to a plain directory or the stub of one.
func IsSubvolume(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	on, err := IsBtrfs(f)
	if err != nil || !on {
		return false, err
	}
	return st.Ino == FirstFreeID && st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// ReadInfo tells of the subvolume in which an open file lies.
func ReadInfo(f *os.File) (Info, error) {
	var a subvolInfoArgs
	if err := ioctl(f, "read subvolume info of", iocSubvolInfo, unsafe.Pointer(&a)); err != nil {
		return Info{}, err
	}
	return Info{
		ID:         a.treeID,
		ParentID:   a.parentID,
		DirID:      a.dirID,
		Name:       cString(a.name[:]),
		Generation: a.generation,
		CTransID:   a.cTransID,
		OTransID:   a.oTransID,
		Created:    time.Unix(int64(a.oTime.sec), int64(a.oTime.nsec)),
		Changed:    time.Unix(int64(a.cTime.sec), int64(a.cTime.nsec)),
		UUID:       a.uuid,
		ParentUUID: a.parentUUID,
		ReadOnly:   a.flags&rootReadOnly != 0,
	}, nil
}

// Create makes an empty subvolume called name in an open directory. It is part
// of a transaction that the caller has to sync.
func Create(dir *os.File, name string) error {
	var a volArgsV2
	return named(dir, "create subvolume", name, iocSubvolCreate2, &a)
}

// Snapshot makes a snapshot of the subvolume that src lies in, called name, in an
// open directory. It commits a transaction: when it returns, the snapshot and all
// that src held is on disk.
//
// Errors: EEXIST, ENOSPC, ETXTBSY when src has an active swap file, EROFS.
func Snapshot(src, dir *os.File, name string, readOnly bool) error {
	a := volArgsV2{fd: int64(src.Fd())}
	if readOnly {
		a.flags |= subvolReadOnly
	}
	return named(dir, "create snapshot", name, iocSnapCreateV2, &a)
}

// Destroy deletes the subvolume called name in an open directory. Its space comes
// back in the background; a crash before the next commit brings it back.
//
// Errors: ENOTEMPTY when another subvolume is nested in it, EPERM when it is the
// default subvolume, EBUSY when it is mounted or being sent.
func Destroy(dir *os.File, name string) error {
	var a volArgsV2
	return named(dir, "destroy subvolume", name, iocSnapDestroyV2, &a)
}

// named runs an ioctl that takes a name in a directory.
func named(dir *os.File, op, name string, number uintptr, a *volArgsV2) error {
	if err := CheckName(name); err != nil {
		return err
	}
	copy(a.name[:], name)
	err := ioctl(dir, op, number, unsafe.Pointer(a))
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		pathErr.Path = path.Join(dir.Name(), name)
	}
	return err
}

// DestroyByID deletes a subvolume by its tree id, wherever it lies below the
// mount point that mount is open on (BTRFS_SUBVOL_SPEC_BY_ID). Errors as Destroy.
func DestroyByID(mount *os.File, id uint64) error {
	a := volArgsV2{flags: subvolByID}
	binary.NativeEndian.PutUint64(a.name[:8], id)
	return ioctl(mount, "destroy subvolume by id below", iocSnapDestroyV2, unsafe.Pointer(&a))
}

// ReadOnly reports whether the subvolume of which f is the root is read-only.
func ReadOnly(f *os.File) (bool, error) {
	var flags uint64
	if err := ioctl(f, "read subvolume flags of", iocSubvolFlags, unsafe.Pointer(&flags)); err != nil {
		return false, err
	}
	return flags&subvolReadOnly != 0, nil
}

// SetReadOnly sets or clears the read-only flag of the subvolume of which f is
// the root. A change commits a transaction; no change costs nothing.
func SetReadOnly(f *os.File, readOnly bool) error {
	var flags uint64
	if err := ioctl(f, "read subvolume flags of", iocSubvolFlags, unsafe.Pointer(&flags)); err != nil {
		return err
	}
	want := flags &^ subvolReadOnly
	if readOnly {
		want |= subvolReadOnly
	}
	if want == flags {
		return nil
	}
	return ioctl(f, "set subvolume flags of", iocSubvolSetFlag, unsafe.Pointer(&want))
}

// DefaultID gives the tree id of the subvolume that is mounted when no option
// names one; TopLevelID if none was ever set.
func DefaultID(mount *os.File) (uint64, error) {
	id := uint64(TopLevelID)
	const rootTreeDir = 6 // BTRFS_ROOT_TREE_DIR_OBJECTID
	key := SearchKey{
		Tree: RootTreeID,
		Min:  Key{rootTreeDir, DirItemKey, 0},
		Max:  Key{rootTreeDir, DirItemKey, ^uint64(0)},
	}
	err := NewSearcher(mount, smallBuffer).Search(key, func(it Item) error {
		entries, err := DecodeDirItems(it.Data)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Name == "default" {
				id = e.Location.ObjectID
			}
		}
		return nil
	})
	return id, err
}

// SetDefault makes a subvolume the one that is mounted when no option names one.
func SetDefault(mount *os.File, id uint64) error {
	return ioctl(mount, "set default subvolume of", iocDefaultSubvol, unsafe.Pointer(&id))
}
