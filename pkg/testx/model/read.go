package model

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

const (
	subvolumeInode = 256 // BTRFS_FIRST_FREE_OBJECTID, of each subvolume's root
	stubInode      = 2   // BTRFS_EMPTY_SUBVOL_DIR_OBJECTID
)

// Read reads the volume mounted at, or found below a mount point at, root. What
// belongs to the reset itself in the root, .boot-ready and .immutability-trash,
// is left out. Nothing is followed, and depth has no limit but that of open
// files. Access times change unless the file system is mounted noatime.
func Read(root string) (Tree, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}

	dir := os.NewFile(uintptr(fd), root)
	defer dir.Close()

	r := &reader{tree: Tree{}}

	e, err := r.entry(fd, ".")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}

	// The root is the volume, not something nested in it.
	e.Subvolume, e.ReadOnly, e.UUID, e.Inode = false, false, "", ""
	r.tree[""] = e

	if err := r.below(dir, ""); err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}

	return r.tree, nil
}

type reader struct{ tree Tree }

// below reads what is in an open directory.
func (r *reader) below(dir *os.File, path string) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}

	for _, name := range names {
		at := name
		if path != "" {
			at = path + "/" + name
		} else if name == ".boot-ready" || name == ".immutability-trash" {
			continue
		}

		e, err := r.entry(int(dir.Fd()), name)
		if err != nil {
			return fmt.Errorf("%q: %w", at, err)
		}

		r.tree[at] = e

		if !e.IsDir() {
			continue
		}

		sub, err := open(int(dir.Fd()), name)
		if err != nil {
			return fmt.Errorf("%q: %w", at, err)
		}

		err = r.below(sub, at)
		_ = sub.Close() // read only

		if err != nil {
			return err
		}
	}

	return nil
}

// entry reads all about one name in an open directory, but for what is below.
func (r *reader) entry(dirfd int, name string) (Entry, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Entry{}, &os.PathError{Op: "openat", Path: name, Err: err}
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Entry{}, &os.PathError{Op: "fstat", Path: name, Err: err}
	}

	e := Entry{
		Type: st.Mode & unix.S_IFMT,
		Mode: st.Mode &^ unix.S_IFMT,
		UID:  st.Uid, GID: st.Gid,
		MTime: st.Mtim.Nano(),
	}

	if e.Xattrs, err = xattrs(fd); err != nil {
		return Entry{}, err
	}

	switch e.Type {
	case unix.S_IFDIR:
		err = readDirectory(&e, dirfd, name, st.Ino)

		return e, err
	case unix.S_IFREG:
		err = readFile(&e, dirfd, name)
	case unix.S_IFLNK:
		e.Target, err = readlink(fd)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Rdev = st.Rdev
	}

	if st.Nlink > 1 {
		e.Inode = fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}

	return e, err
}

func readDirectory(e *Entry, dirfd int, name string, inode uint64) error {
	if inode == stubInode {
		// It has no flags, and for a time that of its first use since the mount.
		e.Stub, e.MTime = true, 0

		return nil
	}

	dir, err := open(dirfd, name)
	if err != nil {
		return err
	}
	defer dir.Close()

	if inode == subvolumeInode {
		info, err := btrfs.ReadInfo(dir)
		if err != nil {
			return err
		}

		e.Subvolume, e.ReadOnly, e.UUID = true, info.ReadOnly, info.UUID.String()
	}

	e.Flags, err = btrfs.Flags(dir)

	return err
}

func readFile(e *Entry, dirfd int, name string) error {
	file, err := open(dirfd, name)
	if err != nil {
		return err
	}
	defer file.Close()

	if e.Flags, err = btrfs.Flags(file); err != nil {
		return err
	}

	h := sha256.New()
	if e.Size, err = io.Copy(h, file); err != nil {
		return err
	}

	h.Sum(e.Hash[:0])

	return nil
}

// open opens a regular file or a directory.
func open(dirfd int, name string) (*os.File, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}

	return os.NewFile(uintptr(fd), name), nil
}

// procPath names what an O_PATH descriptor stands for, a symlink itself
// included, to calls that take a path (proc(5)).
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func readlink(fd int) (string, error) {
	target := make([]byte, unix.PathMax)

	n, err := unix.Readlinkat(fd, "", target)
	if err != nil {
		return "", fmt.Errorf("readlink: %w", err)
	}

	return string(target[:n]), nil
}

func xattrs(fd int) (map[string]string, error) {
	all := map[string]string{}

	// Most have none: large buffers for each of them would be most of the work.
	n, err := unix.Listxattr(procPath(fd), nil)
	if err != nil {
		return nil, fmt.Errorf("listxattr: %w", err)
	}

	if n == 0 {
		return all, nil
	}

	list := make([]byte, 64<<10) // XATTR_LIST_MAX

	if n, err = unix.Listxattr(procPath(fd), list); err != nil {
		return nil, fmt.Errorf("listxattr: %w", err)
	}

	value := make([]byte, 64<<10) // XATTR_SIZE_MAX

	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" {
			continue
		}

		n, err := unix.Getxattr(procPath(fd), name, value)
		if err != nil {
			return nil, fmt.Errorf("getxattr %s: %w", name, err)
		}

		all[name] = string(value[:n])
	}

	return all, nil
}
