package history

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"nixos-go/pkg/btrfs"
)

// A Source is where all choices come from: *rand.Rand is one, and so is what
// draws from a property test.
type Source interface {
	// IntN returns a number from 0 to n-1.
	IntN(n int) int
}

// NewSource returns the Source of a seed.
func NewSource(seed uint64) Source {
	return rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
}

// maxNodes is the size of a volume at which steps begin to delete.
const maxNodes = 250

// A Generator makes up histories. It is for one goroutine.
type Generator struct {
	src Source

	// Of the history under way.
	root  string
	state *state // as it was when the step began
	log   []Op
	err   error // the first; nothing is done after it
}

// New returns a Generator that draws from src.
func New(src Source) *Generator { return &Generator{src: src} }

// Populate fills the volume at root, which should be empty, in so many steps,
// as the installer of a system would: the origin of a CLEAN.
func (g *Generator) Populate(root string, steps int) ([]Op, error) {
	return g.run(root, steps, func(s step) int { return s.populate })
}

// Mutate does so many steps of a day's work in the volume at root, each of one
// or more operations. The log has what was done, up to an error.
func (g *Generator) Mutate(root string, steps int) ([]Op, error) {
	return g.run(root, steps, func(s step) int { return s.mutate })
}

func (g *Generator) run(root string, count int, weight func(step) int) ([]Op, error) {
	g.root, g.log, g.err = root, nil, nil

	total := 0
	for _, s := range steps {
		total += weight(s)
	}

	for range count {
		if g.state, g.err = newState(root); g.err != nil {
			break
		}

		if len(g.state.nodes) > maxNodes {
			removeTree(g)

			continue
		}

		at := g.src.IntN(total)
		for _, s := range steps {
			if at -= weight(s); at < 0 {
				s.do(g)

				break
			}
		}

		if g.err != nil {
			break
		}
	}

	if g.err != nil {
		return g.log, fmt.Errorf("after %d operations: %w", len(g.log), g.err)
	}

	return g.log, nil
}

// do applies an operation and enters it in the log.
func (g *Generator) do(o Op) {
	if g.err != nil {
		return
	}

	if g.err = o.Apply(g.root); g.err == nil {
		g.log = append(g.log, o)
	}
}

// unlock takes away the flags that forbid to change what is at a path.
func (g *Generator) unlock(path string) {
	n := g.state.byPath[path]
	if n == nil || n.flags&locks == 0 {
		return
	}

	g.do(Op{Kind: SetFlags, Path: path, Flags: n.flags &^ locks})

	for i := range g.state.nodes { // all its names
		if other := &g.state.nodes[i]; other.inode == n.inode && other.subvolume == n.subvolume {
			other.flags &^= locks
		}
	}
}

// unlockName makes it possible to move or delete a path.
func (g *Generator) unlockName(path string) {
	g.unlock(parent(path))
	g.unlock(path)
}

func (g *Generator) chance(percent int) bool { return g.src.IntN(100) < percent }

// pick returns one of several values.
func pick[T any](g *Generator, values ...T) T { return values[g.src.IntN(len(values))] }

// choose returns a node, but for the root, that a test holds for.
func (g *Generator) choose(test func(node) bool) (n node, ok bool) {
	found := g.state.where(test)
	if len(found) == 0 {
		return node{}, false
	}

	return pick(g, found...), true
}

func (g *Generator) dir(n node) node { return *g.state.byPath[parent(n.path)] }

// movable tells whether a name can be changed, once it is unlocked.
func (g *Generator) movable(n node) bool {
	return !n.stub && !g.dir(n).frozen && (!n.nested || !n.frozen)
}

// canEnter tells whether a node can be renamed into a directory.
func (g *Generator) canEnter(n, dir node) bool {
	return !within(dir.path, n.path) && (n.nested || g.dir(n).subvolume == dir.subvolume)
}

// maxDepth bounds the depth of what steps make.
const maxDepth = 6

// fresh returns a path where nothing is, in a directory that a test holds for,
// and makes it possible to create something there.
func (g *Generator) fresh(test func(dir node) bool) (path string, ok bool) {
	var dirs []node

	for _, n := range g.state.nodes { // the root too
		if n.isDir() && !n.frozen && strings.Count(n.path, "/") < maxDepth-1 && test(n) {
			dirs = append(dirs, n)
		}
	}

	if len(dirs) == 0 {
		return "", false
	}

	for range 8 {
		dir := pick(g, dirs...)
		if path = join(dir.path, g.name()); g.state.byPath[path] == nil {
			g.unlock(dir.path)

			return path, true
		}
	}

	return "", false
}

func anywhere(node) bool { return true }

// inode returns a node whose metadata can be changed, unlocked; the root is one
// now and then.
func (g *Generator) inode(test func(node) bool) (n node, ok bool) {
	if root := g.state.nodes[0]; g.chance(5) && test(root) {
		n, ok = root, true
	} else {
		n, ok = g.choose(func(n node) bool { return !n.frozen && !n.stub && test(n) })
	}

	if ok {
		g.unlock(n.path)
	}

	return n, ok
}

var plainNames = []string{
	"a", "b", "c", "alice", "etc", "Downloads", ".config", "kde1", "kde2", "Cache", "k e e p", "deep", ".ssh", "x.tmp",
}

var oddNames = []string{
	"new\nline", `q"uo'te`, "\xff\xfe", "*", "-rf", "$HOME", "\u00fc\u0308", `back\slash`, strings.Repeat("n", 255), "\x01",
}

func (g *Generator) name() string {
	if g.chance(15) {
		return pick(g, oddNames...)
	}

	return pick(g, plainNames...)
}

// fileSize covers inline extents, one block, several extents.
func (g *Generator) fileSize() int64 {
	return pick[int64](g, 0, 1, 100, 2047, 4096, 5000, 70_000, 300_000)
}

// seed is small, so that equal contents occur, but not often.
func (g *Generator) seed() uint64 { return uint64(1 + g.src.IntN(1000)) }

// time is one of a few, so that equal times occur: the epoch, before it, beyond
// 32 bits.
func (g *Generator) time() int64 {
	return pick[int64](g, 0, -1_500_000_000, 1_234_567_890_123_456_789, 5_000_000_000_000_000_001, 1_700_000_000_000_000_000)
}

// outside are targets of symlinks that must never be followed.
var outside = []string{"/etc", "/", "..", "../../../../etc/passwd", "/proc/self/root", "a", "."}

func (g *Generator) target() string {
	if g.chance(50) || len(g.state.nodes) == 1 {
		return pick(g, outside...)
	}

	path := pick(g, g.state.nodes[1:]...).path
	if len(path) > 1000 {
		return "a"
	}

	return pick(g, path, "/"+path, "../"+path)
}

// flags returns a set of flags that btrfs accepts together.
func (g *Generator) flags(n node) uint32 {
	flags := pick[uint32](g, 0, btrfs.FlagNoAtime, btrfs.FlagSync, btrfs.FlagNoDump, btrfs.FlagNoAtime|btrfs.FlagNoDump)

	// Not even one after the other: +c or +m while +C is there, or the reverse.
	switch compression := n.flags & (btrfs.FlagCompress | btrfs.FlagNoCompress); {
	case n.flags&btrfs.FlagNoCOW != 0:
		flags |= btrfs.FlagNoCOW
	case n.isDir() && compression == 0 && g.chance(25):
		flags |= btrfs.FlagNoCOW
	default:
		flags |= pick[uint32](g, 0, 0, btrfs.FlagCompress, btrfs.FlagNoCompress)
	}

	if n.isDir() && g.chance(25) {
		flags |= btrfs.FlagDirSync
	}

	if g.chance(30) {
		flags |= pick[uint32](g, btrfs.FlagImmutable, btrfs.FlagAppend)
	}

	return flags
}
