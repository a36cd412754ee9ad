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
	if err := copyXattrs(dst.Name(), fdXattrs{src}, fdXattrs{dst}); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: dst.Name(), Err: err}
	}
	return setMTime(dst, st.Mtim)
}

// copyMetadataToNew is copyMetadata for a file that was just made in the trash
// folder, where it belongs to root and has no attributes.
func copyMetadataToNew(src, dst *os.File, st *unix.Stat_t) error {
	fd := int(dst.Fd())
	if st.Uid != 0 || st.Gid != 0 {
		if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
			return &os.PathError{Op: "chown", Path: dst.Name(), Err: err}
		}
	}
	if err := addXattrs(dst.Name(), fdXattrs{src}, fdXattrs{dst}); err != nil {
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
	if err := copyXattrs(made, nameXattrs{srcDir, name}, nameXattrs{dstDir, made}); err != nil {
		return err
	}
	if st.Mode&modeType != unix.S_IFLNK {
		if err := unix.Fchmodat(fd, made, st.Mode&0o7777, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: made, Err: err}
		}
	}
	return setMTimeAt(fd, made, st.Mtim, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrTarget is one inode by its extended attributes.
type xattrTarget interface {
	list() ([]string, error)
	value(name string) ([]byte, error)
	set(name string, value []byte) error
	remove(name string) error
}

// fdXattrs reaches an open regular file or directory.
type fdXattrs struct{ f *os.File }

func (t fdXattrs) list() ([]string, error) {
	return listXattrs(func(buf []byte) (int, error) { return unix.Flistxattr(int(t.f.Fd()), buf) })
}

func (t fdXattrs) value(name string) ([]byte, error) {
	return readXattr(func(buf []byte) (int, error) { return unix.Fgetxattr(int(t.f.Fd()), name, buf) })
}

func (t fdXattrs) set(name string, value []byte) error {
	return unix.Fsetxattr(int(t.f.Fd()), name, value, 0)
}

func (t fdXattrs) remove(name string) error { return unix.Fremovexattr(int(t.f.Fd()), name) }

// nameXattrs reaches what must not be opened, a name in an open directory, itself if
// it is a symlink: by the descriptor's path in /proc, so that no other name is
// looked up.
type nameXattrs struct {
	dir  *os.File
	name string
}

func (t nameXattrs) path() string {
	return "/proc/self/fd/" + strconv.Itoa(int(t.dir.Fd())) + "/" + t.name
}

func (t nameXattrs) list() ([]string, error) {
	return listXattrs(func(buf []byte) (int, error) { return unix.Llistxattr(t.path(), buf) })
}

func (t nameXattrs) value(name string) ([]byte, error) {
	return readXattr(func(buf []byte) (int, error) { return unix.Lgetxattr(t.path(), name, buf) })
}

func (t nameXattrs) set(name string, value []byte) error {
	return unix.Lsetxattr(t.path(), name, value, 0)
}

func (t nameXattrs) remove(name string) error { return unix.Lremovexattr(t.path(), name) }

// maxXattrs is more than the kernel's XATTR_LIST_MAX and XATTR_SIZE_MAX (64 KiB).
const maxXattrs = 1 << 17

func listXattrs(list func([]byte) (int, error)) ([]string, error) {
	buf, err := readXattr(list)
	if err != nil || len(buf) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(buf), "\x00"), "\x00"), nil
}

// readXattr calls with larger buffers until the answer fits.
func readXattr(read func([]byte) (int, error)) ([]byte, error) {
	var small [512]byte
	for buf := small[:]; ; buf = make([]byte, 16*len(buf)) {
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) && len(buf) < maxXattrs {
			continue
		}
		return slices.Clone(buf[:max(n, 0)]), err
	}
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
	return addXattrs(path, src, dst)
}

// addXattrs gives dst all extended attributes of src.
func addXattrs(path string, src, dst xattrTarget) error {
	names, err := src.list()
	if err != nil {
		return fmt.Errorf("list attributes of %q: %w", path, err)
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
	src, name, err := a.openCleanParent(c.Path)
	if err != nil {
		return err
	}
	parent, _ := splitPath(c.Path)
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
		// From compressed to NOCOW, say, there is no way but through neither.
		if err := errors.Join(btrfs.SetFlags(dst, 0), btrfs.SetFlags(dst, want)); err != nil {
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
