package factory

import (
	"context"
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
)

// pruner removes what is kept from a snapshot that nobody else sees.
type pruner struct {
	ctx     context.Context
	leftOut int
}

// volume prunes a whole volume; the reset's own files go as well.
func (p *pruner) volume(root *os.File, state keep.State) error {
	times, err := timesOf(root)
	if err != nil {
		return err
	}
	for _, name := range []string{reset.ReadyName, reset.TrashName} {
		if err := p.remove(root, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if _, err := p.visit(root, state); err != nil {
		return err
	}
	return times.restore(root)
}

// visit prunes a directory and tells how many entries stay. Its times and flags
// are put back: CLEAN's count for the ancestors of kept paths.
func (p *pruner) visit(dir *os.File, state keep.State) (left int, err error) {
	if err := context.Cause(p.ctx); err != nil {
		return 0, err
	}
	times, err := timesOf(dir)
	if err != nil {
		return 0, err
	}
	flags, err := clearLocks(dir)
	if err != nil {
		return 0, err
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		stays, err := p.entry(dir, entry, state.Step(entry.Name()))
		if err != nil {
			return 0, err
		}
		if stays {
			left++
		}
	}
	if left < len(entries) {
		err = times.restore(dir)
	}
	if err == nil && flags&locks != 0 {
		err = btrfs.SetFlags(dir, flags)
	}
	return left, err
}

// entry prunes one entry of a directory.
func (p *pruner) entry(dir *os.File, entry os.DirEntry, state keep.State) (stays bool, err error) {
	kept := state.Kept()
	switch {
	case kept && (!entry.IsDir() || !state.MayWipeBelow()):
		p.leftOut++
		return false, p.remove(dir, entry.Name())
	case !kept && (!entry.IsDir() || !state.MayKeepBelow()):
		return true, nil
	}
	child, err := openDir(dir, entry.Name())
	if err != nil {
		return false, err
	}
	defer child.Close()
	left, err := p.visit(child, state)
	if err != nil || left > 0 || !kept {
		return true, err
	}
	// Nothing of this kept directory is CLEAN's.
	return false, p.remove(dir, entry.Name())
}

// remove deletes a name and everything below it, flags or not.
func (p *pruner) remove(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if errors.Is(err, unix.EPERM) {
		if err := unlock(dir, name); err != nil {
			return err
		}
		err = unix.Unlinkat(int(dir.Fd()), name, 0)
	}
	if errors.Is(err, unix.EISDIR) {
		err = p.removeDir(dir, name)
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: path.Join(dir.Name(), name), Err: err}
	}
	return nil
}

func (p *pruner) removeDir(dir *os.File, name string) error {
	child, err := openDir(dir, name)
	if err != nil {
		return err
	}
	defer child.Close()
	if _, err := clearLocks(child); err != nil {
		return err
	}
	entries, err := child.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := context.Cause(p.ctx); err != nil {
			return err
		}
		if err := p.remove(child, entry.Name()); err != nil {
			return err
		}
	}
	return unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
}

// unlock takes away the flags that forbid to delete a name.
func unlock(dir *os.File, name string) error {
	// Only files and directories have flags; opening anything else could wait.
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path.Join(dir.Name(), name))
	defer f.Close()
	_, err = clearLocks(f)
	return err
}

// locks are the flags of chattr(1) +i and +a (include/uapi/linux/fs.h).
const locks = btrfs.FlagImmutable | btrfs.FlagAppend

// clearLocks takes them away from an open file, and tells what flags it had.
func clearLocks(f *os.File) (before uint32, err error) {
	before, err = btrfs.Flags(f)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil // the stub of a nested subvolume has none
	}
	if err != nil || before&locks == 0 {
		return before, err
	}
	return before, btrfs.SetFlags(f, before&^locks)
}

// times are what stat(2) says of a directory's access and change of content.
type times [2]unix.Timespec

func timesOf(f *os.File) (times, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return times{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return times{st.Atim, st.Mtim}, nil
}

func (t times) restore(f *os.File) error {
	if err := unix.UtimesNanoAt(int(f.Fd()), "", t[:], unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "set the times of", Path: f.Name(), Err: err}
	}
	return nil
}
