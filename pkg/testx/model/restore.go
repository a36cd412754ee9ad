package model

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ExpectRestore computes the live tree after paths of a snapshot were restored into it,
// by force where something else is there. Directories stay as they are without it.
//
// What only live has stays. Names that are restored and linked in the snapshot are
// linked afterwards, to live's own inode if it is right and has no name that is not
// a name of the snapshot's inode. Stubs of the snapshot are nothing.
func ExpectRestore(live, snapshot Tree, paths []string, force bool) Tree {
	r := &restoring{live: live, snapshot: snapshot, result: maps.Clone(live), force: force}

	for _, path := range topDown(snapshot) {
		switch {
		case snapshot[path].Stub:
		case slices.ContainsFunc(paths, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") }):
			r.restore(path)
		case slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(p, path+"/") }):
			if _, there := live[path]; !there {
				r.create(path)
			}
		}
	}

	r.link()

	return r.result
}

type restoring struct {
	live, snapshot, result Tree
	force                  bool
	whole                  []string // what is restored with all below it
	same                   []string // of these, what live has already
}

func (r *restoring) restore(path string) {
	r.whole = append(r.whole, path)

	live, there := r.live[path]
	if there && sameInode(live, r.snapshot[path]) {
		r.same = append(r.same, path)

		return
	}

	if there && live.IsDir() && r.snapshot[path].IsDir() && !r.force {
		return
	}

	r.create(path)
}

// create puts in what the snapshot has.
func (r *restoring) create(path string) {
	e := r.snapshot[path]
	e.Inode = ""

	if live, there := r.live[path]; there && e.IsDir() && live.IsDir() {
		e.Subvolume, e.ReadOnly, e.UUID = live.Subvolume, live.ReadOnly, live.UUID
	}

	r.result[path] = e
	r.touch(path)
}

// touch notes that something was put into the directory of a path: its time does not
// matter then, unless it was right or is restored too.
func (r *restoring) touch(path string) {
	dir := r.result[parent(path)]
	above, there := r.live[parent(path)]
	right := there && slices.Contains(r.same, parent(path))
	restored := !there || r.force && slices.Contains(r.whole, parent(path))

	if path != "" && there && above.IsDir() && !right && !restored {
		dir.AnyMTime = true
		r.result[parent(path)] = dir
	}
}

// link settles which of the restored names share an inode.
func (r *restoring) link() {
	type place struct{ inode, subvolume string }

	groups := map[place][]string{}

	for _, path := range r.whole {
		if e := r.snapshot[path]; e.Inode != "" && !e.IsDir() {
			at := place{e.Inode, r.subvolume(path)}
			groups[at] = append(groups[at], path)
		}
	}

	for at, paths := range groups {
		if len(paths) < 2 {
			continue
		}

		slices.Sort(paths)

		inode := r.carrier(at.inode, paths)
		for _, path := range paths {
			e := r.result[path]
			if slices.Contains(r.same, path) && (inode == "" || inode != cmp.Or(e.Inode, "live "+path)) {
				r.touch(path) // it was right but for its links
			}

			e.Inode = cmp.Or(inode, "restored "+at.inode+" in "+at.subvolume)
			r.result[path] = e
		}
	}
}

// carrier returns the inode of live that names can share, if any.
func (r *restoring) carrier(inode string, paths []string) string {
	byPath := func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }

	for _, path := range slices.SortedFunc(slices.Values(paths), byPath) {
		live := r.live[path]
		if !slices.Contains(r.same, path) || live.Inode == "" && !r.alone(path) {
			continue
		}

		fits := true

		for name, e := range r.live {
			if e.Inode != "" && e.Inode == live.Inode && r.snapshot[name].Inode != inode {
				fits = false
			}
		}

		if fits {
			return cmp.Or(live.Inode, "live "+path)
		}
	}

	return ""
}

func (r *restoring) alone(path string) bool { return r.live[path].Type != unix.S_IFDIR }

func (r *restoring) subvolume(path string) string {
	nearest := ""

	for _, above := range parents(path) {
		if r.live[above].Subvolume {
			nearest = above
		}
	}

	return nearest
}
