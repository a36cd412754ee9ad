package snapshot

import (
	"slices"
	"strings"

	"nixos-go/pkg/reset"
)

// scope is which wiped paths are asked for: those at or below some paths, or all, and
// what lay so many levels below them; -1 is all.
type scope struct {
	paths       []string
	depth       int
	mountPoints map[string]string // by volume
}

func (s scope) absolute(w *reset.Wiped) string { return absolute(s.mountPoints[w.Volume], w.Path) }

// levels is how many names a path has.
func levels(path string) int { return strings.Count(strings.TrimSuffix(path, "/"), "/") }

// depthOf is how far a top-most path is to be looked into.
func (s scope) depthOf(w *reset.Wiped) int {
	name, depth := s.absolute(w), 0
	if len(s.paths) == 0 || slices.ContainsFunc(s.paths, func(p string) bool { return isBelow(name, p) }) {
		depth = s.depth
	}
	for _, p := range s.paths {
		if p == name || !isBelow(p, name) {
			continue
		}
		if s.depth < 0 {
			return s.depth
		}
		depth = max(depth, levels(p)-levels(name)+s.depth)
	}
	return depth
}

// goesBelow reports whether any of the top-most paths is to be looked into.
func (s scope) goesBelow(changes []reset.Wiped) bool {
	for i := range changes {
		if s.depthOf(&changes[i]) != 0 {
			return true
		}
	}
	return false
}

// holds reports whether a path is asked for.
func (s scope) holds(w *reset.Wiped) bool {
	if len(s.paths) == 0 {
		return true // no deeper than it was looked into
	}
	name := s.absolute(w)
	return slices.ContainsFunc(s.paths, func(p string) bool {
		if !isBelow(name, p) {
			return false
		}
		// Levels count from the path that was asked for, or from the top-most one if
		// that lies below it.
		from := max(levels(p), levels(name)-w.Depth)
		return s.depth < 0 || levels(name)-from <= s.depth
	})
}
