package reset

import "golang.org/x/sys/unix"

// Hard links. Names outside kept paths that share an inode in CLEAN share one in
// the new state. One of the live inodes that they have now can carry them all if
// it is as CLEAN's and no kept name shares it; or if all of them share it now, with
// no kept names but such as CLEAN links with them too. Else the first name is made
// anew. Inodes cannot be shared between
// subvolumes, so names in different branches are groups of their own.

// groupKey names a group: an inode of CLEAN, and the live subvolume that the names
// lie in.
type groupKey struct{ clean, subvolume uint64 }

// liveInode names an inode of a live subvolume.
type liveInode struct{ subvolume, number uint64 }

// group is the names of one inode of CLEAN that the walk came across.
type group struct {
	inside map[string]bool // names in a directory that comes back as a whole
}

// group gives the group that a path outside kept paths belongs to.
func (w *walker) group(a at, clean uint64) *group {
	subvolume := w.live.id
	if branch := w.plan.branchOf(a.path); branch != nil {
		subvolume = branch.ID
	}
	key := groupKey{clean, subvolume}
	g := w.groups[key]
	if g == nil {
		g = &group{inside: map[string]bool{}}
		w.groups[key] = g
	}
	return g
}

// name is one name of a group, and what live has there.
type name struct {
	at

	inode *inode // live's; nil for none
}

// resolvedGroup is a group with all of its names that the new state has.
type resolvedGroup struct {
	*group

	key   groupKey
	clean *inode
	names []name // in the order of paths
	looks map[uint64]look
}

// look is what a live inode is to a group. All of its names share it, and there can
// be very many.
type look struct {
	fields Fields // in what it differs from CLEAN's
	carry  bool   // it can be the one inode of the group
}

func (w *walker) resolveGroups() error {
	var groups []*resolvedGroup
	for key, g := range w.groups {
		r, err := w.resolveNames(key, g)
		if w.tolerates(err) {
			continue
		}
		if err != nil {
			return err
		}
		if len(r.names) > 0 {
			groups = append(groups, r)
		}
	}
	sortBy(groups, comparePaths, func(g **resolvedGroup) string { return (*g).names[0].path })
	taken := map[liveInode]bool{}
	for _, g := range groups {
		if err := w.resolveGroup(g, taken); err != nil && !w.tolerates(err) {
			return err
		}
	}
	return nil
}

// resolveNames finds all names of a group that the new state has.
func (w *walker) resolveNames(key groupKey, g *group) (*resolvedGroup, error) {
	clean, err := w.clean.read(key.clean)
	if err != nil {
		return nil, err
	}
	refs, err := w.clean.refs(key.clean)
	if err != nil {
		return nil, err
	}
	r := &resolvedGroup{key: key, clean: clean, group: g, looks: map[uint64]look{}}
	for _, ref := range refs {
		dir, err := w.clean.path(ref.Parent)
		if err != nil {
			return nil, err
		}
		path := dir + "/" + ref.Name
		if isReserved(path) {
			continue // of a CLEAN or CURRENT that was taken from a live volume
		}
		n, ok, err := w.inNewState(path, key.clean)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		subvolume := w.live.id
		if branch := w.plan.branchOf(path); branch != nil {
			subvolume = branch.ID
		}
		if subvolume == key.subvolume {
			r.names = append(r.names, n)
		}
	}
	sortBy(r.names, comparePaths, func(n *name) string { return n.path })
	return r, nil
}

// inNewState reports whether the new state has CLEAN's file at a path of CLEAN:
// not if it is kept, if a kept directory above it is gone, or if live has a
// directory there that holds kept paths.
func (w *walker) inNewState(path string, clean uint64) (name, bool, error) {
	n := name{at: at{
		path: path, state: w.matcher.Root(),
		live: &entry{inode: rootInode}, liveDir: place{w.live, 0},
		clean: &entry{inode: clean},
	}}
	for _, component := range splitComponents(path) {
		if n.live != nil {
			if n.live.subvolume {
				_, last := splitPath(n.path)
				if _, nested := w.nested[dirName{n.liveDir.id, n.liveDir.dir, last}]; !nested || n.state.Kept() {
					n.live = nil
				}
			}
		}
		dir := place{}
		if n.live != nil {
			dir, _, _ = w.below(at{live: n.live, liveDir: n.liveDir})
		}
		if n.state.Kept() {
			isDir, err := dir.isDir()
			if err != nil || !isDir {
				return n, false, err
			}
		}
		n.state = n.state.Step(component)
		n.liveDir, n.live = dir, nil
		if !dir.exists() {
			continue
		}
		var err error
		if n.live, err = dir.find(dir.dir, component); err != nil {
			return n, false, err
		}
	}
	if n.state.Kept() {
		return n, false, nil
	}
	return w.readName(n)
}

// readName reads what live has at the name.
func (w *walker) readName(n name) (name, bool, error) {
	if n.live == nil {
		return n, true, nil
	}
	root := place{}
	if n.live.subvolume {
		_, last := splitPath(n.path)
		id, nested := w.nested[dirName{n.liveDir.id, n.liveDir.dir, last}]
		if nested {
			root = place{n.liveDir.nested(id), rootInode}
		}
		n.inode = &inode{number: btrfsStub}
		n.inode.Mode = modeDir
	} else {
		var err error
		if n.inode, err = n.liveDir.read(n.live.inode); err != nil {
			return n, false, err
		}
		if n.inode.isDir() {
			root = place{n.liveDir.tree, n.live.inode}
		}
	}
	if !root.exists() {
		return n, true, nil
	}
	holds, err := w.holdsKept(root, n.state)
	return n, !holds, err
}

// btrfsStub marks a live name that is a subvolume.
const btrfsStub = 0

// resolveGroup decides what becomes of each name of a group.
func (w *walker) resolveGroup(g *resolvedGroup, taken map[liveInode]bool) error {
	fields := make([]Fields, len(g.names))
	carrier := -1
	for i, n := range g.names {
		if n.inode == nil || n.inode.number == btrfsStub {
			fields[i] = FieldType
			continue
		}
		l, err := w.look(g, n, carrier < 0 && !taken[liveInode{g.key.subvolume, n.inode.number}])
		if err != nil {
			return w.wrap(n.at, err)
		}
		fields[i] = l.fields
		if carrier < 0 && l.carry {
			carrier = i
		}
	}
	var carried *inode
	first := 0
	if carrier >= 0 {
		carried, first = g.names[carrier].inode, carrier
		taken[liveInode{g.key.subvolume, carried.number}] = true
	}
	mended := false
	for i, n := range g.names {
		switch {
		case carried != nil && n.inode != nil && n.inode.number == carried.number:
			if fields[i] == 0 {
				continue
			}
			c := Change{Kind: KindMetadata, Fields: fields[i], Mode: n.inode.Mode, Size: n.inode.Size}
			if !mended { // once for all names
				c.act = actMetadata
			}
			w.add(n.at, c)
			mended = true
		default:
			linkTo := ""
			if i != first {
				linkTo = g.names[first].path
			}
			if err := w.addName(g, n, fields[i], linkTo); err != nil {
				return w.wrap(n.at, err)
			}
		}
	}
	return nil
}

// look looks at the live inode of a name, free to carry the group or not.
func (w *walker) look(g *resolvedGroup, n name, free bool) (look, error) {
	l, known := g.looks[n.inode.number]
	if known {
		return l, nil
	}
	var err error
	if l.fields, err = w.compareWhole(n.path, n.liveDir.tree, n.inode, g.clean); err != nil {
		return l, err
	}
	if free {
		l.carry, err = w.canCarry(g, n, l.fields)
	}
	g.looks[n.inode.number] = l
	return l, err
}

// addName makes a name anew, or as a link to another.
func (w *walker) addName(g *resolvedGroup, n name, fields Fields, linkTo string) error {
	if g.inside[n.path] {
		if linkTo != "" {
			w.plan.links[n.path] = linkTo
		}
		return nil
	}
	c := Change{Kind: KindDeleted, Mode: g.clean.Mode, Size: g.clean.Size, act: actCreate, linkTo: linkTo}
	if n.inode != nil {
		c.Mode, c.Size = n.inode.Mode, fileSize(n.inode)
		c.Fields = fields
		c.act |= actRemove
		if n.inode.number == btrfsStub {
			c.act |= actStub
		} else if linked, err := w.linkedAlike(g, n); err != nil {
			return err
		} else if !linked {
			c.Fields |= FieldLinks
		}
		c.Kind = KindMetadata
		if c.Fields&(FieldContent|FieldLinks) != 0 {
			c.Kind = KindModified
		}
		if fields&FieldType != 0 {
			c.Kind, c.Fields = KindType, FieldType
		}
	}
	if linkTo != "" {
		c.act = c.act&^actCreate | actLink
	}
	w.add(n.at, c)
	return nil
}

// linkedAlike reports whether the live inode of a name has the names of its group, and
// no other but in the trash.
func (w *walker) linkedAlike(g *resolvedGroup, n name) (bool, error) {
	if int(n.inode.Links) < len(g.names) {
		return false, nil
	}
	prefix, found := "", 0
	if branch := w.plan.branchOf(n.path); branch != nil {
		prefix = branch.Path
	}
	names := make(map[string]bool, len(g.names))
	for _, o := range g.names {
		names[o.path] = true
	}
	refs, err := n.liveDir.refs(n.inode.number)
	if err != nil {
		return false, err
	}
	for _, ref := range refs {
		dir, err := n.liveDir.path(ref.Parent)
		if err != nil {
			return false, err
		}
		path := prefix + dir + "/" + ref.Name
		if below(path, "/"+TrashName) {
			continue
		}
		if !names[path] {
			return false, nil
		}
		found++
	}
	return found == len(g.names), nil
}

// canCarry reports whether the live inode of a name can be the one inode of its
// group.
func (w *walker) canCarry(g *resolvedGroup, n name, fields Fields) (bool, error) {
	if fields&(FieldType|FieldContent) != 0 || fields&FieldFlags != 0 && n.inode.kind() == unix.S_IFREG {
		return false, nil
	}
	prefix := ""
	if branch := w.plan.branchOf(n.path); branch != nil {
		prefix = branch.Path
	}
	refs, err := n.liveDir.refs(n.inode.number)
	if err != nil {
		return false, err
	}
	shared, alone := false, g.shareInode(n.inode.number)
	dirs := map[uint64]string{} // most names lie in few directories
	for _, ref := range refs {
		dir, known := dirs[ref.Parent]
		if !known {
			if dir, err = n.liveDir.path(ref.Parent); err != nil {
				return false, err
			}
			dirs[ref.Parent] = dir
		}
		path := prefix + dir + "/" + ref.Name
		if !stateAt(w.matcher, path).Kept() {
			continue
		}
		linked, err := w.cleanNames(path, g.key.clean)
		if err != nil || !linked || fields != 0 || !alone {
			return false, err
		}
		shared = true
	}
	if shared && g.key.subvolume == w.live.id {
		w.plan.shared = append(w.plan.shared, n.inode.number)
	}
	return true, nil
}

// shareInode reports whether all names of the group are names of one live inode.
func (g *resolvedGroup) shareInode(number uint64) bool {
	for _, n := range g.names {
		if n.inode == nil || n.inode.number != number {
			return false
		}
	}
	return true
}

// cleanNames reports whether a path of CLEAN names the given inode.
func (w *walker) cleanNames(path string, number uint64) (bool, error) {
	at := &entry{inode: rootInode}
	for _, component := range splitComponents(path) {
		var err error
		if at, err = w.clean.find(at.inode, component); err != nil || at == nil || at.subvolume {
			return false, err
		}
	}
	return at.inode == number, nil
}
