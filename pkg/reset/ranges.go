package reset

import (
	"slices"
	"sort"
)

// maxRanges bounds how many ranges of inodes a record holds; more are joined over
// the smallest gaps. Joining only makes the next search read a little more.
const maxRanges = 256

// makeRanges covers all the numbers by at most maxRanges ranges.
func makeRanges(numbers []uint64, more ...Range) []Range {
	ranges := slices.Clone(more)
	for _, n := range numbers {
		ranges = append(ranges, Range{n, n})
	}
	sort.Slice(ranges, func(i, j int) bool { return ranges[i].First < ranges[j].First })
	const near = 64 // closer than this is one range: a leaf holds about as many inodes
	ranges = joinRanges(ranges, near)
	for gap := uint64(near); len(ranges) > maxRanges; gap *= 4 {
		ranges = joinRanges(ranges, gap)
	}
	return ranges
}

// joinRanges joins sorted ranges that are at most gap apart, in place.
func joinRanges(ranges []Range, gap uint64) []Range {
	out := ranges[:0]
	for _, r := range ranges {
		last := len(out) - 1
		if last >= 0 && (r.First <= out[last].Last || r.First-out[last].Last <= gap) {
			out[last].Last = max(out[last].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}
