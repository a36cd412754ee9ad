package reset

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// A changed file that has one name gets its content back in place, which is much
// cheaper than another file there: no directory changes and no inode is made.

// contentChange is what CLEAN has where a file's content changes back.
type contentChange struct {
	size  uint64
	mtime unix.Timespec
	plain bool // owner, mode and flags agree, and neither side has attributes
}

// contents changes the content of files back. Those for which that is impossible in
// place are left to changes.
func (a *applier) contents() error {
	for i := range a.plan.Changes {
		c := &a.plan.Changes[i]
		if c.act&actContent == 0 {
			continue
		}
		src, name, err := a.openCleanParent(c.Path)
		if err != nil {
			return err
		}
		parent, _ := splitPath(c.Path)
		dst, err := a.nextDir.open(a.next, parent)
		if err != nil {
			return err
		}
		done, err := content(c, src, dst, name)
		if err != nil {
			return fmt.Errorf("change back %q: %w", c.Path, err)
		}
		if !done {
			c.act = actRemove | actCreate
		}
	}
	return nil
}

// content makes a file share CLEAN's extents. It reports false where only another file
// in its place can do that. Both are known to be regular files, so opening them can
// not block.
func content(c *Change, srcDir, dstDir *os.File, name string) (bool, error) {
	src, err := openName(srcDir, name, unix.O_RDONLY|unix.O_NOATIME)
	if err != nil {
		return false, err
	}
	defer src.Close()
	dst, err := openName(dstDir, name, unix.O_RDWR)
	if errors.Is(err, unix.EPERM) {
		return false, nil // a flag forbids to write
	}
	if err != nil {
		return false, err
	}
	defer dst.Close()
	if c.Size > c.content.size {
		if err := dst.Truncate(0); err != nil {
			return false, err
		}
	}
	if c.content.size > 0 {
		err = btrfs.Clone(dst, src)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if c.content.plain {
		return true, setMTime(dst, c.content.mtime)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: c.Path, Err: err}
	}
	return true, copyMetadata(src, dst, &st)
}
