package reset

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// A restore brings paths of a snapshot back into a live volume that is mounted and in
// use, "exactly" in the sense of DESIGN section 4. What only live has stays. It is
// planned from both trees, as a reset is, and applied in three steps: everything is
// made in a staging folder that only root looks into, synced, and then renamed into
// place, one top-most path at a time. So there is never a half file under a name, and
// a restore that was cut off is finished by the same restore again.

// RestoreAction says what a restore does about a path.
type RestoreAction string

// The actions.
const (
	RestoreCreate   RestoreAction = "create"   // live has nothing there
	RestoreReplace  RestoreAction = "replace"  // live has something else there: needs force
	RestoreMetadata RestoreAction = "metadata" // a directory with other owner, mode …: needs force
	RestoreFlags    RestoreAction = "flags"    // only flags that forbid changes are missing
	RestoreSkip     RestoreAction = "skip"     // the stub of a nested subvolume, which no snapshot holds
)

// RestoreItem is a top-most path that a restore deals with. One that is created stands
// for all below it.
type RestoreItem struct {
	Path   string
	Action RestoreAction
	// OnTheWay says that a directory is created only to hold paths that are restored.
	OnTheWay bool
	Mode     uint32 // st_mode in the snapshot
	Size     uint64 // bytes of the files that are created, or replace others
	Names    int64  // how many names that are
	Fields   Fields // what differs, for replace and metadata
	// LiveMode and LiveSize are of what is replaced.
	LiveMode uint32
	LiveSize uint64

	sel     *selection // below a directory that is created; nil is everything
	subvol  string     // the nested subvolume of live that it goes to; "" is the volume
	dirMade bool       // the time of the directory that holds it was the snapshot's, and stays
}

// Conflict reports whether the item overwrites what live has.
func (i *RestoreItem) Conflict() bool {
	return i.Action == RestoreReplace || i.Action == RestoreMetadata && i.Fields&^FieldMTime != 0
}

// Restore is the plan of a restore in one volume.
type Restore struct {
	Items []RestoreItem // in the order of their paths
	// Same is how many names live has exactly as the snapshot.
	Same int64
	// LiveOnly are top-most paths in restored directories that only live has, and that
	// stay.
	LiveOnly []string

	live, source *os.File
	links        map[string]restoreLink // names that are not made but linked
	subvols      map[string]bool        // the subvolumes of live that were come across
}

// Conflicts reports whether the restore would overwrite something.
func (r *Restore) Conflicts() bool {
	for i := range r.Items {
		if r.Items[i].Conflict() {
			return true
		}
	}
	return false
}

// NotInSnapshotError says that a path to restore is not in the snapshot.
type NotInSnapshotError struct {
	Path     string
	At       string // the first path on the way that is not there, or no directory
	Mode     uint32 // st_mode of what is there; 0 for nothing
	Snapshot string // its name, where known
}

// Error names the path.
func (e *NotInSnapshotError) Error() string {
	snapshot := cmp.Or(e.Snapshot, "the snapshot")
	switch {
	case e.Mode == 0:
		return fmt.Sprintf("%q is not in %s", e.Path, snapshot)
	case e.Mode&modeType == modeDir:
		return fmt.Sprintf("%q was a nested subvolume, which %s does not hold", e.At, snapshot)
	}
	return fmt.Sprintf("%q is a %s in %s: nothing is below it", e.At, TypeName(e.Mode), snapshot)
}

// BlockedError says that something in the live volume must be dealt with before a
// path can be restored, by force or not.
type BlockedError struct {
	Path string
	Why  string
}

// Error names the path and the cure.
func (e *BlockedError) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Why) }

// PlanRestore compares paths of a snapshot with the live volume. live is the open root
// of the mounted volume, source that of the snapshot; both stay the caller's until the
// plan is applied. Paths begin at the volume's root. It writes nothing but what it
// commits.
func PlanRestore(live, source *os.File, paths []string) (*Restore, error) {
	root, err := selectPaths(paths)
	if err != nil {
		return nil, err
	}
	if err := btrfs.Sync(live); err != nil { // what is in memory is not in the trees
		return nil, err
	}
	p := &restorePlanner{
		plan:   &Restore{live: live, source: source, links: map[string]restoreLink{}, subvols: map[string]bool{"": true}},
		groups: map[restoreKey]*restoreGroup{}, sized: map[liveInode]bool{},
	}
	if p.live, err = newRestoreTree(live); err != nil {
		return nil, err
	}
	if p.source, err = newRestoreTree(source); err != nil {
		return nil, err
	}
	top := restoreAt{
		sel:     root,
		source:  p.source.at(rootInode),
		live:    p.live.at(rootInode),
		subvol:  "",
		liveDir: place{p.live.tree, rootInode},
	}
	if err := p.children(top); err != nil {
		return nil, err
	}
	if err := p.link(); err != nil {
		return nil, err
	}
	sortBy(p.plan.LiveOnly, comparePaths, func(path *string) string { return *path })
	sortBy(p.plan.Items, comparePaths, func(i *RestoreItem) string { return i.Path })
	return p.plan, p.checkLive()
}

// selection is what is to be restored at a path and below: the children named, or
// with nil in its place everything.
type selection struct{ below map[string]*selection }

// selectPaths makes one selection of paths; a path takes in those below it.
func selectPaths(paths []string) (*selection, error) {
	root := &selection{below: map[string]*selection{}}
	for _, path := range paths {
		names := splitComponents(path)
		if len(names) == 0 {
			return nil, errors.New("a whole volume is restored at boot: choose \"restore previous\" in the boot menu")
		}
		if reservedName(names[0]) {
			return nil, fmt.Errorf("%q is the toolkit's own", path)
		}
		at := root
		for i, name := range names {
			next, known := at.below[name]
			if known && next == nil {
				break // a path above it takes it in
			}
			if i == len(names)-1 {
				at.below[name] = nil
				break
			}
			if !known {
				next = &selection{below: map[string]*selection{}}
				at.below[name] = next
			}
			at = next
		}
	}
	return root, nil
}

// restoreTree is a volume with all that is nested in it.
type restoreTree struct {
	*tree

	nested map[dirName]uint64
}

func newRestoreTree(root *os.File) (*restoreTree, error) {
	info, err := btrfs.ReadInfo(root)
	if err != nil {
		return nil, err
	}
	t := &restoreTree{tree: newTree(root, info.ID), nested: map[dirName]uint64{}}
	for list := []uint64{info.ID}; len(list) > 0; list = list[1:] {
		children, err := btrfs.Children(root, list[0])
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			t.nested[dirName{list[0], c.DirID, c.Name}] = c.ID
			list = append(list, c.ID)
		}
	}
	return t, nil
}

// thing is what stands at a path in a tree: its inode, and the place of its entries if
// it is a directory.
type thing struct {
	*inode

	place  place
	nested bool // the root of a nested subvolume
}

func (t *restoreTree) at(number uint64) *thing {
	root := &inode{number: number}
	root.Mode = modeDir
	return &thing{inode: root, place: place{t.tree, number}}
}

// lookup reads what an entry of a directory names. Of a stub the inode says so.
func (t *restoreTree) lookup(dir place, e *entry) (*thing, error) {
	if !e.subvolume {
		n, err := dir.read(e.inode)
		if err != nil {
			return nil, err
		}
		return &thing{inode: n, place: place{dir.tree, e.inode}}, nil
	}
	id, nested := t.nested[dirName{dir.id, dir.dir, e.name}]
	if !nested {
		stub := &inode{number: btrfs.EmptyDirID, stub: true}
		stub.Mode = modeDir | 0o755
		return &thing{inode: stub}, nil
	}
	at := place{dir.nested(id), rootInode}
	n, err := at.read(rootInode)
	if err != nil {
		return nil, err
	}
	return &thing{inode: n, place: at, nested: true}, nil
}

// find looks a name up; nil if there is none.
func (t *restoreTree) find(dir place, name string) (*thing, error) {
	e, err := dir.find(dir.dir, name)
	if err != nil || e == nil {
		return nil, err
	}
	return t.lookup(dir, e)
}

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
