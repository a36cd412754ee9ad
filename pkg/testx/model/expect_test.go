package model

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// plant makes a tree from lines "KIND PATH", where a path may end in =CONTENT
// and then in #INODE. Entries of different sources differ in owner and time.
// Kinds: d directory, f file, F the same file in every source, l symlink, p
// fifo, v nested subvolume, r a read-only one, s stub, n a subvolume that is
// new, e an empty directory that no source has.
func plant(t *testing.T, source string, lines ...string) Tree {
	t.Helper()

	tree := Tree{"": plantEntry(t, source, "d", "")}

	for _, line := range lines {
		kind, rest, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("line %q: want KIND PATH", line)
		}

		rest, inode, _ := strings.Cut(rest, "#")
		path, content, _ := strings.Cut(rest, "=")
		e := plantEntry(t, source, kind, content)

		if e.Inode = inode; inode != "" && source != "" {
			e.Inode = source + inode
		}

		if e.Subvolume && kind != "n" {
			e.UUID = source + " " + path
		}

		tree[path] = e
	}

	return tree
}

func plantEntry(t *testing.T, source, kind, content string) Entry {
	t.Helper()

	e := Entry{Mode: 0o700, UID: uint32(len(source)), MTime: int64(len(source)), Size: int64(len(content)), Hash: sha256.Sum256([]byte(content))}

	switch kind {
	case "f":
		e.Type = unix.S_IFREG
	case "F":
		e.Type, e.UID, e.MTime = unix.S_IFREG, 0, 0
	case "l":
		e.Type, e.Target = unix.S_IFLNK, content
	case "p":
		e.Type = unix.S_IFIFO
	case "d", "v", "n", "r":
		e.Type, e.Subvolume, e.ReadOnly = unix.S_IFDIR, kind != "d", kind == "r"
	case "s":
		e.Type, e.Stub = unix.S_IFDIR, true
	case "e":
		e = Entry{Type: unix.S_IFDIR, Mode: 0o755, AnyMTime: true}
	default:
		t.Fatalf("no kind %q", kind)
	}

	if e.Type != unix.S_IFREG {
		e.Size, e.Hash = 0, [sha256.Size]byte{}
	}

	return e
}

// plantWant makes a wanted tree from lines "SOURCE KIND PATH".
func plantWant(t *testing.T, lines []string) Tree {
	t.Helper()

	want := Tree{"": plantEntry(t, "clean", "d", "")}

	for _, line := range lines {
		source, line, _ := strings.Cut(line, " ")
		for path, e := range plant(t, source, line) {
			if path != "" {
				e.Inode = strings.TrimPrefix(e.Inode, source)
				want[path] = e
			}
		}
	}

	return want
}

type expectTest struct {
	name          string
	keep, exclude []string
	old, clean    []string
	want          []string // the root is always clean's
}

func (tt expectTest) run(t *testing.T) {
	t.Helper()
	t.Run(tt.name, func(t *testing.T) {
		got := Expect(plant(t, "old", tt.old...), plant(t, "clean", tt.clean...), tt.keep, tt.exclude)
		if diff := Diff(plantWant(t, tt.want), got); diff != "" {
			t.Errorf("Expect:\n%s", diff)
		}
	})
}

func TestExpect(t *testing.T) {
	for _, tt := range []expectTest{
		{
			name: "kept paths are as in OLD, their absence included",
			keep: []string{"/k", "/kept", "/gone", "/l", "/p"},
			old:  []string{"f k", "d kept", "f kept/a", "d kept/b", "f kept/b/c", "l l=x", "p p"},
			clean: []string{
				"f k=clean", "d kept", "f kept/a=clean", "f kept/x", "f gone", "d l", "f l/x", "f p",
			},
			want: []string{"old f k", "old d kept", "old f kept/a", "old d kept/b", "old f kept/b/c", "old l l=x", "old p p"},
		},
		{
			name:  "other paths are as in CLEAN, their absence included",
			keep:  []string{"/k"},
			old:   []string{"f k", "f new", "d dir", "f dir/new", "f changed=1", "d type", "f type/x", "f back", "l link=1"},
			clean: []string{"d dir", "f dir/old", "f changed=2", "f type", "d back", "f back/x", "l link=2", "p fifo"},
			want: []string{
				"old f k", "clean d dir", "clean f dir/old", "clean f changed=2", "clean f type", "clean d back",
				"clean f back/x", "clean l link=2", "clean p fifo",
			},
		},
		{
			name:  "an ancestor that CLEAN has is CLEAN's",
			keep:  []string{"/a/b/k"},
			old:   []string{"d a", "d a/b", "f a/b/k", "f a/b/new", "f a/new"},
			clean: []string{"d a", "d a/b", "f a/b/c"},
			want:  []string{"clean d a", "clean d a/b", "old f a/b/k", "clean f a/b/c"},
		},
		{
			name:  "an ancestor that only OLD has is OLD's, if a kept path below it exists",
			keep:  []string{"/a/b/k", "/c/d/k"},
			old:   []string{"d a", "d a/b", "f a/b/k", "f a/b/new", "d c", "d c/d", "f c/d/new"},
			clean: nil,
			want:  []string{"old d a", "old d a/b", "old f a/b/k"},
		},
		{
			name:  "ancestors of which CLEAN has the upper",
			keep:  []string{"/a/b/k"},
			old:   []string{"d a", "d a/b", "f a/b/k"},
			clean: []string{"d a"},
			want:  []string{"clean d a", "old d a/b", "old f a/b/k"},
		},
		{
			name:  "an ancestor stays where CLEAN has it and nothing kept exists",
			keep:  []string{"/a/k"},
			old:   []string{"f other"},
			clean: []string{"d a", "f a/k", "f a/c"},
			want:  []string{"clean d a", "clean f a/c"},
		},
		{
			name:  "CLEAN has another thing at an ancestor, and a kept path exists",
			keep:  []string{"/a/b/k"},
			old:   []string{"d a", "d a/b", "f a/b/k"},
			clean: []string{"l a=elsewhere"},
			want:  []string{"old d a", "old d a/b", "old f a/b/k"},
		},
		{
			name:  "CLEAN has another thing at an ancestor, and no kept path exists",
			keep:  []string{"/a/b/k"},
			old:   []string{"d a", "d a/b", "f a/b/new"},
			clean: []string{"l a=elsewhere"},
			want:  []string{"clean l a=elsewhere"},
		},
		{
			name:  "OLD has another thing at an ancestor",
			keep:  []string{"/a/k", "/b/k", "/c/k"},
			old:   []string{"l a=/etc", "f b", "l c=/etc"},
			clean: []string{"d a", "f a/k", "f a/x", "l b=x"},
			want:  []string{"clean d a", "clean f a/x", "clean l b=x"},
		},
		{
			name:  "nothing is kept",
			old:   []string{"d a", "f a/b", "v v"},
			clean: []string{"f a"},
			want:  []string{"clean f a"},
		},
		{
			name:  "stars match one component or a part of one",
			keep:  []string{"/*/.ssh", "/*/.config/kde*", "/x*y*z"},
			old:   []string{"d a", "d a/.ssh", "f a/.ssh/id", "d a/.config", "f a/.config/kderc", "f a/.config/krc", "f xyz", "f x1y2z", "f xzy", "f .ssh"},
			clean: []string{"d a"},
			want:  []string{"clean d a", "old d a/.ssh", "old f a/.ssh/id", "old d a/.config", "old f a/.config/kderc", "old f xyz", "old f x1y2z"},
		},
		{
			name:  "a star matches no slash",
			keep:  []string{"/a*c"},
			old:   []string{"d a", "f a/c"},
			clean: nil,
			want:  nil,
		},
	} {
		tt.run(t)
	}
}

func TestExpectExclude(t *testing.T) {
	for _, tt := range []expectTest{
		{
			name:    "the longest rule decides",
			keep:    []string{"/a", "/a/*/c/k"},
			exclude: []string{"/a/b", "/b"},
			old:     []string{"d a", "f a/x", "d a/b", "f a/b/x", "d a/b/c", "f a/b/c/k", "f a/b/c/x", "f b"},
			clean:   []string{"d a", "d a/b", "f a/b/y", "f b"},
			want:    []string{"old d a", "old f a/x", "clean d a/b", "clean f a/b/y", "old d a/b/c", "old f a/b/c/k", "clean f b"},
		},
		{
			name:    "on a tie keep wins",
			keep:    []string{"/a", "/*/b"},
			exclude: []string{"/a", "/a/*"},
			old:     []string{"d a", "f a/b", "f a/c"},
			want:    []string{"old d a", "old f a/b"},
		},
		{
			name:    "length counts in components",
			keep:    []string{"/a/*"},
			exclude: []string{"/averyverylongname", "/a/b*"},
			old:     []string{"d a", "f a/b", "f a/c", "f averyverylongname"},
			want:    []string{"old d a", "old f a/b", "old f a/c"},
		},
		{
			name:    "what an exclude leaves to CLEAN needs its parent",
			keep:    []string{"/a", "/b", "/c"},
			exclude: []string{"/a/x", "/b/x", "/c/x"},
			old:     []string{"d a", "f b"},
			clean:   []string{"d a", "f a/x=clean", "d b", "f b/x", "d c", "d c/x", "f c/x/y"},
			want:    []string{"old d a", "clean f a/x=clean", "old f b"},
		},
		{
			name:    "an exclude wipes where CLEAN has nothing",
			keep:    []string{"/a"},
			exclude: []string{"/a/*/Cache"},
			old:     []string{"d a", "d a/p", "d a/p/Cache", "f a/p/Cache/x", "f a/p/y"},
			want:    []string{"old d a", "old d a/p", "old f a/p/y"},
		},
	} {
		tt.run(t)
	}
}

func TestExpectUnion(t *testing.T) {
	old := plant(t, "old", "d a", "f a/x", "f a/y", "f b", "f c")
	got := ExpectUnion(old, plant(t, "clean"),
		Rules{Keep: []string{"/a", "/b"}, Exclude: []string{"/a/x"}},
		Rules{Keep: []string{"/a/x"}, Exclude: []string{"/b"}})

	want := plantWant(t, []string{"old d a", "old f a/x", "old f a/y", "old f b"})
	if diff := Diff(want, got); diff != "" {
		t.Errorf("ExpectUnion:\n%s", diff)
	}
}

func TestExpectSubvolumes(t *testing.T) {
	for _, tt := range []expectTest{
		{
			name:    "below a kept path one moves, itself intact",
			keep:    []string{"/k", "/s"},
			exclude: []string{"/k/v/x", "/s/x"},
			old:     []string{"d k", "v k/v", "f k/v/x", "v k/v/w", "r s", "f s/x", "s s/stub"},
			clean:   []string{"d k", "s k/v", "f s"},
			want:    []string{"old d k", "old v k/v", "old f k/v/x", "old v k/v/w", "old r s", "old f s/x", "old s s/stub"},
		},
		{
			name:  "an ancestor of a kept path that exists is a directory, and a new subvolume",
			keep:  []string{"/a/Downloads", "/b/Downloads", "/c/Downloads"},
			old:   []string{"v a", "d a/Downloads", "f a/new", "r b", "f b/Downloads", "v c", "f c/Downloads"},
			clean: []string{"s a", "d b", "f b/x"},
			want: []string{
				"old n a", "old d a/Downloads", "clean n b", "old f b/Downloads", "clean f b/x", "old n c", "old f c/Downloads",
			},
		},
		{
			name:  "one whose kept paths do not exist stays with OLD",
			keep:  []string{"/a/Downloads", "/b/Downloads", "/c/Downloads"},
			old:   []string{"v a", "f a/x", "v b", "v c"},
			clean: []string{"s a", "d b", "f b/x"},
			want:  []string{"none e a", "clean d b", "clean f b/x"},
		},
		{
			name:  "elsewhere one stays with OLD",
			keep:  []string{"/k"},
			old:   []string{"v a", "v d", "d e", "v e/f", "f k"},
			clean: []string{"d d", "d e"},
			want:  []string{"clean d d", "clean d e", "old f k"},
		},
		{
			name:    "an excluded one stays with OLD",
			keep:    []string{"/k"},
			exclude: []string{"/k/v"},
			old:     []string{"d k", "v k/v", "f k/v/x"},
			clean:   nil,
			want:    []string{"old d k"},
		},
		{
			name:  "one in another: the outer an ancestor, the inner kept",
			keep:  []string{"/a/k"},
			old:   []string{"v a", "d a/k", "v a/k/v", "f a/k/v/x", "v a/w"},
			clean: nil,
			want:  []string{"old n a", "old d a/k", "old v a/k/v", "old f a/k/v/x"},
		},
		{
			name: "no stub stays, and CLEAN's become directories",
			keep: []string{"/k", "/l"},
			old:  []string{"d k", "s k/v", "s w", "s l"},
			clean: []string{
				"d k", "s x", "d y", "s y/z", "s l",
			},
			want: []string{"old d k", "none e x", "clean d y", "none e y/z"},
		},
	} {
		tt.run(t)
	}
}

func TestExpectLinks(t *testing.T) {
	for _, tt := range []expectTest{
		{
			name:  "names from CLEAN stay linked",
			keep:  []string{"/k"},
			old:   []string{"f a#1", "f b#2"},
			clean: []string{"f a#1", "f b#1", "d c", "f c/d#1", "f k#1"},
			want:  []string{"clean f a#x", "clean f b#x", "clean d c", "clean f c/d#x"},
		},
		{
			name:  "kept names stay linked, whatever CLEAN has",
			keep:  []string{"/k", "/l", "/m"},
			old:   []string{"f k#1", "d l", "f l/x#1", "f m#2", "f n#2"},
			clean: []string{"f k", "f m#1", "f l#1"},
			want:  []string{"old f k#x", "old d l", "old f l/x#x", "old f m"},
		},
		{
			name:  "linked in both, and the same in both",
			keep:  []string{"/k"},
			old:   []string{"F k#1", "F a#1"},
			clean: []string{"F k#1", "F a#1"},
			want:  []string{"old F k#x", "old F a#x"},
		},
		{
			name:  "linked in OLD alone",
			keep:  []string{"/k"},
			old:   []string{"F k#1", "F a#1"},
			clean: []string{"F k", "F a"},
			want:  []string{"old F k", "old F a"},
		},
		{
			name:  "linked in OLD, and CLEAN has no such kept name",
			keep:  []string{"/k"},
			old:   []string{"F k#1", "F a#1"},
			clean: []string{"F a"},
			want:  []string{"old F k", "old F a"},
		},
		{
			name:  "linked in CLEAN alone",
			keep:  []string{"/k"},
			old:   []string{"F k", "F a"},
			clean: []string{"F k#1", "F a#1"},
			want:  []string{"old F k", "old F a"},
		},
		{
			name:  "linked in both, but OLD's inode has changed",
			keep:  []string{"/k"},
			old:   []string{"f k=new#1", "f a=new#1"},
			clean: []string{"f k=old#1", "f a=old#1", "f b=old#1"},
			want:  []string{"old f k=new", "clean f a=old#x", "clean f b=old#x"},
		},
		{
			name:  "another name from CLEAN is not linked in OLD: they stay together, apart from the kept one",
			keep:  []string{"/k"},
			old:   []string{"F k#1", "F a#1"},
			clean: []string{"F k#1", "F a#1", "F b#1"},
			want:  []string{"old F k", "old F a#x", "old F b#x"},
		},
		{
			name:  "another kept name is not linked in CLEAN",
			keep:  []string{"/k", "/l"},
			old:   []string{"F k#1", "F a#1", "F l#1"},
			clean: []string{"F k#1", "F a#1"},
			want:  []string{"old F k#x", "old F l#x", "old F a"},
		},
		{
			name:  "all of several names in both",
			keep:  []string{"/k", "/l"},
			old:   []string{"F k#1", "F a#1", "F l#1", "F b#1", "F gone#1"},
			clean: []string{"F k#7", "F a#7", "F l#7", "F b#7"},
			want:  []string{"old F k#x", "old F l#x", "old F a#x", "old F b#x"},
		},
		{
			name:  "no link into a subvolume",
			keep:  []string{"/v/k"},
			old:   []string{"v v", "f v/k"},
			clean: []string{"d v", "f v/a#1", "f v/b#1", "f a#1", "f b#1"},
			want:  []string{"clean n v", "old f v/k", "clean f v/a#x", "clean f v/b#x", "clean f a#y", "clean f b#y"},
		},
	} {
		tt.run(t)
	}
}

func TestExpectPrevious(t *testing.T) {
	old := plant(t, "old", "d k", "f k/x", "v k/v", "f k/v/x", "v k/v/w", "v a", "f a/k", "f a/x", "v b", "s k/s")
	got := ExpectPrevious(old, Rules{Keep: []string{"/k", "/a/k"}})

	want := plant(t, "old", "d k", "f k/x", "v a", "f a/k", "f a/x", "v b", "s k/s")
	if diff := Diff(want, got); diff != "" {
		t.Errorf("ExpectPrevious:\n%s", diff)
	}
}

func TestDiff(t *testing.T) {
	base := func() Tree {
		tree := plant(t, "old", "d a", "f a/b=x#1", "f c=x#1", "l l=t", "v v")
		e := tree["a/b"]
		e.Xattrs = map[string]string{"user.a": "1"}
		tree["a/b"] = e

		return tree
	}

	if diff := Diff(base(), base()); diff != "" {
		t.Errorf("Diff of equal trees = %s, want nothing", diff)
	}

	for _, tt := range []struct {
		want   string
		path   string
		change func(*Entry)
	}{
		{"type", "a/b", func(e *Entry) { e.Type = unix.S_IFIFO }},
		{"mode", "a", func(e *Entry) { e.Mode = 0o4755 }},
		{"owner", "a", func(e *Entry) { e.UID = 7 }},
		{"group", "a", func(e *Entry) { e.GID = 7 }},
		{"mtime", "a", func(e *Entry) { e.MTime++ }},
		{"size", "c", func(e *Entry) { e.Size++ }},
		{"content", "c", func(e *Entry) { e.Hash[0]++ }},
		{"target", "l", func(e *Entry) { e.Target = "u" }},
		{"device number", "c", func(e *Entry) { e.Rdev++ }},
		{"flags", "c", func(e *Entry) { e.Flags = 0x10 }},
		{"xattr", "a/b", func(e *Entry) { e.Xattrs = map[string]string{"user.a": "2"} }},
		{"xattr", "a/b", func(e *Entry) { e.Xattrs = nil }},
		{"xattr", "c", func(e *Entry) { e.Xattrs = map[string]string{"user.a": ""} }},
		{"linked", "c", func(e *Entry) { e.Inode = "" }},
		{"linked", "l", func(e *Entry) { e.Inode = "old1" }},
		{"subvolume", "v", func(e *Entry) { e.Subvolume = false }},
		{"subvolume", "v", func(e *Entry) { e.UUID = "other" }},
		{"read-only", "v", func(e *Entry) { e.ReadOnly = true }},
		{"stub", "a", func(e *Entry) { e.Stub = true }},
	} {
		got := base()
		e := got[tt.path]
		tt.change(&e)
		got[tt.path] = e

		diff := Diff(base(), got)
		if !strings.Contains(diff, fmt.Sprintf("%q: ", tt.path)) || !strings.Contains(diff, tt.want) && tt.want != "type" {
			t.Errorf("Diff = %q, want it to speak of %s of %s", diff, tt.want, tt.path)
		}
	}

	got := base()
	delete(got, "a")
	delete(got, "a/b")

	if diff := Diff(base(), got); !strings.Contains(diff, `"a": want a directory, got nothing`) || strings.Contains(diff, "a/b\": want a file") {
		t.Errorf("Diff = %q, want the missing directory and not what is below", diff)
	}

	if diff := Diff(got, base()); !strings.Contains(diff, `"a": want nothing, got a directory`) {
		t.Errorf("Diff = %q, want the unexpected directory", diff)
	}
}
