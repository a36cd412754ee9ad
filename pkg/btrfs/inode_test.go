package btrfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

func (d *disk) inode(path string) uint64 {
	d.t.Helper()
	var st unix.Stat_t
	must(d.t, unix.Lstat(d.path(path), &st))
	return st.Ino
}

// InodePaths against `btrfs inspect-internal inode-resolve`, and where there are more
// names than that tells of, against what ln made.
func TestInodePaths(t *testing.T) {
	d := newDisk(t)
	d.sh(`btrfs -q subvolume create v; mkdir -p v/a/b 'v/with space'
		echo > v/one; echo > v/a/two; ln v/a/two v/a/b/two; ln v/a/two 'v/with space/zwei'
		echo > v/many; mkdir v/links
		for i in $(seq 400); do ln v/many v/links/$(printf 'one-of-the-many-names-of-a-file-%0150d' $i); done`)
	d.sync()
	v := d.open("v")
	for _, path := range []string{"v/one", "v/a/two", "v/a/b"} {
		var want []string
		for line := range strings.Lines(d.sh(fmt.Sprintf("btrfs inspect-internal inode-resolve %d v", d.inode(path)))) {
			want = append(want, strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "v/"))
		}
		got, err := btrfs.InodePaths(v, d.inode(path))
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
			t.Errorf("InodePaths(%s) (-want +got):\n%s", path, diff)
		}
	}
	want := []string{"many"}
	for i := 1; i <= 400; i++ {
		want = append(want, fmt.Sprintf("links/one-of-the-many-names-of-a-file-%0150d", i))
	}
	got, err := btrfs.InodePaths(v, d.inode("v/many"))
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" || err != nil {
		t.Errorf("InodePaths(v/many) = %d names, %v, want the %d that were made", len(got), err, len(want))
	}
	if got, err := btrfs.InodePaths(v, btrfs.FirstFreeID); len(got) != 1 || got[0] != "" || err != nil {
		t.Errorf("InodePaths of the root = %q, %v, want the empty path", got, err)
	}
	if _, err := btrfs.InodePaths(v, 4711); !errors.Is(err, unix.ENOENT) {
		t.Errorf("InodePaths(4711) = %v, want %v", err, unix.ENOENT)
	}
}

func TestLookupInode(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.sh("mkdir -p v/a/b 'v/with space/é'; btrfs -q subvolume create v/inner; mkdir -p v/inner/c/d; echo > v/file")
	d.sync()
	v, inner := d.info("v").ID, d.info("v/inner").ID
	for _, tt := range []struct {
		open        string
		tree        uint64
		inode, want string
	}{
		{"v", 0, "v", ""},
		{"v", 0, "v/a/b", "a/b"},
		{"v", 0, "v/with space/é", "with space/é"},
		{"v/a", v, "v/a/b", "a/b"},
		{"", v, "v/a", "a"},
		{"", inner, "v/inner/c/d", "c/d"},
		{"v/inner/c", 0, "v/inner/c/d", "c/d"},
	} {
		if got, err := btrfs.LookupInode(d.open(tt.open), tt.tree, d.inode(tt.inode)); got != tt.want || err != nil {
			t.Errorf("LookupInode(%q, %d, inode of %s) = %q, %v, want %q", tt.open, tt.tree, tt.inode, got, err, tt.want)
		}
	}
	if _, err := btrfs.LookupInode(d.open(""), v, 4711); !errors.Is(err, unix.ENOENT) {
		t.Errorf("LookupInode(4711) = %v, want %v", err, unix.ENOENT)
	}
	deep := "v"
	for range 20 {
		deep = filepath.Join(deep, strings.Repeat("d", 250))
		must(t, unix.Mkdir(d.path("v/next"), 0o755))
		if deep != filepath.Join("v", strings.Repeat("d", 250)) {
			must(t, os.Rename(d.path("v", strings.Repeat("d", 250)), d.path("v/next", strings.Repeat("d", 250))))
		}
		must(t, os.Rename(d.path("v/next"), d.path("v", strings.Repeat("d", 250))))
	}
	d.sync()
	// The innermost of twenty, 5,000 bytes down, was made first.
	if _, err := btrfs.LookupInode(d.open("v"), 0, d.firstDir()); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("LookupInode of a path of 5,000 bytes = %v, want %v", err, unix.ENAMETOOLONG)
	}
}

// firstDir is the inode of the innermost directory in v whose name is 250 times d.
func (d *disk) firstDir() uint64 {
	d.t.Helper()
	name := strings.Repeat("d", 250)
	dir, err := unix.Open(d.path("v"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(d.t, err)
	var st unix.Stat_t
	for {
		next, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			must(d.t, unix.Fstat(dir, &st))
			unix.Close(dir)
			return st.Ino
		}
		unix.Close(dir)
		dir = next
	}
}

// Flags against chattr and lsattr.
func TestFlags(t *testing.T) {
	d := newDisk(t)
	letters := map[byte]uint32{
		'c': btrfs.FlagCompress, 'S': btrfs.FlagSync, 'i': btrfs.FlagImmutable, 'a': btrfs.FlagAppend, 'd': btrfs.FlagNoDump,
		'A': btrfs.FlagNoAtime, 'm': btrfs.FlagNoCompress, 'D': btrfs.FlagDirSync, 'C': btrfs.FlagNoCOW,
	}
	var all uint32
	for letter, flag := range letters {
		all |= flag
		d.sh(fmt.Sprintf("mkdir %c %c-set; chattr +%c %c", letter, letter, letter, letter))
		got, err := btrfs.Flags(d.open(string(letter)))
		if got != flag || err != nil {
			t.Errorf("Flags after chattr +%c = %#x, %v, want %#x", letter, got, err, flag)
		}
		set := d.open(string(letter) + "-set")
		must(t, btrfs.SetFlags(set, flag))
		says, _, _ := strings.Cut(d.sh(fmt.Sprintf("lsattr -d %c-set", letter)), " ")
		if strings.ReplaceAll(says, "-", "") != string(letter) {
			t.Errorf("lsattr after SetFlags(%#x) says %q, want %c", flag, says, letter)
		}
		must(t, btrfs.SetFlags(set, 0))
		if got, err := btrfs.Flags(set); got != 0 || err != nil {
			t.Errorf("Flags after SetFlags(0) = %#x, %v", got, err)
		}
		d.sh(fmt.Sprintf("chattr -%c %c", letter, letter))
	}
	if all != btrfs.FlagsSettable {
		t.Errorf("the letters make %#x, want FlagsSettable, %#x", all, btrfs.FlagsSettable)
	}
}

// extents are where the data of a file lies.
func (d *disk) extents(volume, path string) []btrfs.FileExtent {
	d.t.Helper()
	inode := d.inode(volume + "/" + path)
	var out []btrfs.FileExtent
	must(d.t, btrfs.NewLookup(d.open(volume)).Search(btrfs.SearchKey{
		Min: btrfs.Key{ObjectID: inode, Type: btrfs.ExtentDataKey},
		Max: btrfs.Key{ObjectID: inode, Type: btrfs.ExtentDataKey, Offset: ^uint64(0)},
	}, func(it btrfs.Item) error {
		e, err := btrfs.DecodeFileExtent(it.Data)
		e.Inline = append([]byte(nil), e.Inline...)
		e.Generation = 0
		out = append(out, e)
		return err
	}))
	return out
}

func TestClone(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.sh(`cd v; head -c 500000 /dev/urandom > data; truncate -s 3M data; echo small > small; : > empty
		touch nocow nocow2; chattr +C nocow nocow2; head -c 100000 /dev/urandom > nocow`)
	d.sync()
	clone := func(src, dst string) error {
		out, err := os.OpenFile(d.path(dst), os.O_WRONLY|os.O_CREATE, 0o644)
		must(t, err)
		defer out.Close()
		return btrfs.Clone(out, d.open(src))
	}
	for _, name := range []string{"data", "small", "empty"} {
		must(t, clone("v/"+name, "v/"+name+"-clone"))
		if d.read("v/"+name) != d.read("v/"+name+"-clone") {
			t.Errorf("the clone of %s differs", name)
		}
		d.sync()
		if diff := cmp.Diff(d.extents("v", name), d.extents("v", name+"-clone")); diff != "" {
			t.Errorf("the clone of %s does not share its extents (-source +clone):\n%s", name, diff)
		}
	}
	must(t, clone("v/nocow", "v/nocow2"))
	if err := clone("v/nocow", "v/cow"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Clone of a NOCOW file to another = %v, want %v", err, unix.EINVAL)
	}
	d.sh("touch v/nocow3; chattr +C v/nocow3")
	if err := clone("v/data", "v/nocow3"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Clone to a NOCOW file = %v, want %v", err, unix.EINVAL)
	}
	other := testx.Disk(t, 128<<20)
	out, err := os.Create(filepath.Join(other, "file"))
	must(t, err)
	defer out.Close()
	if err := btrfs.Clone(out, d.open("v/data")); !errors.Is(err, unix.EXDEV) {
		t.Errorf("Clone to another file system = %v, want %v", err, unix.EXDEV)
	}
}
