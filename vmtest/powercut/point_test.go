package powercut

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nixos-go/vmtest/powercut/writelog"
)

// entry builders for hand-made logs: w writes length bytes at an offset.
func w(offset, length int64) writelog.Entry {
	return writelog.Entry{Offset: offset, Length: length}
}

func flagged(e writelog.Entry, flags writelog.Flags) writelog.Entry {
	e.Flags = flags
	return e
}

var (
	bareFlush = writelog.Entry{Flags: writelog.Flush}
	mark      = writelog.Entry{Flags: writelog.Mark, Note: "here"}
)

func TestPieces(t *testing.T) {
	entries := []writelog.Entry{
		0: w(0, 4096),
		1: w(4096, 4096),
		2: bareFlush,
		3: w(8192, 4096),
		4: flagged(w(12288, 4096), writelog.FUA),
		5: flagged(w(0, 8192), writelog.Discard),
		6: mark,
		7: flagged(w(16384, 4096), writelog.Flush), // flushes, then writes
		8: w(20480, 4096),
		9: flagged(w(24576, 4096), writelog.Flush|writelog.FUA),
	}
	tests := []struct {
		point string
		want  []int // entries on disk
	}{
		{"start", nil},
		{"write:0", []int{0}},
		{"write:1", []int{0, 1}},
		{"flush:2", []int{0, 1}},
		{"write:3", []int{0, 1, 3}},
		{"flush:4", []int{0, 1, 4}}, // FUA: durable, and nothing said of entry 3
		{"write:5", []int{0, 1, 3, 4, 5}},
		{"write:6", []int{0, 1, 3, 4, 5}},
		{"flush:7", []int{0, 1, 3, 4, 5}}, // its own data comes after the flush
		{"write:7", []int{0, 1, 3, 4, 5, 7}},
		{"write:8", []int{0, 1, 3, 4, 5, 7, 8}},
		{"flush:9", []int{0, 1, 3, 4, 5, 7, 8, 9}},
	}
	for _, tt := range tests {
		p, err := ParsePoint(tt.point)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pieces(entries, p)
		if err != nil {
			t.Errorf("pieces(%v) = %v", p, err)
		}
		var want []piece
		for _, i := range tt.want {
			want = append(want, piece{i, entries[i].Length})
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(piece{})); diff != "" {
			t.Errorf("pieces(%v) (-want +got)\n%s", p, diff)
		}
	}
	if _, err := pieces(entries, Point{Kind: Write, Entry: len(entries)}); !errors.Is(err, ErrPoint) {
		t.Errorf("pieces(beyond the log) = %v, want %v", err, ErrPoint)
	}
}

// randomEntries draws a log of writes, discards, flushes and FUA writes.
func randomEntries(t *rapid.T) []writelog.Entry {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) writelog.Entry {
		e := w(4096*rapid.Int64Range(0, 9).Draw(t, "block"), 4096*rapid.Int64Range(1, 5).Draw(t, "blocks"))
		e.Flags = rapid.SampledFrom([]writelog.Flags{
			0, 0, 0, 0, writelog.Flush, writelog.FUA, writelog.Discard, writelog.Flush | writelog.FUA, writelog.Metadata,
		}).Draw(t, "flags")
		return e
	}), 1, 40).Draw(t, "entries")
}

// TestSubsetsAreLegal: at any point, what a flush or FUA covers is there, whole;
// nothing from after the instant is; a torn write is torn at 4096 bytes; and
// the same seed gives the same subset.
func TestSubsetsAreLegal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := randomEntries(t)
		p := Point{
			Kind:  Subset,
			Entry: rapid.IntRange(0, len(entries)-1).Draw(t, "entry"),
			Seed:  rapid.Uint64().Draw(t, "seed"),
		}
		got, err := pieces(entries, p)
		if err != nil {
			t.Fatalf("pieces(%v) = %v", p, err)
		}
		again, err := pieces(entries, p)
		if err != nil || !cmp.Equal(got, again, cmp.AllowUnexported(piece{})) {
			t.Fatalf("pieces(%v) = %v, then %v, %v", p, got, again, err)
		}
		onDisk := map[int]int64{}
		previous := -1
		for _, piece := range got {
			e := entries[piece.entry]
			if piece.entry <= previous || piece.entry > p.Entry {
				t.Fatalf("pieces(%v) = %v: entry %d is out of order", p, got, piece.entry)
			}
			if piece.length <= 0 || piece.length > e.Length || piece.length%tornAt != 0 {
				t.Fatalf("pieces(%v): %d bytes of entry %d, %v", p, piece.length, piece.entry, e)
			}
			previous = piece.entry
			onDisk[piece.entry] = piece.length
		}
		for i, e := range entries[:p.Entry+1] {
			if durable(entries[:p.Entry+1], i) && onDisk[i] != e.Length {
				t.Fatalf("pieces(%v): entry %d, %v, is durable and has %d bytes on disk", p, i, e, onDisk[i])
			}
		}
	})
}

// durable says by the rules of the package comment, in the plainest way, that
// entry i must be on disk after the last of the entries.
func durable(entries []writelog.Entry, i int) bool {
	if entries[i].Flags&writelog.FUA != 0 {
		return true
	}
	for _, e := range entries[i+1:] {
		if e.Flags&writelog.Flush != 0 {
			return true
		}
	}
	return false
}

// TestSubsetsReachEverything: each of the eight ways to lose three pending writes
// is drawn by some seed, torn ones too.
func TestSubsetsReachEverything(t *testing.T) {
	entries := []writelog.Entry{w(0, 4096), bareFlush, w(4096, 8192), w(8192, 4096), w(12288, 4096)}
	seen := map[string]bool{}
	for seed := range uint64(2000) {
		got, err := pieces(entries, Point{Kind: Subset, Entry: 4, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(got[1:])] = true // the first is durable
	}
	for _, want := range []string{
		"[]", "[{2 8192}]", "[{3 4096}]", "[{4 4096}]", "[{2 8192} {3 4096}]", "[{2 8192} {4 4096}]",
		"[{3 4096} {4 4096}]", "[{2 8192} {3 4096} {4 4096}]", "[{2 4096} {3 4096} {4 4096}]",
	} {
		if !seen[want] {
			t.Errorf("no seed gives %s", want)
		}
	}
}

func TestParsePoint(t *testing.T) {
	for _, p := range []Point{
		{Kind: Start},
		{Kind: Flush, Entry: 0},
		{Kind: Write, Entry: 1<<31 - 1},
		{Kind: Subset, Entry: 47, Seed: 1<<64 - 1},
	} {
		if got, err := ParsePoint(p.String()); err != nil || got != p {
			t.Errorf("ParsePoint(%q) = %v, %v, want %v", p.String(), got, err, p)
		}
	}
	for _, text := range []string{
		"", "start:1", "flush", "flush:", "flush:-1", "flush:x", "flush:1/2", "write:2147483648",
		"subset:1", "subset:1/", "subset:1/x", "subset:/1", "begin:1", "flush:1 ", "Flush:1",
	} {
		if got, err := ParsePoint(text); !errors.Is(err, ErrPoint) {
			t.Errorf("ParsePoint(%q) = %v, %v, want %v", text, got, err, ErrPoint)
		}
	}
}

func names(points []Point) []string {
	out := make([]string, 0, len(points))
	for _, p := range points {
		out = append(out, p.String())
	}
	return out
}

func TestSelect(t *testing.T) {
	log := &writelog.Log{Entries: []writelog.Entry{
		w(0, 4096), w(4096, 4096), bareFlush, flagged(w(0, 4096), writelog.FUA), flagged(w(0, 4096), writelog.Discard),
	}}
	got := names(Selection{Flushes: true, Writes: true}.Select(log, false))
	want := []string{"start", "write:0", "write:1", "flush:2", "flush:3", "write:3", "write:4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Select(all) (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"start"}, names(Selection{}.Select(log, false))); diff != "" {
		t.Errorf("Select(nothing) (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"start"}, names(Selection{Flushes: true, Writes: true, Subsets: 5}.Select(&writelog.Log{}, false))); diff != "" {
		t.Errorf("Select(empty log) (-want +got)\n%s", diff)
	}
}

func TestSelectDense(t *testing.T) {
	log := &writelog.Log{}
	for range 20 {
		log.Entries = append(log.Entries, w(0, 4096), bareFlush)
	}
	s := Selection{Flushes: true, Dense: 5}
	if got := s.Select(log, true); len(got) != 1+5 {
		t.Errorf("Select(dense) = %v, want 5 flushes", names(got))
	}
	if got := s.Select(log, false); len(got) != 1+20 {
		t.Errorf("Select(not dense) = %v, want 20 flushes", names(got))
	}
}

func TestSelectSubsets(t *testing.T) {
	log := &writelog.Log{Entries: []writelog.Entry{w(0, 4096), bareFlush, w(0, 4096), w(4096, 4096), w(8192, 4096)}}
	s := Selection{Subsets: 4, Seed: 7}
	points := s.Select(log, false)
	seen := map[string]int{}
	perInterval := map[int]int{}
	for _, p := range points[1:] {
		list, err := pieces(log.Entries, p)
		if err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(list)]++
		perInterval[p.Entry]++
	}
	for key, n := range seen {
		if n > 1 {
			t.Errorf("Select: %d points have the same %s", n, key)
		}
	}
	// One pending write can only be there or not; not is the flush before.
	if perInterval[0] != 1 || perInterval[4] != 4 {
		t.Errorf("Select: %v subsets by interval, want 1 and 4", perInterval)
	}
	if diff := cmp.Diff(names(points), names(s.Select(log, false))); diff != "" {
		t.Errorf("Select twice (-first +second)\n%s", diff)
	}
	s.Sample = 2
	if got := s.Select(log, false); len(got) != 3 {
		t.Errorf("Select(sample of 2) = %v, want 2 and the start", names(got))
	}
}
