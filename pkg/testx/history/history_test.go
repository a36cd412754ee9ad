package history

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// volume makes an empty subvolume.
func volume(t *testing.T, mount, name string) string {
	t.Helper()

	dir, err := os.Open(mount)
	must(t, err)

	defer dir.Close()

	must(t, btrfs.Create(dir, name))

	return filepath.Join(mount, name)
}

func snapshotOf(t *testing.T, from, to string, readOnly bool) {
	t.Helper()

	src, err := os.Open(from)
	must(t, err)

	defer src.Close()

	dir, err := os.Open(filepath.Dir(to))
	must(t, err)

	defer dir.Close()

	must(t, btrfs.Snapshot(src, dir, filepath.Base(to), readOnly))
}

func read(t *testing.T, root string) model.Tree {
	t.Helper()

	tree, err := model.Read(root)
	must(t, err)

	return tree
}

// timeless returns a tree without what differs between two runs of one log.
func timeless(tree model.Tree) model.Tree {
	other := model.Tree{}

	for path, e := range tree {
		e.MTime, e.UUID = 0, ""
		other[path] = e
	}

	return other
}

// TestSeeds runs histories: each must succeed, all together must do everything,
// and the model must agree with itself about them.
func TestSeeds(t *testing.T) {
	mount := testx.Disk(t, 2<<30, testx.WithMountOptions("noatime"))
	done := map[Kind]int{}

	seeds := uint64(25)
	if testing.Short() {
		seeds = 8
	}

	for seed := range seeds {
		folder := filepath.Join(mount, fmt.Sprint("seed", seed))
		must(t, os.Mkdir(folder, 0o700))

		g := New(NewSource(seed))
		live := volume(t, folder, "live")

		ops, err := g.Populate(live, 40)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, Format(ops))
		}

		count(done, ops)
		snapshotOf(t, live, filepath.Join(folder, "clean"), true)

		for boot := range 3 {
			ops, err := g.Mutate(live, 40)
			if err != nil {
				t.Fatalf("seed %d, boot %d: %v\n%s", seed, boot, err, Format(ops))
			}

			count(done, ops)
			checkModel(t, g, live, filepath.Join(folder, "clean"))

			if t.Failed() {
				t.Fatalf("seed %d, boot %d", seed, boot)
			}
		}

		must(t, Op{Kind: RemoveAll, Path: filepath.Base(folder)}.Apply(mount))
	}

	for kind := range appliers {
		if done[kind] == 0 && kind != Deep {
			t.Errorf("no history has a %s", kind)
		}
	}

	t.Log(done)
}

func count(done map[Kind]int, ops []Op) {
	for _, o := range ops {
		done[o.Kind]++
	}
}

// checkModel checks what must hold for the model whatever a history has done.
func checkModel(t *testing.T, g *Generator, live, clean string) {
	t.Helper()

	keepRules, exclude, err := g.Rules(live, clean)
	must(t, err)

	if _, err := keep.NewSet(keepRules, exclude); err != nil {
		t.Errorf("Rules() = %q, %q: %v", keepRules, exclude, err)
	}

	old, cleanTree := read(t, live), read(t, clean)
	want := model.Expect(old, cleanTree, keepRules, exclude)

	if diff := model.Diff(want, model.Expect(want, cleanTree, keepRules, exclude)); diff != "" {
		t.Errorf("keep %q, exclude %q: a reset of what a reset made changes it:\n%s", keepRules, exclude, diff)
	}

	all := model.Expect(old, cleanTree, []string{"/*"}, nil)
	all[""] = old[""]

	withoutStubs := maps.Clone(old)
	maps.DeleteFunc(withoutStubs, func(_ string, e model.Entry) bool { return e.Stub })

	// Stubs in nested subvolumes move along.
	maps.DeleteFunc(all, func(_ string, e model.Entry) bool { return e.Stub })

	if diff := model.Diff(withoutStubs, all); diff != "" {
		t.Errorf("a reset that keeps all is not the old tree:\n%s", diff)
	}

	for path, e := range cleanTree {
		if e.Stub {
			cleanTree[path] = model.Entry{Type: unix.S_IFDIR, Mode: 0o755, AnyMTime: true}
		}
	}

	if diff := model.Diff(cleanTree, model.Expect(old, cleanTree, nil, nil)); diff != "" {
		t.Errorf("a reset that keeps nothing is not the clean tree:\n%s", diff)
	}
}

// TestReproducible runs a seed twice, then its log.
func TestReproducible(t *testing.T) {
	mount := testx.Disk(t, 1<<30)
	logs := make([]string, 2)
	trees := make([]model.Tree, 3)

	var all []Op

	for i := range 2 {
		g := New(NewSource(7))
		root := volume(t, mount, fmt.Sprint("run", i))

		clean, err := g.Populate(root, 40)
		must(t, err)
		day, err := g.Mutate(root, 80)
		must(t, err)

		all = slices.Concat(clean, day)
		logs[i], trees[i] = Format(all), timeless(read(t, root))
	}

	if diff := cmp.Diff(logs[0], logs[1]); diff != "" {
		t.Errorf("two runs of a seed:\n%s", diff)
	}

	parsed, err := Parse(strings.NewReader(logs[0]))
	must(t, err)

	if diff := cmp.Diff(all, parsed); diff != "" {
		t.Fatalf("Parse(Format(ops)) (-want +got):\n%s", diff)
	}

	root := volume(t, mount, "replay")
	must(t, Replay(root, parsed))
	trees[2] = timeless(read(t, root))

	for i, tree := range trees[1:] {
		if diff := model.Diff(trees[0], tree); diff != "" {
			t.Errorf("run %d differs from the first:\n%s", i+1, diff)
		}
	}
}

// TestRapid draws a history from a property test.
func TestRapid(t *testing.T) {
	mount := testx.Disk(t, 1<<30)
	n := 0

	rapid.Check(t, func(rt *rapid.T) {
		n++

		ops, err := New(rapidSource{rt}).Mutate(volume(t, mount, fmt.Sprint("v", n)), rapid.IntRange(1, 20).Draw(rt, "steps"))
		if err != nil {
			rt.Fatalf("%v\n%s", err, Format(ops))
		}
	})
}

type rapidSource struct{ t *rapid.T }

func (s rapidSource) IntN(n int) int { return rapid.IntRange(0, n-1).Draw(s.t, "choice") }

// TestRules checks that rules find what steps make.
func TestRules(t *testing.T) {
	mount := testx.Disk(t, 512<<20)
	root := volume(t, mount, "live")
	_, err := New(NewSource(1)).Mutate(root, 150)
	must(t, err)

	tree := read(t, root)
	kept, wipedBelow, keptBelow, stars := 0, 0, 0, 0

	for seed := range uint64(100) {
		rules, exclude, err := New(NewSource(seed)).Rules(root)
		must(t, err)

		set, err := keep.NewSet(rules, exclude)
		must(t, err)

		m := keep.NewMatcher(set)
		stars += strings.Count(strings.Join(rules, ""), "*")

		for path := range tree {
			above := parent(path)

			switch is, was := m.Kept(path), m.Kept(above); {
			case is && was:
				kept++
			case was:
				wipedBelow++
			case is && strings.Contains(path, "/"):
				keptBelow++
			}
		}
	}

	if kept < 100 || wipedBelow < 20 || keptBelow < 50 || stars < 50 {
		t.Errorf("of 100 rule sets: %d paths kept with their parents, %d wiped below kept ones, %d kept below others, %d stars: want more",
			kept, wipedBelow, keptBelow, stars)
	}
}
