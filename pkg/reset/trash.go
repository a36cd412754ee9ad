package reset

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// trashFolder is where things go that are in the way, and where new things are made.
type trashFolder struct {
	path string // in NEXT
	dir  *os.File
}

// trashFor gives the trash folder that a path's things can be renamed into: that of
// the volume, or inside a branch one of its own, since no file can be renamed
// from one subvolume to another.
func (a *applier) trashFor(path string) (*trashFolder, error) {
	branch := a.plan.branchOf(path)
	if branch == nil {
		return a.openTrash()
	}
	if t := a.branched[branch.Path]; t != nil {
		return t, nil
	}
	root, err := openDir(a.next, branch.Path) // openParent's directory is in use
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if _, known := a.times[branch.Path]; !known {
		if err := a.rememberDir(root, branch.Path); err != nil {
			return nil, err
		}
	}
	name, err := temporaryName()
	if err != nil {
		return nil, err
	}
	dir, err := makeTrash(root, name)
	if err != nil {
		return nil, err
	}
	t := &trashFolder{path: branch.Path + "/" + name, dir: dir}
	a.branched[branch.Path] = t
	return t, nil
}

// emptyBranchTrash deletes the trash of the branches, here and now: the cleanup
// after the boot knows that of the volume alone.
func (a *applier) emptyBranchTrash() error {
	for _, t := range a.branched {
		parent, name := splitPath(t.path)
		root, err := openDir(a.next, parent)
		if err != nil {
			return err
		}
		err = removeTree(context.Background(), root, name)
		root.Close()
		if err != nil {
			return fmt.Errorf("empty the trash of %q: %w", parent, err)
		}
	}
	return nil
}

// openTrash makes the volume's trash folder, with what an earlier one of that name
// is in it.
func (a *applier) openTrash() (*trashFolder, error) {
	if a.trash != nil {
		return a.trash, nil
	}
	if _, known := a.times[""]; !known {
		if err := a.rememberDir(a.next, ""); err != nil {
			return nil, err
		}
	}
	name, err := temporaryName()
	if err != nil {
		return nil, err
	}
	dir, err := makeTrash(a.next, name)
	if err != nil {
		return nil, err
	}
	a.trash = &trashFolder{path: TrashName, dir: dir}
	if err := a.putAway(a.trash, TrashName); err != nil {
		return nil, err
	}
	root := int(a.next.Fd())
	if err := unix.Renameat2(root, name, root, TrashName, unix.RENAME_NOREPLACE); err != nil {
		return nil, &os.PathError{Op: "name trash folder", Path: TrashName, Err: err}
	}
	return a.trash, a.noteMade(dir)
}

// makeTrash makes a directory that inherits nothing and gives nothing on.
func makeTrash(root *os.File, name string) (*os.File, error) {
	if err := unix.Mkdirat(int(root.Fd()), name, 0o700); err != nil {
		return nil, &os.PathError{Op: "make trash folder", Path: name, Err: err}
	}
	dir, err := openDir(root, name)
	if err != nil {
		return nil, err
	}
	if err := makeNeutral(dir); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// temporaryName is a name that nobody has.
func temporaryName() (string, error) {
	var b [8]byte
	// crypto/rand would add a fifth to the size of the static binary.
	if _, err := unix.Getrandom(b[:], 0); err != nil {
		return "", &os.PathError{Op: "getrandom", Path: TrashName, Err: err}
	}
	return TrashName + "." + hex.EncodeToString(b[:]), nil
}

// makeNeutral takes from a new directory what it inherited: owner, access control
// lists, compression and other flags. What is made in it then inherits nothing.
func makeNeutral(dir *os.File) error {
	fd := int(dir.Fd())
	if err := unix.Fchown(fd, 0, 0); err != nil {
		return &os.PathError{Op: "chown", Path: dir.Name(), Err: err}
	}
	if err := removeXattrs(dir.Name(), fdXattrs{dir}, nil); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, 0o700); err != nil {
		return &os.PathError{Op: "chmod", Path: dir.Name(), Err: err}
	}
	flags, err := btrfs.Flags(dir)
	if err != nil || flags == 0 {
		return err
	}
	return btrfs.SetFlags(dir, 0)
}

// noteMade notes the inode of the first thing that apply made. Inodes are numbered
// in the order of creation, and all that apply makes comes later.
func (a *applier) noteMade(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	a.made = st.Ino
	return nil
}

// oldTrash puts a trash folder that the last cleanup left into a new one, so that
// the plan need not know of it.
func (a *applier) oldTrash() error {
	var st unix.Stat_t
	err := unix.Fstatat(int(a.next.Fd()), TrashName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: TrashName, Err: err}
	}
	_, err = a.openTrash()
	return err
}

// putAway clears a name of the toolkit's own in the root of NEXT, whatever stands
// there. A stub can only be removed; the subvolume stays in the old state.
func (a *applier) putAway(trash *trashFolder, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(a.next.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return &os.PathError{Op: "stat", Path: name, Err: err}
	case st.Ino == btrfs.EmptyDirID:
		return removeStub(a.next, name)
	}
	return a.moveInto(trash, a.next, name)
}

// moveInto moves a name into the trash folder.
func (a *applier) moveInto(trash *trashFolder, dir *os.File, name string) error {
	a.counter++
	to := strconv.Itoa(a.counter)
	if err := renameAnyway(dir, name, trash.dir, to); err != nil {
		return &os.PathError{Op: "move out of the way", Path: name, Err: err}
	}
	return nil
}

// renameAnyway renames also what has a flag that forbids it, and puts the flag back,
// since the inode may have other names. The new name must be free.
func renameAnyway(from *os.File, name string, to *os.File, newName string) error {
	rename := func() error {
		return unix.Renameat2(int(from.Fd()), name, int(to.Fd()), newName, unix.RENAME_NOREPLACE)
	}
	err := rename()
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	f, openErr := openBeneath(from, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if openErr != nil {
		return openErr
	}
	defer f.Close()
	flags, flagsErr := btrfs.Flags(f)
	if flagsErr != nil || flags&lockFlags == 0 {
		return errors.Join(err, flagsErr)
	}
	if err := btrfs.SetFlags(f, flags&^lockFlags); err != nil {
		return err
	}
	return errors.Join(rename(), btrfs.SetFlags(f, flags))
}
