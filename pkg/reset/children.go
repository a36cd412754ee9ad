package reset

import (
	"slices"
	"sort"

	"nixos-go/pkg/keep"
)

// dirTree is the subvolume that a live directory's children lie in: its own, or
// for a branch the nested one.
func (w *walker) dirTree(a at) *tree {
	if a.live.subvolume {
		return a.liveDir.nested(a.live.inode)
	}
	return a.liveDir.tree
}

// below gives the directories that a path itself is in each tree.
func (w *walker) below(a at) (live, clean, current place) {
	live = place{w.dirTree(a), a.live.inode}
	if a.live.subvolume {
		live.dir = rootInode
	}
	if a.clean != nil && !a.clean.subvolume {
		clean = place{a.cleanDir.tree, a.clean.inode}
	}
	if a.current != nil && !a.current.subvolume && !a.live.subvolume {
		current = place{a.currentDir.tree, a.current.inode}
	}
	return live, clean, current
}

// visitChildren visits what lies in a live directory outside kept paths, and in
// CLEAN's directory of that path if it is one.
func (w *walker) visitChildren(a at) error {
	live, clean, current := w.below(a)
	if current.exists() && a.live.same(*a.current) {
		return w.visitChanged(a, live, clean, current)
	}
	liveEntries, err := live.entries(live.dir)
	if err != nil {
		return w.wrap(a, err)
	}
	cleanEntries, err := w.cleanEntries(clean)
	if err != nil {
		return w.wrap(a, err)
	}
	list := make([]names, 0, len(liveEntries))
	for i := range liveEntries {
		n := names{live: &liveEntries[i]}
		if c, ok := cleanEntries[n.live.name]; ok {
			n.clean = c
			delete(cleanEntries, n.live.name)
		}
		list = append(list, n)
	}
	for _, c := range cleanEntries {
		list = append(list, names{clean: c})
	}
	return w.visitEach(a, list, live, clean, place{})
}

// names is one name in a directory, as the trees show it.
type names struct{ live, clean, current *entry }

func (n names) name() string {
	for _, e := range []*entry{n.live, n.clean, n.current} {
		if e != nil {
			return e.name
		}
	}
	return ""
}

// visitEach visits names in a directory. The inodes of many are read ahead, some at a
// time, since a directory can be of any size.
func (w *walker) visitEach(a at, list []names, live, clean, current place) error {
	for chunk := range slices.Chunk(list, fetchChunk) {
		if len(list) > fewNames {
			if err := w.fetchBoth(a, live, clean, chunk); err != nil {
				return w.wrap(a, err)
			}
		}
		for _, n := range chunk {
			child := w.child(a, n.name(), live, clean, current)
			child.live, child.clean, child.current = n.live, n.clean, n.current
			if err := w.visit(child); err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanEntries lists CLEAN's directory by name. A CLEAN that is not a directory
// has no entries: its items of that type do not exist.
func (w *walker) cleanEntries(clean place) (map[string]*entry, error) {
	if !clean.exists() {
		return nil, nil
	}
	list, err := clean.entries(clean.dir)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*entry, len(list))
	for i := range list {
		out[list[i].name] = &list[i]
	}
	return out, nil
}

// visitChanged visits only those entries of a directory, one and the same in live
// and CURRENT, that are not what they were, or have a change below them, or lie on
// the way of an exclude rule.
func (w *walker) visitChanged(a at, live, clean, current place) error {
	changed, err := w.changedNames(a, live, current)
	if err != nil {
		return w.wrap(a, err)
	}
	list := make([]names, 0, len(changed))
	for _, p := range changed {
		if p.live != nil || p.current != nil {
			list = append(list, names{live: p.live, current: p.current})
		}
	}
	if err := w.findClean(list, clean); err != nil {
		return w.wrap(a, err)
	}
	// Near inodes are read together.
	number := func(n names) uint64 {
		if n.live != nil {
			return n.live.inode
		}
		return n.current.inode
	}
	sort.Slice(list, func(i, j int) bool { return number(list[i]) < number(list[j]) })
	return w.visitEach(a, list, live, clean, current)
}

// fewNames is how many names are looked up one by one; for more, CLEAN's directory
// is listed and the inodes are read ahead, so many at a time.
const (
	fewNames   = 4
	fetchChunk = 1024
)

// findClean finds what CLEAN has under the names.
func (w *walker) findClean(list []names, clean place) error {
	if !clean.exists() {
		return nil
	}
	if len(list) > fewNames {
		entries, err := w.cleanEntries(clean)
		for i := range list {
			list[i].clean = entries[list[i].name()]
		}
		return err
	}
	for i := range list {
		var err error
		if list[i].clean, err = clean.find(clean.dir, list[i].name()); err != nil {
			return err
		}
	}
	return nil
}

// fetchBoth reads the inodes ahead that are going to be compared.
func (w *walker) fetchBoth(a at, live, clean place, list []names) error {
	var inLive, inClean []uint64
	for _, n := range list {
		if a.state.Step(n.name()).Kept() {
			continue
		}
		if n.live != nil && !n.live.subvolume {
			inLive = append(inLive, n.live.inode)
		}
		if n.clean != nil && !n.clean.subvolume {
			inClean = append(inClean, n.clean.inode)
		}
	}
	err := live.fetch(inLive)
	if err == nil && clean.exists() {
		err = clean.fetch(inClean)
	}
	return err
}

// pair is one name in a directory of live and of CURRENT.
type pair struct{ live, current *entry }

// changedNames compares a directory of live with the same directory of CURRENT.
func (w *walker) changedNames(a at, live, current place) (map[string]pair, error) {
	before, err := current.entries(current.dir)
	if err != nil {
		return nil, err
	}
	now, err := live.entries(live.dir)
	if err != nil {
		return nil, err
	}
	names := map[string]pair{}
	i, j := 0, 0
	follow := a.state.ExcludeBelow()
	for i < len(before) || j < len(now) {
		switch {
		case j == len(now) || i < len(before) && before[i].index < now[j].index:
			p := names[before[i].name]
			p.current = &before[i]
			names[before[i].name] = p
			i++
		case i == len(before) || now[j].index < before[i].index:
			p := names[now[j].name]
			p.live = &now[j]
			names[now[j].name] = p
			j++
		default: // the same position in the directory
			e, c := &now[j], &before[i]
			switch {
			case e.name != c.name:
				p := names[c.name]
				p.current = c
				names[c.name] = p
				p = names[e.name]
				p.live = e
				names[e.name] = p
			case !e.same(*c) || e.subvolume || w.marked[e.inode] || follow && w.leadsToExclude(a, e.name):
				names[e.name] = pair{e, c}
			}
			i, j = i+1, j+1
		}
	}
	return names, nil
}

func (w *walker) leadsToExclude(a at, name string) bool { return a.state.Step(name).ExcludeBelow() }

// visitNamed visits only those entries of a live directory that an exclude rule
// names, or leads through.
func (w *walker) visitNamed(a at) error {
	live, clean, current := w.below(a)
	names, exhaustive := a.state.NextLiterals(keep.Excludes)
	if !exhaustive {
		var err error
		if names, err = w.allNames(live, clean); err != nil {
			return w.wrap(a, err)
		}
	}
	for _, name := range names {
		child := w.child(a, name, live, clean, current)
		if child.state.Kept() && !child.state.ExcludeBelow() {
			continue
		}
		if !child.state.Kept() && !a.state.Kept() && !child.state.ExcludeBelow() {
			continue // outside kept paths already: the marks tell
		}
		if err := w.fill(&child); err != nil {
			return w.wrap(child, err)
		}
		if err := w.visit(child); err != nil {
			return err
		}
	}
	return nil
}

// allNames lists the names in a live directory and in CLEAN's.
func (w *walker) allNames(live, clean place) ([]string, error) {
	entries, err := live.entries(live.dir)
	if err != nil {
		return nil, err
	}
	inClean, err := w.cleanEntries(clean)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries)+len(inClean))
	for _, e := range entries {
		names = append(names, e.name)
		delete(inClean, e.name)
	}
	for name := range inClean {
		names = append(names, name)
	}
	return names, nil
}

// child is a path one level further down, with no entries yet.
func (w *walker) child(a at, name string, live, clean, current place) at {
	return at{
		path: a.path + "/" + name, state: a.state.Step(name),
		liveDir: live, cleanDir: clean, currentDir: current,
	}
}

// fill looks a path up in the trees that have its directory.
func (w *walker) fill(a *at) (err error) {
	_, name := splitPath(a.path)
	if a.live, err = a.liveDir.find(a.liveDir.dir, name); err != nil {
		return err
	}
	if a.cleanDir.exists() {
		if a.clean, err = a.cleanDir.find(a.cleanDir.dir, name); err != nil {
			return err
		}
	}
	if a.currentDir.exists() {
		a.current, err = a.currentDir.find(a.currentDir.dir, name)
	}
	return err
}

// holdsKept reports whether a kept path exists below a live directory.
func (w *walker) holdsKept(dir place, state keep.State) (bool, error) {
	if !state.MayKeepBelow() {
		return false, nil
	}
	names, exhaustive := state.NextLiterals(keep.Keeps)
	if !exhaustive {
		entries, err := dir.entries(dir.dir)
		if err != nil {
			return false, err
		}
		names = names[:0]
		for _, e := range entries {
			names = append(names, e.name)
		}
	}
	for _, name := range names {
		holds, err := w.leadsToKept(dir, name, state.Step(name))
		if holds || err != nil {
			return holds, err
		}
	}
	return false, nil
}

// leadsToKept reports whether an entry of a live directory is a kept path, or a
// directory with one below it.
func (w *walker) leadsToKept(dir place, name string, state keep.State) (bool, error) {
	if !state.Kept() && !state.MayKeepBelow() {
		return false, nil
	}
	e, err := dir.find(dir.dir, name)
	if err != nil || e == nil {
		return false, err
	}
	below := place{dir.tree, e.inode}
	if e.subvolume {
		id, nested := w.nested[dirName{dir.id, dir.dir, name}]
		if !nested {
			return false, nil // a stub: nothing can lie in it
		}
		below = place{dir.nested(id), rootInode}
	}
	if state.Kept() {
		return true, nil
	}
	// A file has no entries.
	return w.holdsKept(below, state)
}
