package model

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ExpectFirstClean computes the first CLEAN that is made of live: without what the
// rules keep, and without what is to be left out. A kept directory stays where an
// exclude rule leaves a part of it.
//
// It is a snapshot, and shows stubs of nested subvolumes.
func ExpectFirstClean(live Tree, keep, exclude, leaveOut []string) Tree {
	return pruned(withoutSubvolumes(live, nil), Rules{Keep: keep, Exclude: exclude}, Rules{Keep: leaveOut})
}

// ExpectClean computes the CLEAN that is made of live and of the one before: as live,
// and as before, without what is kept, at and below kept paths and at what is to be
// left out.
//
// A nested subvolume of live is an empty directory of CLEAN, 0755 root; but for one
// that kept paths may lie in, which is nothing, so that a reset takes such a
// directory from the old state.
func ExpectClean(before, live Tree, keep, exclude, leaveOut []string) Tree {
	left := pruned(before, Rules{Keep: keep, Exclude: exclude})

	return Expect(left, withoutSubvolumes(live, keep), append(append([]string{}, keep...), leaveOut...), nil)
}

// pruned leaves out what any of the rules keep, but for directories in which
// something is not kept.
func pruned(t Tree, sets ...Rules) Tree {
	out := Tree{}

	kept := func(path string) bool {
		return slices.ContainsFunc(sets, func(r Rules) bool { return r.keeps(path) })
	}

	for path, e := range t {
		if kept(path) {
			continue
		}

		out[path] = e

		for _, above := range parents(path) {
			out[above] = t[above]
		}
	}

	return out
}

// withoutSubvolumes makes stubs of the nested subvolumes of a tree, as a snapshot
// does, and drops those that a rule may match below.
func withoutSubvolumes(t Tree, keep []string) Tree {
	out := Tree{}

	for path, e := range t {
		switch inside := insideSubvolume(t, path); {
		case inside:
		case path == "" || !e.Subvolume && !e.Stub:
			out[path] = e
		case !mayMatchBelow(keep, path):
			// The kernel makes up the owner, too: the parent's.
			above := t[parent(path)]
			out[path] = Entry{Type: unix.S_IFDIR, Mode: 0o755, UID: above.UID, GID: above.GID, Stub: true}
		}
	}

	return out
}

// insideSubvolume tells whether a path lies in a nested subvolume of the tree.
func insideSubvolume(t Tree, path string) bool {
	for _, above := range parents(path) {
		if above != "" && t[above].Subvolume {
			return true
		}
	}

	return false
}

// mayMatchBelow tells whether the beginning of a longer rule matches a path.
func mayMatchBelow(rules []string, path string) bool {
	depth := len(strings.Split(path, "/"))

	for _, rule := range rules {
		components := strings.Split(strings.TrimPrefix(rule, "/"), "/")
		if len(components) <= depth {
			continue
		}

		if _, ok := matches("/"+strings.Join(components[:depth], "/"), path); ok {
			return true
		}
	}

	return false
}
