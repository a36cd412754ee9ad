package reset

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// applier makes a plan so in NEXT, a writable snapshot of the live volume that
// nothing else uses. Whatever it makes is made in the trash folder and renamed into
// place, so that it inherits nothing from where it ends up.
type applier struct {
	next  *os.File // the root of NEXT
	live  *os.File
	clean *os.File
	plan  *Plan

	trash    *trashFolder            // nil until something is put there
	branched map[string]*trashFolder // of each branch, by its path
	counter  int

	nextDir, cleanDir lastDir

	times  map[string]unix.Timespec // of directories before they were touched
	locked map[string]uint32        // flags to set at the very end
	links  []link
	made   uint64 // the first inode that apply made; 0 for none
}

// link is a name that becomes a hard link once everything else is in place.
type link struct{ path, to string }

// apply changes NEXT as the plan says. It leaves the record to the caller and ends
// with finishTimes.
func (a *applier) apply() error {
	steps := []func() error{a.branches, a.stubs, a.oldTrash, a.contents, a.changes, a.makeLinks, a.emptyBranchTrash}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) close() {
	a.nextDir.close()
	a.cleanDir.close()
	if a.trash != nil {
		a.trash.dir.Close()
	}
	for _, t := range a.branched {
		t.dir.Close()
	}
}

// branches puts a snapshot of each nested subvolume that counts as a directory in
// the place of its stub.
func (a *applier) branches() error {
	for _, b := range a.plan.Branches {
		if err := a.branch(a.live, b.Path); err != nil {
			return fmt.Errorf("snapshot nested subvolume %q: %w", b.Path, err)
		}
	}
	return nil
}

func (a *applier) branch(from *os.File, path string) error {
	src, err := openDir(from, path)
	if err != nil {
		return err
	}
	defer src.Close()
	dir, name, err := a.openParent(path)
	if err != nil {
		return err
	}
	if err := removeStub(dir, name); err != nil {
		return err
	}
	return btrfs.Snapshot(src, dir, name, false)
}

// stubs removes the stubs of nested subvolumes that move here later, and of those
// that are gone.
func (a *applier) stubs() error {
	paths := append([]string(nil), a.plan.stubs...)
	for _, m := range a.plan.Moves {
		paths = append(paths, m.Path)
	}
	for _, path := range paths {
		dir, name, err := a.openParent(path)
		if err != nil {
			return fmt.Errorf("remove stub %q: %w", path, err)
		}
		if err := removeStub(dir, name); err != nil {
			return fmt.Errorf("remove stub %q: %w", path, err)
		}
	}
	return nil
}

// removeStub removes the stub of a subvolume, and nothing else.
func removeStub(dir *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Ino != btrfs.EmptyDirID {
		return &os.PathError{Op: "remove stub", Path: name, Err: unix.EEXIST}
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "remove stub", Path: name, Err: err}
	}
	return nil
}

// openParent opens the directory of a path in NEXT for a change in it: its time is
// put back at the end, and flags that forbid the change are lifted until then. The
// directory stays open for the next change, and is the applier's.
func (a *applier) openParent(path string) (*os.File, string, error) {
	parent, name := splitPath(path)
	dir, err := a.nextDir.open(a.next, parent)
	if err != nil {
		return nil, "", err
	}
	if _, known := a.times[parent]; known {
		return dir, name, nil
	}
	return dir, name, a.rememberDir(dir, parent)
}

// openCleanParent opens the directory of a path in CLEAN, in the same way.
func (a *applier) openCleanParent(path string) (*os.File, string, error) {
	parent, name := splitPath(path)
	dir, err := a.cleanDir.open(a.clean, parent)
	return dir, name, err
}

// lastDir holds the directory that was opened last: changes come in the order of
// their paths, so the next one is most often in the same.
type lastDir struct {
	path string
	dir  *os.File
}

func (l *lastDir) open(root *os.File, path string) (*os.File, error) {
	if l.dir != nil && l.path == path {
		return l.dir, nil
	}
	l.close()
	dir, err := openDir(root, path)
	if err != nil {
		return nil, err
	}
	l.path, l.dir = path, dir
	return dir, nil
}

func (l *lastDir) close() {
	if l.dir != nil {
		l.dir.Close()
		l.dir = nil
	}
}

func (a *applier) rememberDir(dir *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	a.times[path] = st.Mtim
	return a.unlock(dir, path)
}

// lockFlags are the flags that forbid changes.
const lockFlags = btrfs.FlagImmutable | btrfs.FlagAppend

// unlock lifts the flags that forbid a change, to be set again at the end.
func (a *applier) unlock(f *os.File, path string) error {
	flags, err := btrfs.Flags(f)
	if err != nil || flags&lockFlags == 0 {
		return err
	}
	if _, known := a.locked[path]; !known {
		a.locked[path] = flags
	}
	return btrfs.SetFlags(f, flags&^lockFlags)
}

// changes makes each change of the plan so, but for links.
func (a *applier) changes() error {
	for i := range a.plan.Changes {
		c := &a.plan.Changes[i]
		if err := a.change(c); err != nil {
			return fmt.Errorf("%s %q: %w", verbs[c.Kind], c.Path, err)
		}
	}
	return nil
}

var verbs = map[Kind]string{
	KindAdded: "wipe", KindDeleted: "bring back", KindModified: "change back",
	KindMetadata: "change back", KindType: "replace",
}

func (a *applier) change(c *Change) error {
	switch {
	case c.act == 0: // another name of the same inode stands for it
		return nil
	case c.act&actMetadata != 0:
		return a.metadata(c)
	case c.act&actContent != 0:
		return nil // done by contents
	}
	dir, name, err := a.openParent(c.Path)
	if err != nil {
		return err
	}
	switch {
	case c.act&actStub != 0:
		err = removeStub(dir, name)
	case c.act&actRemove != 0:
		var trash *trashFolder
		if trash, err = a.trashFor(c.Path); err == nil {
			err = a.moveInto(trash, dir, name)
		}
	}
	if err != nil {
		return err
	}
	switch {
	case c.act&actLink != 0:
		a.links = append(a.links, link{c.Path, c.linkTo})
	case c.act&actCreate != 0:
		return a.create(c.Path, dir, name)
	}
	return nil
}

// makeLinks makes the hard links, now that what they link to is there.
func (a *applier) makeLinks() error {
	for _, l := range a.links {
		if err := a.makeLink(l); err != nil {
			return fmt.Errorf("link %q to %q: %w", l.path, l.to, err)
		}
	}
	return nil
}

func (a *applier) makeLink(l link) error {
	toDir, toName := splitPath(l.to)
	from, err := openDir(a.next, toDir)
	if err != nil {
		return err
	}
	defer from.Close()
	dir, name, err := a.openParent(l.path)
	if err != nil {
		return err
	}
	err = unix.Linkat(int(from.Fd()), toName, int(dir.Fd()), name, 0)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	f, err := openRegular(from, toName) // a flag forbids it
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.unlock(f, l.to); err != nil {
		return err
	}
	return unix.Linkat(int(from.Fd()), toName, int(dir.Fd()), name, 0)
}

// finishTimes puts back the times of the directories that were touched, and then
// the flags that would have forbidden it.
func (a *applier) finishTimes() error {
	for path, mtime := range a.times {
		dir, err := openDir(a.next, path)
		if err != nil {
			return fmt.Errorf("put back the time of %q: %w", path, err)
		}
		err = setMTime(dir, mtime)
		dir.Close()
		if err != nil {
			return fmt.Errorf("put back the time of %q: %w", path, err)
		}
	}
	for path, flags := range a.locked {
		f, err := openRegular(a.next, path)
		if err != nil {
			return fmt.Errorf("put back the flags of %q: %w", path, err)
		}
		err = btrfs.SetFlags(f, flags)
		f.Close()
		if err != nil {
			return fmt.Errorf("put back the flags of %q: %w", path, err)
		}
	}
	return nil
}

func setMTime(f *os.File, mtime unix.Timespec) error {
	return setMTimeAt(int(f.Fd()), "", mtime, unix.AT_EMPTY_PATH)
}

func setMTimeAt(dir int, name string, mtime unix.Timespec, flags int) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	if err := unix.UtimesNanoAt(dir, name, times, flags); err != nil {
		return &os.PathError{Op: "set time of", Path: name, Err: err}
	}
	return nil
}
