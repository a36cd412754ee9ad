package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

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
