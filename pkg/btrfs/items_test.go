package btrfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/btrfs"
)

// describe prints an item in the words of `btrfs inspect-internal dump-tree`; empty
// for a type that this package does not decode.
func describe(t *testing.T, it btrfs.Item) string {
	t.Helper()
	k := it.Key
	head := func(name string) string { return fmt.Sprintf("(%d %s %d)", k.ObjectID, name, k.Offset) }
	switch k.Type {
	case btrfs.InodeItemKey:
		i, err := btrfs.DecodeInodeItem(it.Data)
		must(t, err)
		return fmt.Sprintf("%s generation %d transid %d size %d mode %o links %d uid %d gid %d rdev %d flags 0x%x mtime %d.%d",
			head("INODE_ITEM"), i.Generation, i.TransID, i.Size, i.Mode, i.Links, i.UID, i.GID, i.Rdev, i.Flags, uint64(i.MTime.Sec), i.MTime.Nsec)
	case btrfs.InodeRefKey, btrfs.InodeExtrefKey:
		refs, err := btrfs.DecodeInodeRefs(k, it.Data)
		must(t, err)
		if k.Type == btrfs.InodeExtrefKey {
			return head("INODE_EXTREF") + join(refs, func(r btrfs.InodeRef) string {
				return fmt.Sprintf(" index %d parent %d namelen %d name: %s", r.Index, r.Parent, len(r.Name), r.Name)
			})
		}
		return head("INODE_REF") + join(refs, func(r btrfs.InodeRef) string {
			return fmt.Sprintf(" index %d namelen %d name: %s", r.Index, len(r.Name), r.Name)
		})
	case btrfs.DirItemKey, btrfs.DirIndexKey, btrfs.XattrItemKey:
		items, err := btrfs.DecodeDirItems(it.Data)
		must(t, err)
		name := map[uint8]string{btrfs.DirItemKey: "DIR_ITEM", btrfs.DirIndexKey: "DIR_INDEX", btrfs.XattrItemKey: "XATTR_ITEM"}[k.Type]
		return head(name) + join(items, func(d btrfs.DirItem) string {
			return fmt.Sprintf(" location %d %v type %s transid %d data_len %d name_len %d name: %s",
				d.Location.ObjectID, d.IsSubvolume(), typeNames[d.Type], d.TransID, len(d.Data), len(d.Name), d.Name)
		})
	case btrfs.ExtentDataKey:
		e, err := btrfs.DecodeFileExtent(it.Data)
		must(t, err)
		if e.Kind == btrfs.ExtentInline {
			return fmt.Sprintf("%s generation %d type 0 size %d ram %d compression %d", head("EXTENT_DATA"), e.Generation, len(e.Inline), e.RAMBytes, e.Compression)
		}
		return fmt.Sprintf("%s generation %d type %d disk %d %d offset %d nr %d", head("EXTENT_DATA"),
			e.Generation, e.Kind, e.DiskByte, e.DiskBytes, e.Offset, e.Bytes)
	case btrfs.RootRefKey:
		r, err := btrfs.DecodeRootRef(it.Data)
		must(t, err)
		return fmt.Sprintf("%s dirid %d name %s", head("ROOT_REF"), r.DirID, r.Name)
	}
	return ""
}

// typeNames are the words of dump-tree for BTRFS_FT_*.
var typeNames = []string{"UNKNOWN", "FILE", "DIR", "CHRDEV", "BLKDEV", "FIFO", "SOCK", "SYMLINK", "XATTR"}

func join[T any](list []T, text func(T) string) string {
	var b strings.Builder
	for _, e := range list {
		b.WriteString(text(e))
	}
	return b.String()
}

// The parts of an item stand on lines of their own; these patterns pick what this
// package decodes out of all its lines joined.
var dumpPatterns = map[string]*regexp.Regexp{
	"INODE_ITEM":   regexp.MustCompile(`^(generation \d+ transid \d+ size \d+) .*( mode \d+ links \d+ uid \d+ gid \d+ rdev \d+) .*( flags 0x[0-9a-f]+).*( mtime -?\d+\.\d+)`),
	"INODE_REF":    regexp.MustCompile(`^((?:index \d+ namelen \d+ name: \S+ ?)+)`),
	"INODE_EXTREF": regexp.MustCompile(`^((?:index \d+ parent \d+ namelen \d+ name: \S+ ?)+)`),
	"DIR_ITEM":     regexp.MustCompile(`^(location .*)`),
	"DIR_INDEX":    regexp.MustCompile(`^(location .*)`),
	"XATTR_ITEM":   regexp.MustCompile(`^(location .* name: \S+)`),
	"EXTENT_DATA":  regexp.MustCompile(`^(.*)`),
	"ROOT_REF":     regexp.MustCompile(`(dirid \d+) .*( name \S+)`),
}

// dumpRules bring what the patterns leave into the words of describe.
var dumpRules = []struct {
	from *regexp.Regexp
	to   string
}{
	{regexp.MustCompile(`location key \((\d+) ROOT_ITEM \S+\)`), "location $1 true"},
	{regexp.MustCompile(`location key \((\d+) \S+ \S+\)`), "location $1 false"},
	{regexp.MustCompile(`type 0 \(inline\) inline extent data size (\d+) ram_bytes (\d+) compression (\d+).*`), "type 0 size $1 ram $2 compression $3"},
	{regexp.MustCompile(`type ([12]) \(\w+\) \w+ data disk byte (\d+) nr (\d+) \w+ data offset (\d+) nr (\d+).*`), "type $1 disk $2 $3 offset $4 nr $5"},
}

// dumpTree tells of the items of a tree on an unmounted device in the words of
// describe: one line an item.
func dumpTree(t *testing.T, device, tree string) []string {
	t.Helper()
	out, err := exec.Command("btrfs", "inspect-internal", "dump-tree", "-t", tree, device).CombinedOutput()
	if err != nil {
		t.Fatalf("dump-tree: %v\n%s", err, out)
	}
	var lines []string
	head := regexp.MustCompile(`(?m)^\titem \d+ key (\((\S+) (\S+) (\S+)\)).*$`)
	leaf := regexp.MustCompile(`(?s)\nleaf \d+ .*`)
	text := string(out)
	marks := head.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		pattern := dumpPatterns[text[m[6]:m[7]]]
		if pattern == nil {
			continue
		}
		line := strings.Join(strings.Fields(leaf.ReplaceAllString(text[m[1]:end], "")), " ")
		for _, r := range dumpRules[:2] {
			line = r.from.ReplaceAllString(line, r.to)
		}
		line = strings.TrimSpace(strings.Join(pattern.FindStringSubmatch(line)[1:], ""))
		for _, r := range dumpRules[2:] {
			line = r.from.ReplaceAllString(line, r.to)
		}
		lines = append(lines, strings.Replace(text[m[2]:m[3]], "(FS_TREE ", "(5 ", 1)+" "+line)
	}
	return lines
}

// decoded gives the same by a search and this package's decoders.
func (d *disk) decoded(tree uint64) []string {
	d.t.Helper()
	top, err := os.Open(d.top)
	must(d.t, err)
	defer top.Close() // or the disk could not be unmounted
	var out []string
	must(d.t, btrfs.NewScanner(top).Search(everything(tree), func(it btrfs.Item) error {
		if line := describe(d.t, it); line != "" {
			out = append(out, line)
		}
		return nil
	}))
	return out
}

// Every item of a tree with all kinds of things in it, decoded here and by dump-tree.
func TestItems(t *testing.T) {
	d := newDisk(t)
	d.sh(`btrfs -q subvolume create v; cd v
		btrfs -q subvolume create nested; mkdir -m 2750 dir; chown 1000:100 dir; mkdir nocow; chattr +C nocow
		echo text > inline; head -c 300000 /dev/urandom > data; truncate -s 2M data; fallocate -l 64k prealloc
		echo x > locked; chattr +i locked; ln -s target symlink; mkfifo fifo; mknod char c 5 1; mknod block b 259 65537
		touch -d '1969-12-31T23:59:58Z' before; touch -d '2100-01-01T00:00:00.000000001Z' after
		setfattr -n user.x -v abc inline; setfattr -n user.y inline; setfacl -m u:1000:rwx,m:rwx dir
		for i in $(seq 300); do ln inline "dir/a-rather-long-name-of-many-names-of-one-inode-$i"; done
		printf x > $'caf\xe9'; sync -f .`)
	want := d.info("v")
	id := strconv.FormatUint(want.ID, 10)
	got := d.decoded(want.ID)
	var refs []string
	for _, line := range d.decoded(btrfs.RootTreeID) {
		if strings.Contains(line, " ROOT_REF ") {
			refs = append(refs, line)
		}
	}
	d.fs.Unmount()
	if diff := cmp.Diff(dumpTree(t, d.fs.Device, id), got); diff != "" {
		t.Errorf("tree of v (-dump-tree +decoded):\n%s", diff)
	}
	var wantRefs []string
	for _, line := range dumpTree(t, d.fs.Device, "root") {
		if strings.Contains(line, " ROOT_REF ") {
			wantRefs = append(wantRefs, line)
		}
	}
	if diff := cmp.Diff(wantRefs, refs); diff != "" || len(refs) != 2 {
		t.Errorf("%d references in the root tree (-dump-tree +decoded):\n%s", len(refs), diff)
	}
	for _, kind := range []string{"INODE_ITEM", "INODE_REF", "INODE_EXTREF", "DIR_ITEM", "DIR_INDEX", "XATTR_ITEM", "EXTENT_DATA"} {
		if !strings.Contains(strings.Join(got, "\n"), " "+kind+" ") {
			t.Errorf("no %s in the tree: the test does not test it", kind)
		}
	}
}

// The hash of a name is the offset of its item.
func TestNameHash(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	for _, name := range []string{"a", "hostname", "caf\xe9", "new\nline", strings.Repeat("n", 255)} {
		d.write("v/"+name, "")
	}
	d.sync()
	names := 0
	key := btrfs.SearchKey{
		Min: btrfs.Key{ObjectID: btrfs.FirstFreeID, Type: btrfs.DirItemKey},
		Max: btrfs.Key{ObjectID: btrfs.FirstFreeID, Type: btrfs.DirItemKey, Offset: ^uint64(0)},
	}
	must(t, btrfs.NewLookup(d.open("v")).Search(key, func(it btrfs.Item) error {
		items, err := btrfs.DecodeDirItems(it.Data)
		for _, item := range items {
			names++
			if got := btrfs.NameHash(item.Name); got != it.Offset {
				t.Errorf("NameHash(%q) = %d, want %d", item.Name, got, it.Offset)
			}
		}
		return err
	}))
	if names != 5 {
		t.Errorf("%d names found, want 5", names)
	}
}
