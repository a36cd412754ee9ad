package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"nixos-go/vmtest/powercut/writelog"
)

// Kind is a sort of crash point; the package comment says what each holds.
type Kind string

// The kinds of crash points.
const (
	Start  Kind = "start"
	Flush  Kind = "flush"
	Write  Kind = "write"
	Subset Kind = "subset"
)

// Kinds lists every kind, in the order of tables.
func Kinds() []Kind { return []Kind{Start, Flush, Write, Subset} }

// Point is an instant at which the power fails.
type Point struct {
	Kind  Kind
	Entry int    // index in the log of the last entry that may be on disk
	Seed  uint64 // of a Subset: which of the pending writes are
}

// String is the name that ParsePoint reads: start, flush:12, write:40,
// subset:47/3.
func (p Point) String() string {
	switch p.Kind {
	case Start:
		return string(Start)
	case Subset:
		return fmt.Sprintf("%s:%d/%d", p.Kind, p.Entry, p.Seed)
	case Flush, Write:
	}
	return fmt.Sprintf("%s:%d", p.Kind, p.Entry)
}

// ErrPoint says that a text names no crash point, or none of this log.
var ErrPoint = errors.New("no crash point")

// ParsePoint reads the name of a point.
func ParsePoint(text string) (Point, error) {
	fail := fmt.Errorf("%w: %q: use start, flush:ENTRY, write:ENTRY or subset:ENTRY/SEED", ErrPoint, text)
	if text == string(Start) {
		return Point{Kind: Start}, nil
	}
	kind, rest, _ := strings.Cut(text, ":")
	entry, seed, hasSeed := strings.Cut(rest, "/")
	p := Point{Kind: Kind(kind)}
	if !slices.Contains([]Kind{Flush, Write, Subset}, p.Kind) || hasSeed != (p.Kind == Subset) {
		return Point{}, fail
	}
	n, err := strconv.ParseUint(entry, 10, 31)
	if err != nil {
		return Point{}, fail
	}
	p.Entry = int(n)
	if hasSeed {
		if p.Seed, err = strconv.ParseUint(seed, 10, 64); err != nil {
			return Point{}, fail
		}
	}
	return p, nil
}

// tornAt is the unit in which a disk writes or does not write, in bytes.
const tornAt = 4096

// A piece is what of an entry is on disk: its first length bytes.
type piece struct {
	entry  int
	length int64
}

// pieces says what is on disk at a point, in the order of taking effect.
func pieces(entries []writelog.Entry, p Point) ([]piece, error) {
	if p.Kind == Start {
		return nil, nil
	}
	if p.Entry < 0 || p.Entry >= len(entries) {
		return nil, fmt.Errorf("%w: %v: the log has %d entries", ErrPoint, p, len(entries))
	}
	entries = entries[:p.Entry+1]
	flushed := lastFlush(entries)
	choose := func(writelog.Entry) int64 { return 0 }
	switch p.Kind {
	case Write:
		choose = func(e writelog.Entry) int64 { return e.Length }
	case Subset:
		choose = chooser(entries, flushed, p)
	case Start, Flush:
	}
	var out []piece
	for i, e := range entries {
		if !e.IsWrite() {
			continue
		}
		length := e.Length
		if pending(i, e, flushed) {
			length = choose(e)
		}
		if length > 0 {
			out = append(out, piece{i, length})
		}
	}
	return out, nil
}

// lastFlush is the index of the last entry that flushes, or -1. The data of
// such an entry, if it has any, comes after its flush.
func lastFlush(entries []writelog.Entry) int {
	for i, e := range slices.Backward(entries) {
		if e.Flags&writelog.Flush != 0 {
			return i
		}
	}
	return -1
}

// pending reports whether a write may be lost, given where the last flush was.
func pending(i int, e writelog.Entry, flushed int) bool {
	return e.IsWrite() && i >= flushed && e.Flags&writelog.FUA == 0
}

// chooser decides for each pending write in turn how much of it is on disk.
// Losing few, half and most of them find different bugs, so the odds are drawn
// too; and so is the instant, since what was written last is not yet sent.
func chooser(entries []writelog.Entry, flushed int, p Point) func(writelog.Entry) int64 {
	const tornOdds = 16
	r := newRand(p.Seed, p.Entry)
	count := 0
	for i, e := range entries {
		if pending(i, e, flushed) {
			count++
		}
	}
	odds := []float64{0.1, 0.5, 0.9}[r.IntN(3)]
	left := 1 + r.IntN(max(count, 1))
	return func(e writelog.Entry) int64 {
		take, torn := r.Float64() < odds, r.IntN(tornOdds) == 0
		left--
		switch sectors := e.Length / tornAt; {
		case left < 0 || !take:
			return 0
		case torn && sectors > 1:
			return tornAt * (1 + r.Int64N(sectors-1))
		}
		return e.Length
	}
}

// newRand is a source that gives the same again: a failure has to be repeatable.
func newRand(seed uint64, n int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(n))) //nolint:gosec // nothing here is secret
}

// Selection says which crash points of a log are tried. Start is always one.
type Selection struct {
	Flushes bool   // every flush and FUA write
	Writes  bool   // every write
	Subsets int    // so many subsets between any two flushes
	Sample  int    // if not 0: of all these writes, and of all these subsets, so many
	Firsts  int    // if not 0: of the flushes, so many are cut twice
	Dense   int    // if not 0: of the flushes of a dense scenario, so many
	Seed    uint64 // of the subsets and of the sample
}

// Select lists the points of a log, in the order of their entries.
func (s Selection) Select(log *writelog.Log, dense bool) []Point {
	var flushes, writes, subsets []Point
	first := 0 // of the interval between two flushes
	for i, e := range log.Entries {
		if e.Flags&(writelog.Flush|writelog.FUA) != 0 && s.Flushes {
			flushes = append(flushes, Point{Kind: Flush, Entry: i})
		}
		if e.IsWrite() && s.Writes {
			writes = append(writes, Point{Kind: Write, Entry: i})
		}
		last := i == len(log.Entries)-1
		if last || log.Entries[i+1].Flags&writelog.Flush != 0 {
			subsets = append(subsets, s.subsets(log.Entries, first, i)...)
			first = i + 1
		}
	}
	if dense {
		flushes = s.sampleOf(flushes, s.Dense)
	}
	points := slices.Concat(flushes, s.sampleOf(writes, s.Sample), s.sampleOf(subsets, s.Sample))
	slices.SortStableFunc(points, func(a, b Point) int { return a.Entry - b.Entry })
	return append([]Point{{Kind: Start}}, points...)
}

// sampleOf draws n points, or takes all if n is 0. Their order stays.
func (s Selection) sampleOf(points []Point, n int) []Point {
	if n <= 0 || n >= len(points) {
		return points
	}
	r := newRand(s.Seed, len(points))
	drawn := r.Perm(len(points))[:n]
	slices.Sort(drawn)
	out := make([]Point, 0, n)
	for _, i := range drawn {
		out = append(out, points[i])
	}
	return out
}

// subsets draws different subsets of the writes that are pending at the end of
// the interval from entry first to entry last. Fewer where there are not so many.
func (s Selection) subsets(entries []writelog.Entry, first, last int) []Point {
	const patience = 4
	seen := map[string]bool{}
	var points []Point
	for try := range s.Subsets * patience {
		if len(points) == s.Subsets {
			break
		}
		p := Point{Kind: Subset, Entry: last, Seed: s.Seed + uint64(try)}
		chosen, err := pieces(entries, p)
		if err != nil {
			return nil
		}
		// What was written before the interval is the same for all.
		for len(chosen) > 0 && chosen[0].entry < first {
			chosen = chosen[1:]
		}
		key := fmt.Sprint(chosen)
		if len(chosen) > 0 && !seen[key] { // none is the flush before
			seen[key] = true
			points = append(points, p)
		}
	}
	return points
}
