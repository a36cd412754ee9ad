package reset

import (
	"cmp"
	"errors"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// measure counts what is to be made at a path and below, and notes the names of inodes
// that have several. A nested subvolume counts as one name.
func (p *restorePlanner) measure(a restoreAt) (size uint64, names int64, err error) {
	for list := []restoreAt{a}; len(list) > 0; {
		at := list[len(list)-1]
		list = list[:len(list)-1]
		if at.source.stub {
			if at.sel != nil {
				return 0, 0, &NotInSnapshotError{Path: firstPath(at.path, at.sel), At: at.path, Mode: at.source.Mode}
			}
			if at.path != a.path {
				p.add(at.item(RestoreSkip))
			}
			continue
		}
		names++
		if !at.source.isDir() {
			if at.sel != nil {
				return 0, 0, &NotInSnapshotError{Path: firstPath(at.path, at.sel), At: at.path, Mode: at.source.Mode}
			}
			size += p.sizeOnce(at.source)
			p.note(at, nil)
			continue
		}
		if at.source.nested && at.sel == nil {
			continue // it comes back as a snapshot of itself
		}
		below, err := p.below(at)
		if err != nil {
			return 0, 0, err
		}
		list = append(list, below...)
	}
	return size, names, nil
}

// sizeOnce is the size of a file, which counts once whatever the number of its names.
func (p *restorePlanner) sizeOnce(file *thing) uint64 {
	if file.Links > 1 {
		at := liveInode{file.place.id, file.number}
		if p.sized[at] {
			return 0
		}
		p.sized[at] = true
	}
	return fileSize(file.inode)
}

// below lists what is selected in a directory that is made.
func (p *restorePlanner) below(a restoreAt) ([]restoreAt, error) {
	entries, err := a.source.place.entries(a.source.place.dir)
	if err != nil {
		return nil, err
	}
	var out []restoreAt
	for i := range entries {
		child := a
		child.path, child.live = a.path+"/"+entries[i].name, nil
		if a.sel != nil {
			sel, selected := a.sel.below[entries[i].name]
			if !selected {
				continue
			}
			child.sel = sel
		}
		if child.source, err = p.source.lookup(a.source.place, &entries[i]); err != nil {
			return nil, err
		}
		out = append(out, child)
	}
	if a.sel != nil && len(out) < len(a.sel.below) {
		for name, sel := range a.sel.below {
			if e, err := a.source.place.find(a.source.place.dir, name); err != nil || e == nil {
				path := a.path + "/" + name
				return nil, errors.Join(err, &NotInSnapshotError{Path: firstPath(path, sel), At: path})
			}
		}
	}
	return out, nil
}

// checkLive looks at the directories of live that something is put into: no symlink
// and no mount point may be on the way, and nothing may forbid it.
func (p *restorePlanner) checkLive() error {
	type check struct {
		dir    string
		writes bool // flags can be set in any directory
	}
	checked := map[check]bool{}
	for i := range p.plan.Items {
		item := &p.plan.Items[i]
		dir, _ := splitPath(item.Path)
		if item.Action == RestoreMetadata {
			dir = item.Path
		}
		c := check{dir, item.Action != RestoreFlags}
		if item.Action == RestoreSkip || checked[c] {
			continue
		}
		checked[c] = true
		if err := p.checkLiveDir(c.dir, c.writes); err != nil {
			return err
		}
	}
	return nil
}

func (p *restorePlanner) checkLiveDir(path string, writes bool) error {
	dir, err := openMounted(p.plan.live, path)
	switch {
	case errors.Is(err, unix.EXDEV):
		return errMounted(path)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return &BlockedError{path, "has become something else meanwhile: try again"}
	case err != nil:
		return err
	}
	defer dir.Close()
	flags, err := btrfs.Flags(dir)
	if err != nil {
		return err
	}
	if flags&lockFlags != 0 && writes {
		return errLocked(cmp.Or(path, "/"))
	}
	return nil
}
