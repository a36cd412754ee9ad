package diff

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
)

// The target of nixos-diff: on a volume of a million files with a hundred changes it
// takes at most 0.1 s more than the sync that it begins with.
const (
	benchFiles   = 1_000_000
	benchChanges = 100
	benchRounds  = 11
)

// BenchmarkMillionFiles needs some minutes to make the files.
func BenchmarkMillionFiles(b *testing.B) {
	testx.NeedBtrfs(b)
	for range b.N {
		fs := testx.NewFilesystem(b, 8<<30, testx.WithMountOptions("noatime"))
		m := newMachine(b, fs, "@root")
		m.rules([]string{"/etc/ssh"}, nil)
		b.Logf("making %d files", benchFiles)
		for i := range benchFiles {
			m.writeFile(i, "x")
		}
		m.takeClean()
		m.reset()
		fmt.Printf("\n| %d files, %d changes | sync ms | nixos-diff above it ms | of the sync |\n|---|---|---|---|\n", benchFiles, benchChanges)
		for _, cold := range []bool{false, true} {
			name := map[bool]string{false: "warm", true: "cold"}[cold]
			s, d := m.measure(b, cold)
			fmt.Printf("| %s | %.1f | %.1f (at most 100) | %.2f |\n", name, ms(s), ms(d), ms(d)/ms(s))
			b.ReportMetric(ms(d)/ms(s), name+"-above/sync")
			b.ReportMetric(ms(d), name+"-above-ms")
		}
	}
}

// measure gives the median times of the sync after a hundred changes, and of nixos-diff
// after it: it syncs as well, but nothing is left to do.
func (m *machine) measure(b *testing.B, cold bool) (sync, diff time.Duration) {
	b.Helper()
	syncs, diffs := make([]time.Duration, 0, benchRounds), make([]time.Duration, 0, benchRounds)
	for round := range benchRounds {
		m.reset()
		m.changeSome(round)
		start := time.Now()
		m.sync()
		syncs = append(syncs, time.Since(start))
		if cold {
			m.dropCaches()
		}
		start = time.Now()
		r := m.report()
		diffs = append(diffs, time.Since(start))
		if len(r.Findings) != benchChanges || r.Volumes[0].Way != reset.WayChanged {
			b.Fatalf("nixos-diff lists %d findings by %s, want %d by %s", len(r.Findings), r.Volumes[0].Way, benchChanges, reset.WayChanged)
		}
	}
	return median(syncs), median(diffs)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// writeFile writes one of many small files, in folders of a hundred.
func (m *machine) writeFile(i int, text string) {
	m.t.Helper()
	dir := filepath.Join(m.live(), "usr", strconv.Itoa(i/10_000), strconv.Itoa(i/100%100))
	if i%100 == 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// changeSome edits, adds and deletes files all over the volume.
func (m *machine) changeSome(round int) {
	m.t.Helper()
	for i := range benchChanges {
		at := i * (benchFiles / benchChanges)
		switch i % 3 {
		case 0:
			m.writeFile(at+1, "round "+strconv.Itoa(round))
		case 1:
			m.writeFile(at, "y"+strconv.Itoa(round))
		case 2:
			name := filepath.Join(m.live(), "usr", strconv.Itoa(at/10_000), "new"+strconv.Itoa(round))
			if err := os.WriteFile(name, nil, 0o644); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

func (m *machine) sync() {
	m.t.Helper()
	top := m.top()
	defer top.Close()
	if err := btrfs.Sync(top); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) dropCaches() {
	m.t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		m.t.Fatal(err)
	}
}
