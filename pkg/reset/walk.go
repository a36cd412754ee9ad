package reset

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

const (
	modeType = unix.S_IFMT
	modeDir  = unix.S_IFDIR
)

// matcher decides which paths are kept.
type matcher = *keep.Matcher

// Sources are the trees that a plan is made from: the open root directories of
// subvolumes, which stay the caller's.
type Sources struct {
	Live  *os.File
	Clean *os.File
	// Current and Since are the proof of the shortcut: a snapshot of this very
	// live subvolume, as the last reset under these rules to this CLEAN left it,
	// and the transaction that made it. Outside holds its inodes outside kept paths.
	// Without Current, everything is compared.
	Current *os.File
	Since   uint64
	Outside []Range
	// Shared are those of its inodes that have kept names too.
	Shared []uint64
	// NoStubs says that a reset made the live volume at the transaction Since, so
	// that it holds no stub of a nested subvolume, whatever changed in it later.
	NoStubs bool
	// InUse says that the live volume may change meanwhile: what vanishes is left
	// out. It is for plans that are only shown.
	InUse bool
}

// MakePlan finds what a reset of a live volume would change, and writes nothing.
// The live volume must be synced, and not in use unless the sources say so.
func MakePlan(src Sources, m *keep.Matcher) (*Plan, error) {
	w, err := newWalker(src, m)
	if err != nil {
		return nil, err
	}
	if err := w.run(); err != nil {
		return nil, err
	}
	return w.plan, nil
}

// walker compares the trees of one volume.
type walker struct {
	src     Sources
	matcher matcher
	live    *tree // the volume's own subvolume
	clean   *tree
	current *tree // nil when everything is compared

	nested  map[dirName]uint64 // subvolumes that really lie in live, or in a branch of it
	marked  map[uint64]bool    // inodes of live with a change at or below them
	parents map[uint64]uint64  // of inodes with one name that changed
	groups  map[groupKey]*group

	plan    *Plan
	outside []uint64
}

// dirName is a name in a directory of a subvolume.
type dirName struct {
	tree, dir uint64
	name      string
}

// place is a directory in one of the trees; the zero place is none.
type place struct {
	*tree

	dir uint64
}

func (p place) exists() bool { return p.tree != nil }

// isDir reports whether the place is there and is a directory.
func (p place) isDir() (bool, error) {
	if !p.exists() {
		return false, nil
	}
	n, err := p.read(p.dir)
	return err == nil && n.isDir(), err
}

// at is one path as the trees show it.
type at struct {
	path  string // without the root's slash: "" is the root
	state keep.State

	live, clean, current          *entry
	liveDir, cleanDir, currentDir place // the directories that hold them
}

func newWalker(src Sources, m matcher) (*walker, error) {
	info, err := btrfs.ReadInfo(src.Live)
	if err != nil {
		return nil, err
	}
	cleanInfo, err := btrfs.ReadInfo(src.Clean)
	if err != nil {
		return nil, err
	}
	w := &walker{
		src: src, matcher: m,
		live: newTree(src.Live, info.ID), clean: newTree(src.Clean, cleanInfo.ID),
		nested: map[dirName]uint64{}, groups: map[groupKey]*group{},
		plan: &Plan{Way: WayFull, matcher: m, links: map[string]string{}},
	}
	if src.Current != nil {
		currentInfo, err := btrfs.ReadInfo(src.Current)
		if err != nil {
			return nil, err
		}
		w.current = newTree(src.Current, currentInfo.ID)
		w.plan.Way = WayChanged
	}
	return w, nil
}

func (w *walker) run() error {
	if w.current != nil {
		if err := w.markChanges(); err != nil {
			return err
		}
	}
	if err := w.findNested(w.live, ""); err != nil {
		return err
	}
	root := at{
		state: w.matcher.Root(),
		live:  &entry{inode: rootInode}, clean: &entry{inode: rootInode},
		liveDir: place{w.live, 0}, cleanDir: place{w.clean, 0},
	}
	if w.current != nil {
		root.current, root.currentDir = &entry{inode: rootInode}, place{w.current, 0}
	}
	w.outside = append(w.outside, rootInode)
	if err := w.outsideBoth(root); err != nil {
		return err
	}
	if w.current == nil && !w.src.NoStubs {
		if err := w.findStubs(w.live); err != nil {
			return err
		}
	}
	if err := w.resolveGroups(); err != nil {
		return err
	}
	w.plan.outside = makeRanges(w.outside, w.src.Outside...)
	w.plan.sort()
	return nil
}

// visit decides about one path below the root.
func (w *walker) visit(a at) error {
	err := w.decide(a)
	if w.tolerates(err) {
		return nil
	}
	return err
}

// tolerates reports whether an error is of something that vanished, in a volume in use.
func (w *walker) tolerates(err error) bool {
	if !w.src.InUse || !isGone(err) {
		return false
	}
	w.plan.missed++
	return true
}

// isGone reports whether something was not there any more, or had become something
// else, when it was looked at.
func isGone(err error) bool {
	for _, gone := range []error{errNoInode, unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.ESTALE} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

func (w *walker) decide(a at) error {
	if a.live != nil && a.live.subvolume {
		return w.visitSubvolume(a)
	}
	if a.state.Kept() {
		if a.live == nil {
			return nil // what the owner deleted stays deleted
		}
		return w.visitExcluded(a)
	}
	switch {
	case a.live == nil && a.clean == nil:
		return nil
	case a.live == nil:
		return w.bring(a, KindDeleted, 0)
	case w.unchanged(a):
		return w.visitExcluded(a)
	}
	w.remember(a)
	return w.outsideBoth(a)
}

// remember notes an inode that lies outside kept paths and may stay.
func (w *walker) remember(a at) {
	if a.liveDir.id == w.live.id {
		w.outside = append(w.outside, a.live.inode)
	}
}

// unchanged reports whether the proof holds that nothing at or below a path
// outside kept paths has changed since CURRENT, when it was as CLEAN has it.
func (w *walker) unchanged(a at) bool {
	return a.current != nil && a.live != nil && a.live.same(*a.current) && !w.marked[a.live.inode]
}

// visitExcluded follows exclude rules through a directory in which nothing else is
// of interest: a kept one, or one outside kept paths in which nothing changed. What
// the rules name below a kept path may be new all the same.
func (w *walker) visitExcluded(a at) error {
	if !a.state.ExcludeBelow() {
		return nil
	}
	n, err := a.liveDir.read(a.live.inode)
	if err != nil || !n.isDir() {
		return w.wrap(a, err)
	}
	return w.visitNamed(a)
}

// outsideBoth compares a path outside kept paths that live has, and CLEAN may have.
func (w *walker) outsideBoth(a at) error {
	live, err := a.liveDir.read(a.live.inode)
	if err != nil {
		return w.wrap(a, err)
	}
	clean, err := w.readClean(a)
	if err != nil {
		return w.wrap(a, err)
	}
	if !live.isDir() {
		return w.compareFiles(a, live, clean)
	}
	return w.compareDir(a, live, clean, actMetadata)
}

// compareDir decides about a live directory. A branch, a nested subvolume that
// counts as one, comes here too.
func (w *walker) compareDir(a at, live, clean *inode, metadata action) error {
	if clean == nil || !clean.isDir() || clean.stub {
		holds, err := w.holdsKept(place{w.dirTree(a), live.number}, a.state)
		switch {
		case err != nil:
			return w.wrap(a, err)
		case holds: // live's directory counts, with live's metadata
			a.clean = nil
			return w.visitChildren(a)
		case clean == nil || !clean.isDir():
			return w.wipeOrReplace(a, live, clean)
		}
	}
	if f := compareInodes(live, clean); f != 0 {
		w.add(a, Change{Kind: KindMetadata, Fields: f, Mode: live.Mode, act: metadata})
	}
	return w.visitChildren(a)
}

// wipeOrReplace removes what live has, and makes what CLEAN has, if anything.
func (w *walker) wipeOrReplace(a at, live, clean *inode) error {
	if clean == nil {
		w.add(a, Change{Kind: KindAdded, Mode: live.Mode, Size: fileSize(live), act: actRemove})
		return nil
	}
	return w.bring(a, KindType, actRemove)
}

// compareFiles decides about a live path that is no directory.
func (w *walker) compareFiles(a at, live, clean *inode) error {
	switch {
	case clean == nil:
		w.add(a, Change{Kind: KindAdded, Mode: live.Mode, Size: fileSize(live), act: actRemove})
		return nil
	case clean.isDir():
		return w.bring(a, KindType, actRemove)
	case live.Links > 1 || clean.Links > 1:
		w.group(a, clean.number)
		return nil
	}
	fields, err := w.compareWhole(a.path, a.liveDir.tree, live, clean)
	if err != nil {
		return w.wrap(a, err)
	}
	if fields != 0 {
		w.add(a, fileChange(live, clean, fields))
	}
	return nil
}

// fileChange is the change of a file that differs and shares its inode with no
// other name.
func fileChange(live, clean *inode, fields Fields) Change {
	c := Change{Fields: fields, Mode: live.Mode, Size: fileSize(live)}
	switch {
	case fields&FieldType != 0:
		c.Kind, c.act = KindType, actRemove|actCreate
	case fields&FieldContent != 0 && fields&(FieldFlags|FieldLinks) == 0 && live.kind() == unix.S_IFREG:
		// Much cheaper than another file in its place: no directory changes.
		c.Kind, c.act = KindModified, actContent
		c.content = &contentChange{
			size:  clean.Size,
			mtime: unix.Timespec{Sec: clean.MTime.Sec, Nsec: int64(clean.MTime.Nsec)},
			plain: fields&(FieldOwner|FieldMode) == 0 && len(live.xattrs)+len(clean.xattrs) == 0,
		}
	case fields&(FieldContent|FieldLinks) != 0, fields&FieldFlags != 0 && live.kind() == unix.S_IFREG:
		// Some flags (NOCOW) can only be set on an empty file.
		c.Kind, c.act = KindModified, actRemove|actCreate
		if fields&(FieldContent|FieldLinks) == 0 {
			c.Kind = KindMetadata
		}
	default:
		c.Kind, c.act = KindMetadata, actMetadata
	}
	return c
}

// compareWhole compares two inodes, content included.
func (w *walker) compareWhole(path string, liveTree *tree, live, clean *inode) (Fields, error) {
	fields := compareInodes(live, clean)
	if fields&(FieldType|FieldContent) != 0 || live.Size == 0 {
		return fields, nil
	}
	if live.kind() != unix.S_IFREG && live.kind() != unix.S_IFLNK {
		return fields, nil
	}
	from, differ, err := firstDifference(liveTree, live.number, w.clean, clean.number)
	if err != nil || !differ {
		return fields, err
	}
	if live.kind() == unix.S_IFLNK {
		return fields | FieldContent, nil
	}
	same, err := w.sameContent(path, clean.number, from)
	if err == nil && !same {
		fields |= FieldContent
	}
	return fields, err
}

// sameContent reads both files from the first extent that they do not share.
func (w *walker) sameContent(path string, cleanInode, from uint64) (bool, error) {
	live, err := openRegular(w.src.Live, path)
	if err != nil {
		return false, err
	}
	defer live.Close()
	refs, err := w.clean.refs(cleanInode)
	if err != nil || len(refs) == 0 {
		return false, errors.Join(err, errNoInode)
	}
	dir, err := w.clean.path(refs[0].Parent)
	if err != nil {
		return false, err
	}
	clean, err := openRegular(w.src.Clean, dir+"/"+refs[0].Name)
	if err != nil {
		return false, err
	}
	defer clean.Close()
	return sameBytes(live, clean, int64(from))
}

// bring makes what CLEAN has at a path, and all below it that is not kept: what is
// kept is not there in live, or the path would hold it. Names inside that share an
// inode are left to the groups.
func (w *walker) bring(a at, kind Kind, remove action) error {
	clean, err := w.readClean(a)
	if err != nil {
		return w.wrap(a, err)
	}
	c := Change{Kind: kind, Mode: clean.Mode, Size: fileSize(clean), act: remove | actCreate}
	if kind == KindType {
		c.Fields = FieldType
	}
	if a.live != nil && !a.live.subvolume {
		live, err := a.liveDir.read(a.live.inode)
		if err != nil {
			return w.wrap(a, err)
		}
		c.Mode, c.Size = live.Mode, fileSize(live)
	}
	if !clean.isDir() {
		if clean.Links > 1 {
			w.group(a, clean.number)
			return nil
		}
		w.add(a, c)
		return nil
	}
	w.add(a, c)
	return w.bringBelow(a.path, a.state, clean)
}

// bringBelow looks for shared inodes in a directory of CLEAN that comes back.
func (w *walker) bringBelow(path string, state keep.State, dir *inode) error {
	if dir.stub {
		return nil
	}
	entries, err := w.clean.entries(dir.number)
	if err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		child := at{path: path + "/" + e.name, state: state.Step(e.name), clean: e, cleanDir: place{w.clean, dir.number}}
		if child.state.Kept() || e.subvolume {
			continue
		}
		n, err := w.clean.read(e.inode)
		if err != nil {
			return w.wrap(child, err)
		}
		switch {
		case n.isDir():
			err = w.bringBelow(child.path, child.state, n)
		case n.Links > 1:
			w.group(child, n.number).inside[child.path] = true
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readClean reads CLEAN's side of a path; nil if it has none.
func (w *walker) readClean(a at) (*inode, error) {
	switch {
	case a.clean == nil:
		return nil, nil
	case a.clean.subvolume:
		stub := &inode{number: btrfs.EmptyDirID, stub: true}
		stub.Mode = modeDir | 0o755
		return stub, nil
	}
	return a.cleanDir.read(a.clean.inode)
}

func (w *walker) add(a at, c Change) {
	c.Path = a.path
	if c.Path == "" {
		c.Path = "/"
	}
	w.plan.Changes = append(w.plan.Changes, c)
}

func (w *walker) wrap(a at, err error) error {
	if err == nil || errors.As(err, new(*comparePathError)) {
		return err
	}
	return &comparePathError{path: a.path, err: err}
}

// comparePathError names the path at which a comparison failed.
type comparePathError struct {
	path string
	err  error
}

func (e *comparePathError) Error() string { return fmt.Sprintf("compare %q: %v", e.path, e.err) }
func (e *comparePathError) Unwrap() error { return e.err }

func fileSize(n *inode) uint64 {
	if n.isDir() {
		return 0
	}
	return n.Size
}
