package reset

import (
	"slices"
	"strings"
)

// Kind says how a path of the live volume differs from the state that the next
// reset gives it. The words are those of nixos-diff, seen from the live side.
type Kind string

// The kinds of a change, and what a reset does about each.
const (
	KindAdded    Kind = "added"    // not in CLEAN: wiped
	KindDeleted  Kind = "deleted"  // in CLEAN alone: brought back
	KindModified Kind = "modified" // other content or links than in CLEAN: changed back
	KindMetadata Kind = "metadata" // other owner, mode, time …: changed back
	KindType     Kind = "type"     // another type of thing than in CLEAN: replaced
)

// Change is one top-most path that a reset changes. A wiped or returned directory
// stands for all below it, kept paths apart.
type Change struct {
	Path   string // from the volume's root, with a leading slash; "/" is the root itself
	Kind   Kind
	Fields Fields // what differs, for modified, metadata and type
	Mode   uint32 // st_mode of the live side; of CLEAN's for deleted
	Size   uint64 // bytes, likewise; of directories 0

	act action
	// content is what actContent needs to know.
	content *contentChange
	// linkTo is the path in the new state that this name becomes a hard link of.
	linkTo string
}

// action is what apply does for a change.
type action uint8

const (
	actRemove   action = 1 << iota // move the live side out of the way
	actCreate                      // make CLEAN's side
	actLink                        // make a hard link to linkTo
	actMetadata                    // give the live inode CLEAN's metadata
	actContent                     // give it CLEAN's content and metadata
	actStub                        // with actRemove: the live side is a subvolume's stub in NEXT
)

// IsSubvolume reports whether the live side is a nested subvolume, which stays with the
// old state, or the stub of one.
func (c *Change) IsSubvolume() bool { return c.act&actStub != 0 }

// OnlyTime reports whether the change is the modification time of a directory
// alone: true of each directory that something was added to or deleted from.
func (c *Change) OnlyTime() bool {
	return c.Kind == KindMetadata && c.Fields == FieldMTime && c.Mode&modeType == modeDir
}

// Way says how the changes were found.
type Way string

// The ways. Both find the same changes.
const (
	WayFull    Way = "full"         // both trees compared whole
	WayChanged Way = "changed-only" // what no transaction touched since CURRENT skipped
)

// Move is a nested subvolume below a kept path. It moves into the new state.
type Move struct {
	Path string
	ID   uint64 // tree id
}

// Branch is a nested subvolume that holds kept paths and so counts as a directory:
// the new state gets a writable snapshot of it.
type Branch struct {
	Path string
	ID   uint64 // tree id
}

// Plan is what a reset would change in one volume.
type Plan struct {
	Way      Way
	Changes  []Change // in the order of their paths, parents first
	Moves    []Move
	Branches []Branch // parents first

	// stubs are paths below kept ones where a snapshot shows the stub of a
	// subvolume that is not nested there any more.
	stubs []string
	// links are the names inside a returned directory that are not made anew but
	// linked to the value's path.
	links map[string]string
	// outside are the inodes seen outside kept paths that stay.
	outside []Range
	// shared are inodes with names outside kept paths and kept ones.
	shared  []uint64
	matcher matcher
	// missed counts paths of a volume in use that vanished while they were looked at.
	missed int
}

// Stubs are the paths below kept ones where a snapshot shows the stub of a subvolume
// that does not lie there. The reset removes them; nothing can be in them.
func (p *Plan) Stubs() []string { return slices.Clone(p.stubs) }

// comparePaths orders paths component by component, so that a directory comes
// right before what lies below it.
func comparePaths(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			switch {
			case a[i] == '/':
				return -1
			case b[i] == '/':
				return 1
			}
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

func (p *Plan) sort() {
	sortBy(p.Changes, comparePaths, func(c *Change) string { return c.Path })
	sortBy(p.Moves, comparePaths, func(m *Move) string { return m.Path })
	sortBy(p.Branches, comparePaths, func(b *Branch) string { return b.Path })
	slices.SortFunc(p.stubs, comparePaths)
	slices.Sort(p.shared)
	p.stubs = slices.Compact(p.stubs)
}

// below reports whether path lies below dir, or is it.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// branchOf is the innermost branch that holds a path, if any.
func (p *Plan) branchOf(path string) *Branch {
	var found *Branch
	for i := range p.Branches {
		b := &p.Branches[i]
		if path != b.Path && below(path, b.Path) && (found == nil || len(b.Path) > len(found.Path)) {
			found = b
		}
	}
	return found
}
