package btrfs_test

import (
	"errors"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nixos-go/pkg/btrfs"
)

// listed is a line of `btrfs subvolume list -p -c`.
type listed struct {
	id, generation, parent uint64
	path                   string
}

func (d *disk) list() []listed {
	d.t.Helper()
	line := regexp.MustCompile(`^ID (\d+) gen (\d+) cgen \d+ parent (\d+) top level \d+ path (.*)\n$`)
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 64)
		must(d.t, err)
		return n
	}
	var out []listed
	for text := range strings.Lines(d.sh("btrfs subvolume list -p -c .")) {
		m := line.FindStringSubmatch(text)
		if m == nil {
			d.t.Fatalf("btrfs subvolume list says %q", text)
		}
		out = append(out, listed{number(m[1]), number(m[2]), number(m[3]), m[4]})
	}
	return out
}

// Children and Generation against the list that btrfs-progs makes.
func TestChildren(t *testing.T) {
	d := newDisk(t)
	d.sh(`mkdir -p deep/er
		for v in a deep/b deep/er/c 'with space' $'caf\xe9'; do btrfs -q subvolume create "$v"; done
		mkdir -p a/in/side
		for v in a/1 a/in/2 a/in/side/3 a/1/4; do btrfs -q subvolume create "$v"; done
		btrfs -q subvolume snapshot -r a deep/snapshot
		echo > a/in/2/file`)
	d.sync()
	all := d.list()
	if len(all) != 10 {
		t.Fatalf("btrfs subvolume list names %d, want 10", len(all))
	}
	top := d.open("")
	paths := map[uint64]string{btrfs.TopLevelID: ""}
	for _, l := range all {
		paths[l.id] = l.path
	}
	for parent := range paths {
		var want []string
		for _, l := range all {
			if l.parent == parent {
				want = append(want, strconv.FormatUint(l.id, 10)+" "+l.path)
			}
		}
		children, err := btrfs.Children(top, parent)
		must(t, err)
		got := make([]string, 0, len(children))
		for _, c := range children {
			dir, err := btrfs.LookupInode(top, parent, c.DirID)
			must(t, err)
			got = append(got, strconv.FormatUint(c.ID, 10)+" "+path.Join(paths[parent], dir, c.Name))
		}
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("Children(%d) (-want +got):\n%s", parent, diff)
		}
	}
	for _, l := range all {
		if got, err := btrfs.Generation(top, l.id); got != l.generation || err != nil {
			t.Errorf("Generation(%s) = %d, %v, want %d", l.path, got, err, l.generation)
		}
	}
	if _, err := btrfs.Generation(top, 4711); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Generation(4711) = %v, want %v", err, os.ErrNotExist)
	}
	if children, err := btrfs.Children(top, 4711); len(children) > 0 || err != nil {
		t.Errorf("Children(4711) = %v, %v, want none", children, err)
	}
}

// The list of what lies in a plain directory is empty, whatever lies beside it: a
// directory has no tree id to ask for.
func TestChildrenOfSnapshot(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.create("v/inner")
	must(t, btrfs.Snapshot(d.open("v"), d.open(""), "s", false))
	if children, err := btrfs.Children(d.open(""), d.info("s").ID); len(children) > 0 || err != nil {
		t.Errorf("Children of a snapshot = %v, %v, want none: it holds a stub", children, err)
	}
}
