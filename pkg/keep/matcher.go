package keep

import (
	"maps"
	"slices"
	"strings"
)

// A Matcher decides for paths. It is the union of one or more sets: a path is
// kept if any of the sets keeps it. It is never changed once made, so several
// goroutines may use it.
type Matcher struct {
	roots []*node // one for each set
}

// NewMatcher makes the union of sets. With none, nothing is kept.
func NewMatcher(sets ...Set) *Matcher {
	m := &Matcher{}

	for i, s := range sets {
		if slices.ContainsFunc(sets[:i], s.Equal) {
			continue
		}

		m.roots = append(m.roots, s.tree())
	}

	return m
}

// Root returns the state of the volume's root directory, which no rule can
// match.
func (m *Matcher) Root() State {
	s := State{atRoot: true}

	for i, n := range m.roots {
		if i == 0 {
			s.first.node = n
		} else {
			s.rest = append(s.rest, part{node: n})
		}
	}

	return s
}

// Kept decides for one path, "/a/b", relative to the volume's root. Doubled
// and trailing slashes do not matter.
func (m *Matcher) Kept(path string) bool {
	s := m.Root()

	for name := range strings.SplitSeq(path, "/") {
		if name != "" {
			s = s.Step(name)
		}
	}

	return s.Kept()
}

// A node is a place in the prefix tree of the rules of one set. Each node has
// one parent, so no more nodes are active at once than there are rules.
type node struct {
	literals map[string]*node
	globs    []globEdge
	names    []string // the keys of literals, sorted

	ends  Which // the rules that end here; Keeps alone where both do (keep wins)
	below Which // the rules that end at a descendant
}

type globEdge struct {
	text string
	glob glob
	to   *node
}

func (s Set) tree() *node {
	root := &node{}

	for _, r := range s.Keep {
		root.add(r, Keeps)
	}

	for _, r := range s.Exclude {
		root.add(r, Excludes)
	}

	root.finish()

	return root
}

// add enters a rule. One that NewSet would have refused has no effect.
func (n *node) add(r Rule, which Which) {
	if len(r.components) == 0 || r.checkReserved() != nil {
		return
	}

	for _, c := range r.components {
		n = n.child(c)
	}

	n.ends |= which
}

// child returns the child of n for a component of a rule, made if need be.
func (n *node) child(component string) *node {
	if !isGlob(component) {
		to := n.literals[component]
		if to == nil {
			to = &node{}

			if n.literals == nil {
				n.literals = map[string]*node{}
			}

			n.literals[component] = to
		}

		return to
	}

	for _, e := range n.globs {
		if e.text == component {
			return e.to
		}
	}

	to := &node{}
	n.globs = append(n.globs, globEdge{text: component, glob: newGlob(component), to: to})

	return to
}

// finish settles ties and computes what lies below, from the leaves up.
func (n *node) finish() {
	if n.ends&Keeps != 0 {
		n.ends = Keeps
	}

	n.names = slices.Sorted(maps.Keys(n.literals))

	for _, to := range n.literals {
		to.finish()
		n.below |= to.ends | to.below
	}

	for _, e := range n.globs {
		e.to.finish()
		n.below |= e.to.ends | e.to.below
	}
}
