package reset

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// nestedSubvolume is a subvolume in a volume that a kept path has to do with.
type nestedSubvolume struct {
	path string
	id   uint64 // tree id
	kept bool   // at or below a kept path; else one may lie in it
}

// nestedSubvolumes lists the subvolumes nested in another that are kept, and those
// that may lead to kept ones.
func nestedSubvolumes(root *os.File, m *keep.Matcher) ([]nestedSubvolume, error) {
	info, err := btrfs.ReadInfo(root)
	if err != nil {
		return nil, err
	}
	return nestedBelow(root, info.ID, "", m)
}

func nestedBelow(root *os.File, id uint64, prefix string, m *keep.Matcher) ([]nestedSubvolume, error) {
	children, err := btrfs.Children(root, id)
	if err != nil {
		return nil, err
	}
	t := newTree(root, id)
	var out []nestedSubvolume
	for _, c := range children {
		dir, err := t.path(c.DirID)
		if err != nil {
			return nil, err
		}
		path := prefix + dir + "/" + c.Name
		state := stateAt(m, path)
		if !state.Kept() && !state.MayKeepBelow() {
			continue
		}
		out = append(out, nestedSubvolume{path: path, id: c.ID, kept: state.Kept()})
		if state.Kept() {
			continue
		}
		more, err := nestedBelow(root, c.ID, path, m)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// readOnlyNested gives the tree ids of the read-only ones among those that move, or
// that something moves out of.
func readOnlyNested(root *os.File, m *keep.Matcher) ([]uint64, error) {
	nested, err := nestedSubvolumes(root, m)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, n := range nested {
		f, err := openDir(root, n.path)
		if err != nil {
			return nil, err
		}
		readOnly, err := btrfs.ReadOnly(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		if readOnly {
			out = append(out, n.id)
		}
	}
	return out, nil
}

// mover moves the nested subvolumes below kept paths from the old state into the
// new one, after the exchange. It looks at what is there, not at a plan, so a move
// that was cut off is finished by running it again.
type mover struct {
	v        *volume
	old, new *os.File // roots
	matcher  *keep.Matcher
	readOnly []uint64 // tree ids

	restoring bool // the new state is a restored one
}

func (m *mover) run() error {
	nested, err := nestedSubvolumes(m.old, m.matcher)
	if err != nil {
		return err
	}
	for _, n := range nested {
		err := m.unseal(nested, n)
		if err == nil && n.kept {
			err = m.v.step("move "+n.path, func() error { return m.move(n.path) })
		}
		if err != nil {
			return err
		}
	}
	for _, root := range []*os.File{m.new, m.old} {
		if err := m.seal(root); err != nil {
			return err
		}
	}
	return nil
}

// unseal makes a subvolume writable if it has to move, since a read-only directory
// cannot change its parent, or if something has to move out of it.
func (m *mover) unseal(nested []nestedSubvolume, n nestedSubvolume) error {
	needed := n.kept
	for _, other := range nested {
		needed = needed || other.kept && other.path != n.path && below(other.path, n.path)
	}
	if !needed || !slices.Contains(m.readOnly, n.id) {
		return nil
	}
	return m.v.step("unseal "+n.path, func() error { return setReadOnly(m.old, n.path, false) })
}

// seal gives those that were read-only their flag back, also where an earlier run
// was cut off before it could.
func (m *mover) seal(root *os.File) error {
	if len(m.readOnly) == 0 {
		return nil
	}
	nested, err := nestedSubvolumes(root, m.matcher)
	if err != nil {
		return err
	}
	for _, n := range nested {
		if !slices.Contains(m.readOnly, n.id) {
			continue
		}
		err := m.v.step("seal "+n.path, func() error { return setReadOnly(root, n.path, true) })
		if err != nil {
			return err
		}
	}
	return nil
}

func setReadOnly(root *os.File, path string, readOnly bool) error {
	f, err := openDir(root, path)
	if err != nil {
		return err
	}
	defer f.Close()
	return btrfs.SetReadOnly(f, readOnly)
}

// move moves one subvolume and leaves it and the two directories as they were.
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
	root, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer root.Close()
	flags, err := btrfs.Flags(root)
	if err != nil {
		return err
	}
	held := []heldDir{{dir: from, Path: []byte(parent)}, {dir: to, New: true, Path: []byte(parent)}}
	if flags&lockFlags != 0 { // its own flags forbid the move too
		held = append(held, heldDir{dir: root, Path: []byte(path), Moves: true})
	}
	release, err := m.hold(held...)
	if err != nil {
		return err
	}
	return errors.Join(
		m.v.withRoom(func() error { return m.rename(from, to, name, path) }),
		m.v.withRoom(release))
}

// rename moves a name. What stands in its place gives way when it is empty. Else both
// stay, under two names: in a restored state the subvolume gets its own, since what
// was there is in the snapshot as well; after a cut, what a boot in between made.
func (m *mover) rename(from, to *os.File, name, path string) error {
	err := renameAnyway(from, name, to, name)
	if !errors.Is(err, unix.EEXIST) {
		return pathError("move nested subvolume", path, err)
	}
	empty, err := isEmptyDir(to, name)
	if err != nil {
		return err
	}
	if empty {
		if err := removeName(to, name, unix.AT_REMOVEDIR); err != nil {
			return err
		}
		return pathError("move nested subvolume", path, renameAnyway(from, name, to, name))
	}
	if m.restoring {
		aside, err := moveAside(to, name, to, ".restored")
		if err != nil {
			return pathError("move out of the way", path, err)
		}
		m.v.warnf("%q is a subvolume now: what the restored state has there is %q", path, aside)
		return pathError("move nested subvolume", path, renameAnyway(from, name, to, name))
	}
	aside, err := moveAside(from, name, to, ".from-"+NamePrevious)
	if err != nil {
		return pathError("move nested subvolume", path, err)
	}
	m.v.warnf("something new stands at %q: the subvolume that was there is now %q", path, aside)
	return nil
}

// moveAside moves a name to a free one that begins and ends as told.
func moveAside(from *os.File, name string, to *os.File, suffix string) (aside string, err error) {
	for n := 1; ; n++ {
		end := suffix
		if n > 1 {
			end += "-" + strconv.Itoa(n)
		}
		aside = name[:min(len(name), unix.NAME_MAX-len(end))] + end
		err := renameAnyway(from, name, to, aside)
		if !errors.Is(err, unix.EEXIST) || n == maxAside {
			return aside, err
		}
	}
}

// maxAside is how many names are tried.
const maxAside = 1000

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

// openTarget opens the directory of the new state that a subvolume moves into.
// After a reset it is there; a restored state may lack it, or have something else in
// its place, and gets it as the old state has it.
func (m *mover) openTarget(path string) (*os.File, error) {
	dir, err := openDir(m.new, path)
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
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
	release, err := m.hold(heldDir{dir: up, New: true, Path: []byte(parent)})
	if err != nil {
		return nil, err
	}
	if err := m.makeTarget(up, name, path); err != nil {
		return nil, errors.Join(err, release())
	}
	if err := release(); err != nil {
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

// makeTarget makes a directory; what stands there and is none goes aside.
func (m *mover) makeTarget(up *os.File, name, path string) error {
	err := unix.Mkdirat(int(up.Fd()), name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		aside, asideErr := moveAside(up, name, up, ".restored")
		if asideErr != nil {
			return pathError("move out of the way", path, asideErr)
		}
		m.v.warnf("a subvolume moves into the folder %q: what else was there is %q now", path, aside)
		err = unix.Mkdirat(int(up.Fd()), name, 0o700)
	}
	return pathError("make directory", path, err)
}
