package reset

import (
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// keptWalker asks the planner's question the other way round: how do the paths that
// no reset touches differ from the other tree? It reads and compares with the
// planner's own means. Nothing is to be done about what it finds, so its changes have
// no actions, and names that share an inode are compared, not arranged.
type keptWalker struct{ *walker }

// makeKeptPlan compares the kept paths of the live volume with src.Clean. If that is
// CURRENT, src.Current is it too, and what no transaction touched since is skipped. A
// path with exclude rules below it stands for what is kept there alone.
func makeKeptPlan(src Sources, m matcher) (*Plan, error) {
	w, err := newWalker(src, m)
	if err != nil {
		return nil, err
	}
	k := keptWalker{w}
	if err := k.run(); err != nil {
		return nil, err
	}
	w.plan.Moves, w.plan.stubs = nil, nil
	w.plan.sort()
	return w.plan, nil
}

func (k keptWalker) run() error {
	if k.current != nil {
		everything := []Range{{rootInode, btrfs.LastFreeID}}
		changed, _, err := k.searchChanged(everything)
		if err != nil {
			return err
		}
		for _, number := range changed {
			if err := k.mark(number); err != nil {
				return err
			}
		}
	}
	if err := k.findNested(k.live, ""); err != nil {
		return err
	}
	if err := k.markNested(); err != nil {
		return err
	}
	return k.visitBelow(at{
		state: k.matcher.Root(),
		live:  &entry{inode: rootInode}, clean: &entry{inode: rootInode},
		liveDir: place{k.live, 0}, cleanDir: place{k.clean, 0},
	})
}

// markNested marks the way to the nested subvolumes in which something changed.
func (k keptWalker) markNested() error {
	if k.marked == nil {
		return nil
	}
	for name, id := range k.nested {
		generation, err := btrfs.Generation(k.src.Live, id)
		if isGone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if generation > k.src.Since && name.tree == k.live.id {
			if err := k.mark(name.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k keptWalker) visit(a at) error {
	err := k.decide(a)
	if k.tolerates(err) {
		return nil
	}
	return err
}

// decide compares one path, or goes on towards kept ones.
func (k keptWalker) decide(a at) error {
	switch {
	case a.live == nil && a.clean == nil, !a.state.Kept() && !a.state.MayKeepBelow():
		return nil
	case a.live != nil && a.live.subvolume:
		return k.visitNested(a)
	case k.marked != nil && k.isSame(a):
		return nil
	case !a.state.Kept():
		return k.visitBelow(a)
	case a.live == nil:
		clean, err := k.readClean(a)
		if err == nil {
			k.add(a, Change{Kind: KindDeleted, Mode: clean.Mode, Size: fileSize(clean)})
		}
		return k.wrap(a, err)
	}
	live, err := a.liveDir.read(a.live.inode)
	if err != nil {
		return k.wrap(a, err)
	}
	if a.clean == nil {
		k.add(a, Change{Kind: KindAdded, Mode: live.Mode, Size: fileSize(live)})
		return nil
	}
	return k.compareBoth(a, live)
}

// isSame reports whether nothing at or below a path changed since CURRENT.
func (k keptWalker) isSame(a at) bool {
	return a.live != nil && a.clean != nil && a.live.same(*a.clean) && !k.marked[a.live.inode] &&
		a.liveDir.id == k.live.id
}

func (k keptWalker) compareBoth(a at, live *inode) error {
	clean, err := k.readClean(a)
	if err != nil {
		return k.wrap(a, err)
	}
	change := Change{Mode: live.Mode, Size: fileSize(live)}
	switch {
	case live.kind() != clean.kind() || clean.stub:
		change.Kind, change.Fields = KindType, FieldType
		k.add(a, change)
		return nil
	case live.isDir():
		change.Fields = compareInodes(live, clean)
	default:
		if change.Fields, err = k.compareWhole(a.path, a.liveDir.tree, live, clean); err != nil {
			return k.wrap(a, err)
		}
		same, err := k.sameLinks(a, live, clean)
		if err != nil {
			return k.wrap(a, err)
		}
		if !same {
			change.Fields |= FieldLinks
		}
	}
	if change.Fields != 0 {
		change.Kind = KindMetadata
		if change.Fields&(FieldContent|FieldLinks) != 0 {
			change.Kind = KindModified
		}
		k.add(a, change)
	}
	if !live.isDir() {
		return nil
	}
	return k.visitBelow(a)
}

// sameLinks reports whether two inodes have as many names: one that came or went is
// listed by itself.
func (k keptWalker) sameLinks(a at, live, clean *inode) (bool, error) {
	if live.Links <= 1 && clean.Links <= 1 {
		return true, nil
	}
	now, err := linksOutsideTrash(a.liveDir.tree, live)
	if err != nil {
		return false, err
	}
	before, err := linksOutsideTrash(k.clean, clean)
	return now == before, err
}

func linksOutsideTrash(t *tree, n *inode) (int, error) {
	refs, err := t.refs(n.number)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, ref := range refs {
		dir, err := t.path(ref.Parent)
		if err != nil {
			return 0, err
		}
		if !t.top || !below(dir+"/"+ref.Name, "/"+TrashName) {
			count++
		}
	}
	return count, nil
}

// visitNested compares a nested subvolume. Rules do not reach into a kept one, and a
// snapshot does not hold what was in it: whether anything was written to it since the
// other tree was made is all that can be told.
func (k keptWalker) visitNested(a at) error {
	_, name := splitPath(a.path)
	id, nested := k.nested[dirName{a.liveDir.id, a.liveDir.dir, name}]
	switch {
	case !nested:
		return nil // a stub, which the next reset removes
	case !a.state.Kept():
		k.plan.Branches = append(k.plan.Branches, Branch{Path: a.path, ID: id})
		return k.visitBelow(a)
	}
	c := Change{Kind: KindAdded, Mode: modeDir, act: actStub}
	if a.clean != nil && !a.clean.subvolume {
		c.Kind, c.Fields = KindType, FieldType
	}
	if a.clean != nil && a.clean.subvolume {
		c.Kind, c.Fields = KindModified, FieldContent
		base, err := btrfs.ReadInfo(k.src.Clean)
		if err != nil {
			return k.wrap(a, err)
		}
		generation, err := btrfs.Generation(k.src.Live, id)
		if err != nil || generation <= base.OTransID {
			return k.wrap(a, err)
		}
	}
	k.add(a, c)
	return nil
}

// visitBelow visits what lies in the directories that either tree has at a path.
func (k keptWalker) visitBelow(a at) error {
	live, clean, err := k.dirs(a)
	if err != nil {
		return k.wrap(a, err)
	}
	if !live.exists() && !clean.exists() {
		return nil
	}
	names, exhaustive := a.state.NextLiterals(keep.Keeps)
	if a.state.Kept() || !exhaustive {
		return k.visitAll(a, live, clean)
	}
	for _, name := range names {
		child := k.child(a, name, live, clean, place{})
		if live.exists() {
			if child.live, err = live.find(live.dir, name); err != nil {
				return k.wrap(child, err)
			}
		}
		if clean.exists() {
			if child.clean, err = clean.find(clean.dir, name); err != nil {
				return k.wrap(child, err)
			}
		}
		if err := k.visit(child); err != nil {
			return err
		}
	}
	return nil
}

func (k keptWalker) visitAll(a at, live, clean place) error {
	cleanEntries, err := k.cleanEntries(clean)
	if err != nil {
		return k.wrap(a, err)
	}
	var liveEntries []entry
	if live.exists() {
		if liveEntries, err = live.entries(live.dir); err != nil {
			return k.wrap(a, err)
		}
	}
	for i := range liveEntries {
		child := k.child(a, liveEntries[i].name, live, clean, place{})
		child.live = &liveEntries[i]
		if c, ok := cleanEntries[child.live.name]; ok {
			child.clean = c
			delete(cleanEntries, child.live.name)
		}
		if err := k.visit(child); err != nil {
			return err
		}
	}
	for name, c := range cleanEntries {
		child := k.child(a, name, live, clean, place{})
		child.clean = c
		if err := k.visit(child); err != nil {
			return err
		}
	}
	return nil
}

// dirs are the directories of both trees at a path; a thing that is none is no place.
func (k keptWalker) dirs(a at) (live, clean place, err error) {
	if a.live != nil {
		live, _, _ = k.below(a)
		if !a.live.subvolume {
			live, err = onlyDir(live)
		}
	}
	if err == nil && a.clean != nil && !a.clean.subvolume {
		clean, err = onlyDir(place{a.cleanDir.tree, a.clean.inode})
	}
	return live, clean, err
}

func onlyDir(p place) (place, error) {
	n, err := p.read(p.dir)
	if err != nil || n.kind() != unix.S_IFDIR {
		return place{}, err
	}
	return p, nil
}
