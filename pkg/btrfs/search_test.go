package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// found is an item as a search tells of it.
type found struct {
	Key   btrfs.Key
	Trans uint64
	Data  string
}

func search(t *testing.T, s *btrfs.Searcher, key btrfs.SearchKey) []found {
	t.Helper()
	var out []found
	must(t, s.Search(key, func(it btrfs.Item) error {
		out = append(out, found{it.Key, it.LeafTransID, string(it.Data)})
		return nil
	}))
	return out
}

// everything is the key that all items of a tree match.
func everything(tree uint64) btrfs.SearchKey {
	all := ^uint64(0)
	return btrfs.SearchKey{Tree: tree, Max: btrfs.Key{ObjectID: all, Type: 255, Offset: all}}
}

func less(a, b btrfs.Key) bool {
	if a.ObjectID != b.ObjectID {
		return a.ObjectID < b.ObjectID
	}
	if a.Type != b.Type {
		return a.Type < b.Type
	}
	return a.Offset < b.Offset
}

// files makes n files in a directory.
func (d *disk) files(dir string, n int) {
	d.t.Helper()
	must(d.t, os.MkdirAll(d.path(dir), 0o755))
	for i := range n {
		d.write(fmt.Sprintf("%s/file number %d", dir, i), strings.Repeat("x", i%50))
	}
}

// Whatever the size of the buffer, a search finds the same items, in the order of
// the tree, each once, and all of them.
func TestSearch(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	const n = 1500
	d.files("v/dir", n)
	d.sync()
	v := d.open("v")
	want := search(t, btrfs.NewScanner(v), everything(0))
	inodes := map[uint64]bool{}
	for i, it := range want {
		if i > 0 && !less(want[i-1].Key, it.Key) {
			t.Fatalf("item %d, %v, comes after %v", i, it.Key, want[i-1].Key)
		}
		if it.Key.Type == btrfs.InodeItemKey {
			inodes[it.Key.ObjectID] = true
		}
	}
	var st unix.Stat_t
	for i := range n {
		must(t, unix.Lstat(d.path("v/dir", fmt.Sprintf("file number %d", i)), &st))
		if !inodes[st.Ino] {
			t.Errorf("no inode item of file number %d", i)
		}
	}
	if len(inodes) != n+2 {
		t.Errorf("%d inodes found, want %d", len(inodes), n+2)
	}
	for name, s := range map[string]*btrfs.Searcher{
		"lookup": btrfs.NewLookup(v), "tiny": btrfs.NewSearcher(v, 64), "1000": btrfs.NewSearcher(v, 1000),
	} {
		if diff := cmp.Diff(want, search(t, s, everything(0))); diff != "" {
			t.Errorf("%s finds other items (-want +got):\n%s", name, diff)
		}
	}
	// From the top level, the tree has its own number.
	if diff := cmp.Diff(want, search(t, btrfs.NewScanner(d.open("")), everything(d.info("v").ID))); diff != "" {
		t.Errorf("a search by tree id finds other items (-want +got):\n%s", diff)
	}
	// Part of it: all from one key to another, both included.
	first, last := len(want)/3, 2*len(want)/3
	part := search(t, btrfs.NewLookup(v), btrfs.SearchKey{Min: want[first].Key, Max: want[last].Key})
	if diff := cmp.Diff(want[first:last+1], part); diff != "" {
		t.Errorf("a search from %v to %v (-want +got):\n%s", want[first].Key, want[last].Key, diff)
	}
}

func TestSearchStops(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.files("v", 200)
	d.sync()
	other := errors.New("other")
	for _, tt := range []struct{ visit, want error }{{btrfs.ErrStop, nil}, {other, other}, {fmt.Errorf("wrapped: %w", btrfs.ErrStop), nil}} {
		visits := 0
		err := btrfs.NewLookup(d.open("v")).Search(everything(0), func(btrfs.Item) error {
			visits++
			if visits == 3 {
				return tt.visit
			}
			return nil
		})
		if !errors.Is(err, tt.want) || visits != 3 {
			t.Errorf("Search with a visit that returns %v = %v after %d visits, want %v after 3", tt.visit, err, visits, tt.want)
		}
	}
}

// An item that is larger than the buffer makes it grow.
func TestSearchLargeItem(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.write("v/file", "")
	value := strings.Repeat("v", 15000)
	must(t, unix.Setxattr(d.path("v/file"), "user.large", []byte(value), 0))
	d.sync()
	var got string
	for _, it := range search(t, btrfs.NewLookup(d.open("v")), everything(0)) {
		if it.Key.Type == btrfs.XattrItemKey {
			items, err := btrfs.DecodeDirItems([]byte(it.Data))
			must(t, err)
			got = string(items[0].Data)
		}
	}
	if got != value {
		t.Errorf("the value of the attribute has %d bytes, want %d", len(got), len(value))
	}
}

// MinTransID leaves out all leaves that were not written since, and no other.
func TestSearchSince(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.files("v/dir", 3000)
	must(t, btrfs.Snapshot(d.open("v"), d.open(""), "s", true))
	since := d.info("s").OTransID + 1
	v := btrfs.NewScanner(d.open("v"))
	key := everything(0)
	key.MinTransID = since
	d.sync()
	if got := search(t, v, key); len(got) > 0 {
		t.Errorf("%d items since the snapshot, want none: nothing was written", len(got))
	}
	d.write("v/dir/file number 1234", "changed")
	must(t, os.Remove(d.path("v/dir/file number 77")))
	d.write("v/dir/file is new", "")
	d.sync()
	all := search(t, v, everything(0))
	var want []found
	for _, it := range all {
		if it.Trans >= since {
			want = append(want, it)
		}
	}
	got := search(t, v, key)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("items since transaction %d (-want +got):\n%s", since, diff)
	}
	if len(got) == 0 || len(got) > len(all)/4 {
		t.Errorf("%d of %d items found since the snapshot, want some, and a small part", len(got), len(all))
	}
	inodes := map[uint64]bool{}
	for _, it := range got {
		if it.Key.Type == btrfs.InodeItemKey {
			inodes[it.Key.ObjectID] = true
		}
	}
	for _, name := range []string{"file number 1234", "file is new", "."} {
		var st unix.Stat_t
		must(t, unix.Lstat(d.path("v/dir", name), &st))
		if !inodes[st.Ino] {
			t.Errorf("the inode of %s, which changed, is not among the items", name)
		}
	}
}
