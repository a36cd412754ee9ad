package reset

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// copyMetadata gives dst the owner, extended attributes, mode and time of src, in
// the order in which one does not undo another: chown drops capabilities and
// setuid, an access control list changes the mode.
func copyMetadata(src, dst *os.File, st *unix.Stat_t) error {
	fd := int(dst.Fd())
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return &os.PathError{Op: "chown", Path: dst.Name(), Err: err}
	}
	if err := copyXattrs(dst.Name(), fdXattrs(src), fdXattrs(dst)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: dst.Name(), Err: err}
	}
	return setMTime(dst, st.Mtim)
}

// copyMetadataAt is copyMetadata for what must not be opened: symlinks, devices,
// FIFOs and sockets.
func copyMetadataAt(srcDir *os.File, name string, dstDir *os.File, made string, st *unix.Stat_t) error {
	fd := int(dstDir.Fd())
	if err := unix.Fchownat(fd, made, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "chown", Path: made, Err: err}
	}
	if err := copyXattrs(made, nameXattrs(srcDir, name), nameXattrs(dstDir, made)); err != nil {
		return err
	}
	if st.Mode&modeType != unix.S_IFLNK {
		if err := unix.Fchmodat(fd, made, st.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: made, Err: err}
		}
	}
	return setMTimeAt(fd, made, st.Mtim, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrTarget is a path by which the l*xattr calls reach one inode: through /proc,
// by an open descriptor, so that no name on the way is looked up again.
type xattrTarget string

// fdXattrs reaches an open regular file or directory.
func fdXattrs(f *os.File) xattrTarget { return nameXattrs(f, ".") }

// nameXattrs reaches a name in an open directory, itself if it is a symlink.
func nameXattrs(dir *os.File, name string) xattrTarget {
	return xattrTarget("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name)
}

func (t xattrTarget) list() ([]string, error) {
	for size := 4 << 10; ; size *= 4 {
		buf := make([]byte, size)
		n, err := t.llist(buf)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		if err != nil {
			return nil, err
		}
		var out []string
		for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
			if name != "" {
				out = append(out, name)
			}
		}
		return out, nil
	}
}

// A regular file has no entry ".": its own link in /proc is followed instead.
func (t xattrTarget) llist(buf []byte) (int, error) {
	n, err := unix.Llistxattr(string(t), buf)
	if errors.Is(err, unix.ENOTDIR) {
		return unix.Listxattr(t.link(), buf)
	}
	return n, err
}

func (t xattrTarget) link() string { return strings.TrimSuffix(string(t), "/.") }

func (t xattrTarget) value(name string) ([]byte, error) {
	for size := 1 << 10; ; size *= 8 {
		buf := make([]byte, size)
		n, err := unix.Lgetxattr(string(t), name, buf)
		if errors.Is(err, unix.ENOTDIR) {
			n, err = unix.Getxattr(t.link(), name, buf)
		}
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		return buf[:max(n, 0)], err
	}
}

func (t xattrTarget) set(name string, value []byte) error {
	err := unix.Lsetxattr(string(t), name, value, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return unix.Setxattr(t.link(), name, value, 0)
	}
	return err
}

func (t xattrTarget) remove(name string) error {
	err := unix.Lremovexattr(string(t), name)
	if errors.Is(err, unix.ENOTDIR) {
		return unix.Removexattr(t.link(), name)
	}
	return err
}

// copyXattrs makes the extended attributes of dst those of src.
func copyXattrs(path string, src, dst xattrTarget) error {
	names, err := src.list()
	if err != nil {
		return fmt.Errorf("list attributes of %q: %w", path, err)
	}
	if err := removeXattrs(path, dst, names); err != nil {
		return err
	}
	for _, name := range names {
		value, err := src.value(name)
		if err != nil {
			return fmt.Errorf("read attribute %q of %q: %w", name, path, err)
		}
		if err := dst.set(name, value); err != nil {
			return fmt.Errorf("set attribute %q of %q: %w", name, path, err)
		}
	}
	return nil
}

// removeXattrs removes all attributes but those to be kept.
func removeXattrs(path string, dst xattrTarget, keep []string) error {
	names, err := dst.list()
	if err != nil {
		return fmt.Errorf("list attributes of %q: %w", path, err)
	}
	for _, name := range names {
		if slices.Contains(keep, name) {
			continue
		}
		if err := dst.remove(name); err != nil {
			return fmt.Errorf("remove attribute %q of %q: %w", name, path, err)
		}
	}
	return nil
}

// metadata gives what NEXT has at a path the metadata of what CLEAN has there.
func (a *applier) metadata(c *Change) error {
	if c.Path == "/" {
		return a.dirMetadata("")
	}
	if c.Mode&modeType == modeDir {
		return a.dirMetadata(c.Path)
	}
	parent, name := splitPath(c.Path)
	src, err := openDir(a.clean, parent)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := openDir(a.next, parent)
	if err != nil {
		return err
	}
	defer dst.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(src.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: c.Path, Err: err}
	}
	if c.Mode&modeType != unix.S_IFREG {
		return copyMetadataAt(src, name, dst, name, &st)
	}
	f, err := openRegular(dst, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.unlock(f, c.Path); err != nil {
		return err
	}
	clean, err := openRegular(src, name)
	if err != nil {
		return err
	}
	defer clean.Close()
	return copyMetadata(clean, f, &st)
}

// dirMetadata gives a directory of NEXT the metadata of CLEAN's. Its time, and the
// flags that would stop what is still to come, are left to the end.
func (a *applier) dirMetadata(path string) error {
	dst, err := openDir(a.next, path)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := a.unlock(dst, path); err != nil {
		return err
	}
	src, err := openDir(a.clean, path)
	if err != nil {
		return err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if isStub(&st) && path != "" {
		return a.stubMetadata(path, dst)
	}
	flags, err := btrfs.Flags(src)
	if err != nil {
		return err
	}
	now, err := btrfs.Flags(dst)
	if err != nil {
		return err
	}
	if want := flags &^ lockFlags; want != now {
		if err := btrfs.SetFlags(dst, want); err != nil {
			return err
		}
	}
	delete(a.locked, path)
	if flags&lockFlags != 0 {
		a.locked[path] = flags
	}
	a.times[path] = st.Mtim
	return copyMetadata(src, dst, &st)
}

// stubMetadata makes a directory what the stub of a nested subvolume counts as.
func (a *applier) stubMetadata(path string, dst *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dst.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if _, known := a.times[path]; !known {
		a.times[path] = st.Mtim
	}
	delete(a.locked, path)
	if err := makeNeutral(dst); err != nil {
		return err
	}
	return pathError("chmod", path, unix.Fchmod(int(dst.Fd()), 0o755))
}
