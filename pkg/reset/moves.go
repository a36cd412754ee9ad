package reset

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// mover moves the nested subvolumes below kept paths from the old state into the
// new one, after the exchange. It looks at what is there, not at a plan, so a move
// that was cut off is finished by running it again.
type mover struct {
	v        *volume
	old, new *os.File // roots
	matcher  *keep.Matcher
}

func (m *mover) run() error {
	info, err := btrfs.ReadInfo(m.old)
	if err != nil {
		return err
	}
	return m.moveBelow(info.ID, "")
}

func (m *mover) moveBelow(id uint64, prefix string) error {
	children, err := btrfs.Children(m.old, id)
	if err != nil {
		return err
	}
	t := newTree(m.old, id)
	for _, c := range children {
		dir, err := t.path(c.DirID, nil)
		if err != nil {
			return err
		}
		path := prefix + dir + "/" + c.Name
		state := stateAt(m.matcher, path)
		switch {
		case state.Kept():
			err = m.v.step("move "+path, func() error { return m.move(path) })
		case state.MayKeepBelow():
			err = m.moveBelow(c.ID, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// move moves one subvolume and puts back the times of the two directories.
func (m *mover) move(path string) error {
	parent, name := splitPath(path)
	from, err := openDir(m.old, parent)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := m.openTarget(parent)
	if err != nil {
		return err
	}
	defer to.Close()
	done, err := holdDirs(from, to)
	if err != nil {
		return err
	}
	if err := m.rename(from, to, name, path); err != nil {
		return err
	}
	return done()
}

// rename moves a name; what a boot in between made in its place gives way when it
// is empty, and else both stay.
func (m *mover) rename(from, to *os.File, name, path string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), name, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EEXIST) {
		return pathError("move nested subvolume", path, err)
	}
	empty, err := isEmptyDir(to, name)
	if err != nil {
		return err
	}
	if empty {
		err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), name, unix.RENAME_EXCHANGE)
		if err != nil {
			return pathError("move nested subvolume", path, err)
		}
		return dropEmptyDir(from, name)
	}
	aside := name + ".from-" + NamePrevious
	m.v.warn("something new stands at %q: the subvolume that was there is now %q", path, aside)
	return pathError("move nested subvolume", path,
		unix.Renameat2(int(from.Fd()), name, int(to.Fd()), aside, unix.RENAME_NOREPLACE))
}

// dropEmptyDir removes an empty directory or subvolume that gave way, so that the
// next run does not take it for one to move.
func dropEmptyDir(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	return pathError("remove", name, err)
}

func isEmptyDir(dir *os.File, name string) (bool, error) {
	f, err := openDir(dir, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	return true, ignoreEOF(err)
}

// holdDirs notes the times and the flags of two directories, lifts flags that
// forbid a change, and gives a function that puts everything back.
func holdDirs(dirs ...*os.File) (func() error, error) {
	type held struct {
		dir   *os.File
		mtime unix.Timespec
		flags uint32
	}
	var all []held
	for _, dir := range dirs {
		var st unix.Stat_t
		if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: dir.Name(), Err: err}
		}
		flags, err := btrfs.Flags(dir)
		if err != nil {
			return nil, err
		}
		if flags&lockFlags != 0 {
			if err := btrfs.SetFlags(dir, flags&^lockFlags); err != nil {
				return nil, err
			}
		}
		all = append(all, held{dir, st.Mtim, flags})
	}
	return func() error {
		for _, h := range all {
			if err := setMTime(h.dir, h.mtime); err != nil {
				return err
			}
			if h.flags&lockFlags != 0 {
				if err := btrfs.SetFlags(h.dir, h.flags); err != nil {
					return err
				}
			}
		}
		return nil
	}, nil
}

// openTarget opens the directory of the new state that a subvolume moves into.
// After a reset it is there; a restored state may lack it, and gets it as the old
// state has it.
func (m *mover) openTarget(path string) (*os.File, error) {
	dir, err := openDir(m.new, path)
	if !errors.Is(err, unix.ENOENT) {
		return dir, err
	}
	parent, name := splitPath(path)
	up, err := m.openTarget(parent)
	if err != nil {
		return nil, err
	}
	defer up.Close()
	old, err := openDir(m.old, path)
	if err != nil {
		return nil, err
	}
	defer old.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	done, err := holdDirs(up)
	if err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(int(up.Fd()), name, 0o700); err != nil {
		return nil, &os.PathError{Op: "make directory", Path: path, Err: err}
	}
	if err := done(); err != nil {
		return nil, err
	}
	if dir, err = openDir(m.new, path); err != nil {
		return nil, err
	}
	if err := copyMetadata(old, dir, &st); err != nil {
		dir.Close()
		return nil, fmt.Errorf("make directory %q: %w", path, err)
	}
	return dir, nil
}
