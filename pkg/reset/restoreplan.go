package reset

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// restoreAt is one path during the planning.
type restoreAt struct {
	path    string
	sel     *selection
	source  *thing
	live    *thing // nil: nothing there
	liveDir place  // the directory of live that holds it
	subvol  string // the nested subvolume of live that liveDir lies in
	same    bool   // a directory that is restored, with the same metadata in live
	dirSame bool   // the directory that holds it is
}

func (a restoreAt) item(action RestoreAction) RestoreItem {
	return RestoreItem{Path: a.path, Action: action, Mode: a.source.Mode, subvol: a.subvol, dirMade: a.dirSame}
}

// restorePlanner plans a restore.
type restorePlanner struct {
	plan         *Restore
	live, source *restoreTree
	groups       map[restoreKey]*restoreGroup
	sized        map[liveInode]bool // inodes of the snapshot whose size was counted
}

func (p *restorePlanner) add(i RestoreItem) { p.plan.Items = append(p.plan.Items, i) }

// children visits what is selected below a directory that both have.
func (p *restorePlanner) children(a restoreAt) error {
	if a.sel != nil {
		for name, sel := range a.sel.below {
			child, err := p.source.find(a.source.place, name)
			if err != nil {
				return err
			}
			path := a.path + "/" + name
			if child == nil {
				return &NotInSnapshotError{Path: firstPath(path, sel), At: path}
			}
			if err := p.visitChild(a, name, sel, child); err != nil {
				return err
			}
		}
		return nil
	}
	entries, err := a.source.place.entries(a.source.place.dir)
	if err != nil {
		return err
	}
	inSource := make(map[string]bool, len(entries))
	for i := range entries {
		inSource[entries[i].name] = true
		child, err := p.source.lookup(a.source.place, &entries[i])
		if err != nil {
			return err
		}
		if err := p.visitChild(a, entries[i].name, nil, child); err != nil {
			return err
		}
	}
	inLive, err := a.live.place.entries(a.live.place.dir)
	if err != nil {
		return err
	}
	for _, e := range inLive {
		if !inSource[e.name] {
			p.plan.LiveOnly = append(p.plan.LiveOnly, a.path+"/"+e.name)
		}
	}
	return nil
}

// firstPath is a path that was asked for, at or below another.
func firstPath(path string, sel *selection) string {
	for sel != nil {
		least := ""
		for name := range sel.below {
			if least == "" || name < least {
				least = name
			}
		}
		path, sel = path+"/"+least, sel.below[least]
	}
	return path
}

func (p *restorePlanner) visitChild(a restoreAt, name string, sel *selection, source *thing) error {
	child := restoreAt{
		path: a.path + "/" + name, sel: sel, source: source,
		liveDir: a.live.place, subvol: a.subvol, dirSame: a.same,
	}
	if a.live.nested {
		child.subvol = a.path
		p.plan.subvols[a.path] = true
	}
	var err error
	if child.live, err = p.live.find(a.live.place, name); err != nil {
		return fmt.Errorf("compare %q: %w", child.path, err)
	}
	return p.visit(child)
}

func (p *restorePlanner) visit(a restoreAt) error {
	switch {
	case a.sel != nil && (!a.source.isDir() || a.source.stub):
		return &NotInSnapshotError{Path: firstPath(a.path, a.sel), At: a.path, Mode: a.source.Mode}
	case a.source.stub:
		p.add(a.item(RestoreSkip))
		return nil
	case a.live == nil:
		return p.create(a)
	case a.live.stub:
		return &BlockedError{a.path, "is the stub of a nested subvolume in the live volume: remove it with rmdir"}
	case a.source.isDir() && a.live.isDir():
		return p.both(a)
	case a.sel != nil:
		return &BlockedError{a.path, "is a " + TypeName(a.live.Mode) + ", where a directory was: move it away, or restore that first"}
	case a.live.isDir():
		return p.replaceDir(a)
	}
	return p.compare(a)
}

// both compares a directory that both have, and what is selected below it.
func (p *restorePlanner) both(a restoreAt) error {
	if a.sel != nil {
		return p.children(a)
	}
	switch fields := compareInodes(a.live.inode, a.source.inode); {
	case fields == 0:
		a.same = true
		p.plan.Same++
	case fields == FieldFlags && locksMissing(a.live.inode, a.source.inode):
		p.add(a.item(RestoreFlags))
	default:
		item := a.item(RestoreMetadata)
		item.Fields, item.LiveMode = fields, a.live.Mode
		p.add(item)
	}
	return p.children(a)
}

// replaceDir puts something else in the place of an empty directory. One that holds
// anything is its owner's to deal with.
func (p *restorePlanner) replaceDir(a restoreAt) error {
	entries, err := a.live.place.entries(a.live.place.dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 || a.live.nested {
		return &BlockedError{a.path, "is a directory that is not empty, where a " + TypeName(a.source.Mode) + " was: move it away"}
	}
	return p.replace(a, FieldType)
}

// compare compares what is no directory on both sides.
func (p *restorePlanner) compare(a restoreAt) error {
	fields := compareInodes(a.live.inode, a.source.inode)
	if fields&(FieldType|FieldContent) == 0 {
		same, err := p.sameContent(a)
		if err != nil {
			return fmt.Errorf("compare %q: %w", a.path, err)
		}
		if !same {
			fields |= FieldContent
		}
	}
	switch {
	case fields == FieldFlags && locksMissing(a.live.inode, a.source.inode):
		p.add(a.item(RestoreFlags))
	case fields != 0:
		return p.replace(a, fields)
	default:
		p.plan.Same++
	}
	p.note(a, a.live.inode)
	return nil
}

// locksMissing reports whether the flags of two inodes differ in what only forbids
// changes, and live lacks some.
func locksMissing(live, source *inode) bool {
	const locks = btrfs.InodeImmutable | btrfs.InodeAppend
	return (live.Flags^source.Flags)&btrfs.InodeFlagsSettable&^locks == 0 && live.Flags&locks&^source.Flags == 0
}

// sameContent compares the data of two files or the targets of two symlinks.
func (p *restorePlanner) sameContent(a restoreAt) (bool, error) {
	if kind := a.source.kind(); kind != unix.S_IFREG && kind != unix.S_IFLNK || a.source.Size == 0 {
		return true, nil
	}
	from, differ, err := firstDifference(a.live.place.tree, a.live.number, a.source.place.tree, a.source.number)
	if err != nil || !differ || a.source.kind() == unix.S_IFLNK {
		return !differ, err
	}
	live, err := resolveBeneath(p.plan.live, a.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, unix.RESOLVE_NO_XDEV)
	if errors.Is(err, unix.EXDEV) {
		return false, errMounted(a.path)
	}
	if err != nil {
		return false, err
	}
	defer live.Close()
	source, err := openRegular(p.plan.source, a.path)
	if err != nil {
		return false, err
	}
	defer source.Close()
	return sameBytes(live, source, int64(from))
}

func (p *restorePlanner) replace(a restoreAt, fields Fields) error {
	if hasLocks(a.live.inode) {
		return errLocked(a.path)
	}
	item := a.item(RestoreReplace)
	item.Fields, item.LiveMode, item.LiveSize = fields, a.live.Mode, fileSize(a.live.inode)
	return p.made(a, item)
}

// create plans a path that live does not have.
func (p *restorePlanner) create(a restoreAt) error {
	item := a.item(RestoreCreate)
	item.OnTheWay, item.sel = a.sel != nil, a.sel
	return p.made(a, item)
}

// made adds an item for something that is made, with all of it counted.
func (p *restorePlanner) made(a restoreAt, item RestoreItem) error {
	var err error
	item.Size, item.Names, err = p.measure(a)
	p.add(item)
	return err
}

func errMounted(path string) error {
	return &BlockedError{path, "lies on another file system, mounted there or above it: it is not part of this volume"}
}

func hasLocks(n *inode) bool { return n.Flags&(btrfs.InodeImmutable|btrfs.InodeAppend) != 0 }

func errLocked(path string) error {
	return &BlockedError{path, "is immutable or append-only: run `chattr -i -a` on it first"}
}
