package keep

import "slices"

// Which says which rules are meant: Keeps, Excludes or both.
type Which uint8

// The bits of Which.
const (
	Keeps Which = 1 << iota
	Excludes
)

// A State is the position of a walk down a tree: what the rules say about the
// path so far and how they go on. It is an immutable value; stepping makes
// another and leaves it as it is. The zero State is not kept, and nothing
// below it is.
type State struct {
	first  part   // the matcher's first set: nearly always the only one
	rest   []part // the others
	atRoot bool
}

// A part is the position in one set.
type part struct {
	node *node   // a place reached in the tree of rules, nil for none
	more []*node // the others
	kept bool
}

// Step goes one level down, to the entry with that name. A name is one path
// component of any bytes. In the volume's root the reset's own names are
// never kept, whatever the patterns say.
func (s State) Step(name string) State {
	if s.atRoot && isReserved(name) {
		return State{}
	}

	next := State{first: s.first.step(name)}

	if len(s.rest) == 0 {
		return next
	}

	next.rest = s.rest // shared as long as nothing differs
	shared := true

	for i, p := range s.rest {
		if p.node == nil {
			continue // nothing is matched any more: the part stays as it is
		}

		if shared {
			next.rest, shared = slices.Clone(s.rest), false
		}

		next.rest[i] = p.step(name)
	}

	return next
}

func (p part) step(name string) part {
	if p.node == nil {
		return p
	}

	next := part{kept: p.kept}
	ends := p.node.follow(name, &next)

	for _, n := range p.more {
		ends |= n.follow(name, &next)
	}

	// A rule that ends here is longer than any that ended above.
	switch {
	case ends&Keeps != 0:
		next.kept = true
	case ends&Excludes != 0:
		next.kept = false
	}

	return next
}

// follow adds to next the nodes that name leads to from n, those from which a
// rule goes on, and returns which rules end at any of them.
func (n *node) follow(name string, next *part) Which {
	var ends Which

	if to := n.literals[name]; to != nil {
		ends |= to.enter(next)
	}

	for i := range n.globs {
		if e := &n.globs[i]; e.glob.match(name) {
			ends |= e.to.enter(next)
		}
	}

	return ends
}

func (n *node) enter(next *part) Which {
	switch {
	case n.below == 0:
	case next.node == nil:
		next.node = n
	default:
		next.more = append(next.more, n)
	}

	return n.ends
}

// below returns which rules are partly matched.
func (p part) below() Which {
	if p.node == nil {
		return 0
	}

	which := p.node.below
	for _, n := range p.more {
		which |= n.below
	}

	return which
}

// Kept is the decision for this path.
func (s State) Kept() bool {
	return s.first.kept || slices.ContainsFunc(s.rest, func(p part) bool { return p.kept })
}

// MayKeepBelow tells that this path is not kept but a keep rule is partly
// matched, so that a proper descendant may be kept. It is exact: whatever name
// the rule goes on with exists somewhere, and there the rule wins.
func (s State) MayKeepBelow() bool {
	return !s.Kept() && s.partly(Keeps)
}

// MayWipeBelow tells that this path is kept but an exclude rule is partly
// matched, so that a proper descendant may be not kept. False is certain: the
// whole subtree is kept. In a union a path is wiped only if no set keeps it,
// so each set that keeps this path must have such a rule; true may then be
// said where the rules lead to different descendants.
func (s State) MayWipeBelow() bool {
	if !s.Kept() {
		return false
	}

	if s.first.kept && s.first.below()&Excludes == 0 {
		return false
	}

	return !slices.ContainsFunc(s.rest, func(p part) bool { return p.kept && p.below()&Excludes == 0 })
}

// ExcludeBelow tells, kept or not, that some exclude rule is partly matched,
// so that a proper descendant may be excluded.
func (s State) ExcludeBelow() bool { return s.partly(Excludes) }

func (s State) partly(which Which) bool {
	return s.first.below()&which != 0 ||
		slices.ContainsFunc(s.rest, func(p part) bool { return p.below()&which != 0 })
}

// NextLiterals returns, sorted, the names at which a partly matched rule of
// the wanted kinds goes on from here, and whether these are all: exhaustive is
// false where one goes on with a `*` pattern, which other names match too.
// The reset's own names are never among them.
func (s State) NextLiterals(which Which) (names []string, exhaustive bool) {
	names, exhaustive = s.first.nextLiterals(which, nil)

	for _, p := range s.rest {
		var all bool

		names, all = p.nextLiterals(which, names)
		exhaustive = exhaustive && all
	}

	return sortedUnique(names), exhaustive
}

func (p part) nextLiterals(which Which, names []string) (_ []string, exhaustive bool) {
	if p.node == nil {
		return names, true
	}

	names, exhaustive = p.node.nextLiterals(which, names)

	for _, n := range p.more {
		var all bool

		names, all = n.nextLiterals(which, names)
		exhaustive = exhaustive && all
	}

	return names, exhaustive
}

func (n *node) nextLiterals(which Which, names []string) (_ []string, exhaustive bool) {
	for _, name := range n.names {
		if to := n.literals[name]; (to.ends|to.below)&which != 0 {
			names = append(names, name)
		}
	}

	return names, !slices.ContainsFunc(n.globs, func(e globEdge) bool { return (e.to.ends|e.to.below)&which != 0 })
}
