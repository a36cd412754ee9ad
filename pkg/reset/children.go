package reset

import "nixos-go/pkg/keep"

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
	if err := w.fetchBoth(a, live, clean, liveEntries, cleanEntries); err != nil {
		return w.wrap(a, err)
	}
	for i := range liveEntries {
		e := &liveEntries[i]
		child := w.child(a, e.name, live, clean, place{})
		child.live = e
		if c, ok := cleanEntries[e.name]; ok {
			child.clean = &c
			delete(cleanEntries, e.name)
		}
		if err := w.visit(child); err != nil {
			return err
		}
	}
	for name, c := range cleanEntries {
		child := w.child(a, name, live, clean, place{})
		child.clean = &c
		if err := w.visit(child); err != nil {
			return err
		}
	}
	return nil
}

// cleanEntries lists CLEAN's directory by name. A CLEAN that is not a directory
// has no entries: its items of that type do not exist.
func (w *walker) cleanEntries(clean place) (map[string]entry, error) {
	if !clean.exists() {
		return nil, nil
	}
	list, err := clean.entries(clean.dir)
	if err != nil {
		return nil, err
	}
	out := make(map[string]entry, len(list))
	for _, e := range list {
		out[e.name] = e
	}
	return out, nil
}

// visitChanged visits only those entries of a directory, one and the same in live
// and CURRENT, that are not what they were, or have a change below them, or lie on
// the way of an exclude rule.
func (w *walker) visitChanged(a at, live, clean, current place) error {
	names, err := w.changedNames(a, live, current)
	if err != nil {
		return w.wrap(a, err)
	}
	cleanEntries, err := w.changedClean(a, names, live, clean)
	if err != nil {
		return w.wrap(a, err)
	}
	for name, e := range names {
		child := w.child(a, name, live, clean, current)
		if child.live, child.current = e.live, e.current; child.live == nil && child.current == nil {
			continue
		}
		if c, ok := cleanEntries[name]; ok {
			child.clean = &c
		} else if cleanEntries == nil && clean.exists() {
			if child.clean, err = clean.find(clean.dir, name); err != nil {
				return w.wrap(child, err)
			}
		}
		if err := w.visit(child); err != nil {
			return err
		}
	}
	return nil
}

// fewNames is how many names are looked up one by one; for more, CLEAN's directory
// is listed and the inodes are read ahead.
const fewNames = 4

// changedClean lists CLEAN's directory if many of its names changed, and reads ahead.
func (w *walker) changedClean(a at, names map[string]pair, live, clean place) (map[string]entry, error) {
	if len(names) <= fewNames {
		return nil, nil
	}
	cleanEntries, err := w.cleanEntries(clean)
	if err != nil {
		return nil, err
	}
	if cleanEntries == nil {
		cleanEntries = map[string]entry{}
	}
	changed := make([]entry, 0, len(names))
	wanted := make(map[string]entry, len(names))
	for name, e := range names {
		if e.live != nil {
			changed = append(changed, *e.live)
		}
		if c, ok := cleanEntries[name]; ok {
			wanted[name] = c
		}
	}
	return wanted, w.fetchBoth(a, live, clean, changed, wanted)
}

// fetchBoth reads the inodes of entries ahead that are going to be compared.
func (w *walker) fetchBoth(a at, live, clean place, liveEntries []entry, cleanEntries map[string]entry) error {
	var inLive, inClean []uint64
	for _, e := range liveEntries {
		if !e.subvolume && !a.state.Step(e.name).Kept() {
			inLive = append(inLive, e.inode)
		}
	}
	for _, e := range cleanEntries {
		if !e.subvolume && !a.state.Step(e.name).Kept() {
			inClean = append(inClean, e.inode)
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
