package model

import (
	"strings"

	"golang.org/x/sys/unix"
)

// ExpectClean computes the CLEAN that is made of live: as live, without what the
// rules keep and all below it, and as before at what is to be left out. Before the
// first CLEAN there is an empty directory.
//
// A nested subvolume of live is an empty directory of CLEAN, 0755 root; but for one
// that kept paths may lie in, which is nothing, so that a reset takes such a
// directory from the old state.
func ExpectClean(before, live Tree, keep, leaveOut []string) Tree {
	keptOnly := Rules{Keep: keep}
	left := Tree{}

	for path, e := range before {
		if !keptOnly.keeps(path) {
			left[path] = e
		}
	}

	return Expect(left, withoutSubvolumes(live, keep), append(append([]string{}, keep...), leaveOut...), nil)
}

// EmptyTree is an empty volume.
func EmptyTree() Tree { return Tree{"": {Type: unix.S_IFDIR, Mode: 0o755}} }

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
			out[path] = Entry{Type: unix.S_IFDIR, Stub: true}
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
