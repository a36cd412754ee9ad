package history

import (
	"errors"
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

// TestApplyFollowsNothing puts symlinks where a path goes through.
func TestApplyFollowsNothing(t *testing.T) {
	mount := testx.Disk(t, 256<<20)
	root := volume(t, mount, "live")
	outside := filepath.Join(mount, "outside")
	must(t, os.WriteFile(outside, []byte("text"), 0o600))
	must(t, os.Symlink("..", filepath.Join(root, "up")))
	must(t, os.Symlink("../outside", filepath.Join(root, "link")))

	before := read(t, mount)

	for _, o := range []Op{
		{Kind: Write, Path: "up/outside"},
		{Kind: Write, Path: "link", Size: 1},
		{Kind: Append, Path: "link", Size: 1},
		{Kind: Mkdir, Path: "up/new"},
		{Kind: Mkdir, Path: "../new"},
		{Kind: Mkdir, Path: "./new"},
		{Kind: Mkdir, Path: "/new"},
		{Kind: Rename, Path: "link", To: "up/new"},
		{Kind: RemoveAll, Path: "up/outside"},
		{Kind: SetFlags, Path: "link", Flags: btrfs.FlagNoAtime},
		{Kind: Chmod, Path: "link", Mode: 0o777},
		{Kind: "nothing", Path: "link"},
	} {
		if err := o.Apply(root); err == nil || !strings.Contains(err.Error(), string(o.Kind)) {
			t.Errorf("%s = %v, want an error that names it", o, err)
		}
	}

	// These change the link itself.
	must(t, Op{Kind: Chown, Path: "link", UID: 7}.Apply(root))
	must(t, Op{Kind: SetXattr, Path: "link", Name: "trusted.t", Value: "1"}.Apply(root))
	must(t, Op{Kind: SetTime, Path: "link", Time: 1}.Apply(root))

	after := read(t, mount)
	if e := after["live/link"]; e.UID != 7 || e.MTime != 1 || e.Xattrs["trusted.t"] != "1" {
		t.Errorf("the link is %+v, want it changed", e)
	}

	before["live/link"] = after["live/link"]
	if diff := model.Diff(before, after); diff != "" {
		t.Errorf("operations that failed changed something:\n%s", diff)
	}
}

func TestDeepAndRemoveAll(t *testing.T) {
	mount := testx.Disk(t, 256<<20)
	root := volume(t, mount, "live")

	must(t, Replay(root, []Op{
		{Kind: Mkdir, Path: "a", Mode: 0o755},
		{Kind: Deep, Path: "a", Size: 2000},
		{Kind: Subvolume, Path: "a/v"},
		{Kind: Subvolume, Path: "a/v/w"},
		{Kind: Write, Path: "a/v/w/file", Size: 1, Seed: 1},
		{Kind: SetFlags, Path: "a/v/w/file", Flags: btrfs.FlagImmutable},
		{Kind: Snapshot, Path: "a/v", To: "a/s"},
		{Kind: ReadOnly, Path: "a/v", Flags: 1},
		{Kind: SetFlags, Path: "a", Flags: btrfs.FlagImmutable},
	}))

	tree := read(t, root)
	if got := len(tree); got != 1+1+2000+3+2 {
		t.Errorf("%d entries, want 2007", got)
	}

	if !tree["a/s/w"].Stub || !tree["a/v"].ReadOnly || tree["a"].Flags != btrfs.FlagImmutable {
		t.Errorf("a/s/w = %+v, a/v = %+v, a = %+v, want a stub, read-only, immutable", tree["a/s/w"], tree["a/v"], tree["a"])
	}

	if err := (Op{Kind: Unlink, Path: "a/v/w/file"}).Apply(root); !errors.Is(err, unix.EPERM) {
		t.Errorf("unlink of an immutable file = %v, want %v", err, unix.EPERM)
	}

	must(t, Op{Kind: RemoveAll, Path: "a"}.Apply(root))

	if tree := read(t, root); len(tree) != 1 {
		t.Errorf("after RemoveAll %d entries remain, want the root alone", len(tree))
	}
}

// TestRecreate checks that it leaves no trace but the inode and the content.
func TestRecreate(t *testing.T) {
	mount := testx.Disk(t, 256<<20)
	root := volume(t, mount, "live")

	must(t, Replay(root, []Op{
		{Kind: Write, Path: "f", Size: 3000, Seed: 1, Mode: 0o644},
		{Kind: Symlink, Path: "l", To: "target"},
		{Kind: Mkdir, Path: "d", Mode: 0o755},
	}))

	before := read(t, root)

	must(t, Replay(root, []Op{
		{Kind: Recreate, Path: "f", Seed: 2, Mode: 0o644},
		{Kind: Recreate, Path: "l"},
		{Kind: Recreate, Path: "d"},
	}))

	after := read(t, root)
	if after["f"].Hash == before["f"].Hash || after["l"].Target == before["l"].Target {
		t.Error("Recreate leaves the content, want another")
	}

	for _, path := range []string{"f", "l", "d"} {
		b, a := before[path], after[path]
		a.Hash, a.Target = b.Hash, b.Target

		if diff := cmp.Diff(b, a); diff != "" {
			t.Errorf("Recreate(%s) changes more than the content:\n%s", path, diff)
		}
	}

	must(t, Op{Kind: Write, Path: "f", Size: 3000, Seed: 3, KeepTime: true}.Apply(root))

	if e := read(t, root)["f"]; e.MTime != after["f"].MTime || e.Hash == after["f"].Hash {
		t.Error("a write that keeps the time changes it, or does not write")
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"mkdir", "line 1"},
		{"# comment\n\nmkdir a", "line 3"},
		{`fly "a"`, "fly"},
		{`mkdir "a" mode`, "want KIND"},
		{`mkdir "a" mode=x`, "mode"},
		{`mkdir "a" colour=1`, "colour"},
		{`rename "a" to=b`, "to"},
		{`mkdir "a`, "want KIND"},
	} {
		if _, err := Parse(strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", tt.text, err, tt.want)
		}
	}
}

// FuzzParse checks that what parses prints and parses to the same.
func FuzzParse(f *testing.F) {
	f.Add("mkdir \"a/\\xff\" mode=0755\n# x\nwrite \"b\" size=5 seed=7 keeptime=true\n")
	f.Add("rename \"a\" to=\"b\\n\"\nsettime \"\" time=-5\nsetxattr \"a\" name=\"user.a\" value=\"\\x00\"")

	f.Fuzz(func(t *testing.T, text string) {
		ops, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}

		again, err := Parse(strings.NewReader(Format(ops)))
		if err != nil || !slices.Equal(ops, again) {
			t.Fatalf("Parse(Format(%v)) = %v, %v", ops, again, err)
		}
	})
}

func TestShrink(t *testing.T) {
	ops := make([]Op, 100)
	for i := range ops {
		ops[i] = Op{Kind: Mkdir, Path: fmt.Sprint(i)}
	}

	got := Shrink(ops, func(ops []Op) bool {
		has := func(path string) bool { return slices.ContainsFunc(ops, func(o Op) bool { return o.Path == path }) }

		return has("3") && has("57") && has("99")
	})
	if text := Format(got); text != "mkdir \"3\"\nmkdir \"57\"\nmkdir \"99\"\n" {
		t.Errorf("Shrink leaves\n%swant 3, 57 and 99", text)
	}
}

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
