package model

import (
	"fmt"
	"reflect"

	"golang.org/x/sys/unix"
)

// Expect computes the live state that a reset must make of old, given clean and
// the rules of one volume.
func Expect(old, clean Tree, keep, exclude []string) Tree {
	return ExpectUnion(old, clean, Rules{Keep: keep, Exclude: exclude})
}

// ExpectUnion is Expect for several rule sets at once: what any of them keeps is
// kept.
//
// Where the contract leaves something open, this is what is expected:
//   - A stub in old is nothing, kept or not. (Inside a kept nested subvolume it
//     is left alone, like everything there.)
//   - A stub in clean is a directory, 0755 root; but for an ancestor of a kept
//     path that exists, clean has nothing there, and old's directory counts.
//   - Names that are linked in clean and come from there stay linked with each
//     other, so they share the inode of kept names all together or not at all:
//     only if all these names are linked in both trees, and old's inode is what
//     clean has.
//   - No link crosses the border of a subvolume.
func ExpectUnion(old, clean Tree, sets ...Rules) Tree {
	m := newMerge(old, clean, sets)

	for _, path := range topDown(m.old, m.clean) {
		m.decide(path)
	}

	m.link()

	return m.result
}

// ExpectPrevious computes what the reset leaves of old as PREVIOUS: all of it
// but the nested subvolumes that are kept, which have moved.
func ExpectPrevious(old Tree, sets ...Rules) Tree {
	m := newMerge(old, nil, sets)
	left := Tree{}

	for path, e := range old {
		if !m.moves(path) {
			left[path] = e
		}
	}

	return left
}

type merge struct {
	old, clean Tree
	sets       []Rules

	result Tree
	// keptBelow has the proper ancestors of the kept paths that exist in old.
	keptBelow map[string]bool
}

func newMerge(old, clean Tree, sets []Rules) *merge {
	m := &merge{old: old, sets: sets, clean: Tree{}, result: Tree{}, keptBelow: map[string]bool{}}
	m.old = m.withoutStubs(old)

	for path, e := range clean {
		if e.Stub {
			e = Entry{Type: unix.S_IFDIR, Mode: 0o755, AnyMTime: true, Stub: true}
		}

		m.clean[path] = e
	}

	for path := range m.old {
		if m.kept(path) {
			for _, above := range parents(path) {
				m.keptBelow[above] = true
			}
		}
	}

	return m
}

// withoutStubs leaves out the stubs in old that no kept subvolume has in it.
func (m *merge) withoutStubs(old Tree) Tree {
	left := Tree{}

	for path, e := range old {
		if !e.Stub || m.moves(path) {
			left[path] = e
		}
	}

	return left
}

func (m *merge) ruledKept(path string) bool {
	for _, set := range m.sets {
		if set.keeps(path) {
			return true
		}
	}

	return false
}

// moves tells whether a path of old is a nested subvolume that is kept, or lies
// in one: it moves as it is, whatever rules say about what is in it.
func (m *merge) moves(path string) bool {
	for _, above := range append(parents(path), path) {
		if m.old[above].Subvolume && m.ruledKept(above) {
			return true
		}
	}

	return false
}

func (m *merge) kept(path string) bool { return m.ruledKept(path) || m.moves(path) }

// decide settles one path; its parents are settled.
func (m *merge) decide(path string) {
	old, inOld := m.old[path]
	clean, inClean := m.clean[path]
	parent, inParent := m.result[parent(path)]
	parentIsDir := inParent && parent.IsDir()

	switch {
	case path == "":
		if !inClean || !clean.IsDir() {
			panic("clean has no root directory")
		}

		m.result[path] = clean

	case m.kept(path):
		if !inOld {
			return
		}

		if !parentIsDir {
			panic(fmt.Sprintf("%q is kept, but its parent is no directory in the result", path))
		}

		m.result[path] = old

	case m.keptBelow[path]:
		ancestor := old
		if inClean && clean.IsDir() && !clean.Stub {
			ancestor = clean
		}

		// A subvolume stays one, but it is a new and writable one.
		ancestor.Subvolume, ancestor.ReadOnly, ancestor.UUID = old.Subvolume, false, ""
		m.result[path] = ancestor

	case inClean && parentIsDir:
		clean.Stub = false
		m.result[path] = clean
	}
}

// link settles which names share an inode.
func (m *merge) link() {
	// The names that come from clean, by clean's inode and by the subvolume
	// that they are in now.
	type place struct{ inode, subvolume string }

	fromClean := map[place][]string{}
	keptNames := map[string][]string{} // by old's inode

	for path, e := range m.result {
		switch {
		case e.Inode == "" || e.IsDir():
		case m.kept(path):
			keptNames[e.Inode] = append(keptNames[e.Inode], path)
			e.Inode = "old " + e.Inode
			m.result[path] = e
		default:
			at := place{e.Inode, m.subvolume(path)}
			fromClean[at] = append(fromClean[at], path)
		}
	}

	for at, paths := range fromClean {
		inode := "clean " + at.inode + " in " + at.subvolume
		if shared := m.old[paths[0]].Inode; shared != "" && m.mayShare(paths, keptNames[shared]) {
			inode = "old " + shared
		}

		for _, path := range paths {
			e := m.result[path]
			e.Inode = inode
			m.result[path] = e
		}
	}
}

// subvolume returns the root of the subvolume that a path of the result is in.
func (m *merge) subvolume(path string) string {
	nearest := ""

	for _, above := range parents(path) {
		if m.result[above].Subvolume {
			nearest = above
		}
	}

	return nearest
}

// mayShare tells whether names that come from clean may share the inode of kept
// names: all are linked in both trees, and the inode is the same in both.
func (m *merge) mayShare(fromClean, kept []string) bool {
	if len(kept) == 0 {
		return false
	}

	all := append(append([]string{}, fromClean...), kept...)

	return m.old.linked(all) && m.clean.linked(all) &&
		sameInode(m.old[fromClean[0]], m.clean[fromClean[0]])
}

// linked tells whether all paths are names of one inode.
func (t Tree) linked(paths []string) bool {
	for _, path := range paths {
		if e, ok := t[path]; !ok || e.Inode == "" || e.Inode != t[paths[0]].Inode {
			return false
		}
	}

	return true
}

// sameInode tells whether two entries differ in nothing but where they are.
func sameInode(a, b Entry) bool {
	a.Inode, b.Inode = "", ""
	if len(a.Xattrs) == 0 && len(b.Xattrs) == 0 {
		a.Xattrs, b.Xattrs = nil, nil
	}

	return reflect.DeepEqual(a, b)
}
