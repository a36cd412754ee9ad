package btrfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

func TestCreate(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.sh("mkdir plain; echo > file; mkdir v/below")
	if got := d.show("v")["Name"]; got != "v" {
		t.Errorf("btrfs subvolume show knows %q, want v", got)
	}
	for path, want := range map[string]bool{"": true, "v": true, "plain": false, "file": false, "v/below": false} {
		if got, err := btrfs.IsSubvolume(d.open(path)); got != want || err != nil {
			t.Errorf("IsSubvolume(%q) = %v, %v, want %v", path, got, err, want)
		}
	}
	proc, err := os.Open("/proc/self")
	must(t, err)
	defer proc.Close()
	if got, err := btrfs.IsSubvolume(proc); got || err != nil {
		t.Errorf("IsSubvolume(/proc/self) = %v, %v, want false", got, err)
	}
	if got, err := btrfs.IsBtrfs(proc); got || err != nil {
		t.Errorf("IsBtrfs(/proc/self) = %v, %v, want false", got, err)
	}
	if got, err := btrfs.IsBtrfs(d.open("plain")); !got || err != nil {
		t.Errorf("IsBtrfs(plain) = %v, %v, want true", got, err)
	}
}

func TestInfo(t *testing.T) {
	d := newDisk(t)
	d.sh("mkdir dir")
	d.create("v")
	d.create("dir/ü n")
	d.create("v/nested")
	d.write("v/file", "text")
	d.sync()
	must(t, btrfs.Snapshot(d.open("v"), d.open("dir"), "ro", true))
	must(t, btrfs.Snapshot(d.open("dir/ro"), d.open(""), "again", false))
	d.write("again/file", "other")
	d.sync()
	for _, path := range []string{"v", "dir/ü n", "v/nested", "dir/ro", "again"} {
		got, want := d.info(path), d.show(path)
		parent := want["Parent UUID"]
		if parent == "-" {
			parent = btrfs.UUID{}.String()
		}
		for _, c := range []struct{ name, got, want string }{
			{"Name", got.Name, want["Name"]},
			{"ID", strconv.FormatUint(got.ID, 10), want["Subvolume ID"]},
			{"ParentID", strconv.FormatUint(got.ParentID, 10), want["Parent ID"]},
			{"UUID", got.UUID.String(), want["UUID"]},
			{"ParentUUID", got.ParentUUID.String(), parent},
			{"Generation", strconv.FormatUint(got.Generation, 10), want["Generation"]},
			{"OTransID", strconv.FormatUint(got.OTransID, 10), want["Gen at creation"]},
			{"ReadOnly", strconv.FormatBool(got.ReadOnly), strconv.FormatBool(want["Flags"] == "readonly")},
			{"Created", got.Created.Format("2006-01-02 15:04:05 -0700"), want["Creation time"]},
		} {
			if c.got != c.want {
				t.Errorf("ReadInfo(%s).%s = %s, want %s", path, c.name, c.got, c.want)
			}
		}
		if got.UUID.IsZero() || got.ParentUUID.IsZero() != (want["Parent UUID"] == "-") {
			t.Errorf("ReadInfo(%s): IsZero is wrong for %v or %v", path, got.UUID, got.ParentUUID)
		}
		folder, err := btrfs.LookupInode(d.open(""), got.ParentID, got.DirID)
		if want := map[string]string{"dir/ü n": "dir", "dir/ro": "dir"}[path]; err != nil || folder != want {
			t.Errorf("ReadInfo(%s).DirID is that of %q, %v, want %q", path, folder, err, want)
		}
	}
	// A snapshot is as its source until something is written to it.
	if ro, again := d.info("dir/ro"), d.info("again"); ro.CTransID > ro.OTransID || again.CTransID <= again.OTransID {
		t.Errorf("CTransID, OTransID = %d, %d of an untouched snapshot, %d, %d of a changed one", ro.CTransID, ro.OTransID, again.CTransID, again.OTransID)
	}
	if top := d.info(""); top.ID != btrfs.TopLevelID || top.ParentID != 0 {
		t.Errorf("ReadInfo(top level) = id %d, parent %d, want 5 and 0", top.ID, top.ParentID)
	}
	// Any file tells of the subvolume that it lies in.
	if got, want := d.info("v/file"), d.info("v"); got != want {
		t.Errorf("ReadInfo(v/file) = %+v, want %+v", got, want)
	}
}

func TestSnapshot(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.create("v/nested")
	d.write("v/file", "old")
	must(t, btrfs.Snapshot(d.open("v"), d.open(""), "ro", true))
	must(t, btrfs.Snapshot(d.open("v"), d.open(""), "rw", false))
	d.write("v/file", "new")
	for _, name := range []string{"ro", "rw"} {
		if got := d.read(name + "/file"); got != "old" {
			t.Errorf("%s/file = %q, want what it was when the snapshot was taken", name, got)
		}
		if d.info(name).ParentUUID != d.info("v").UUID {
			t.Errorf("the parent of %s is not v", name)
		}
		stub := d.open(name + "/nested")
		if is, err := btrfs.IsSubvolume(stub); is || err != nil {
			t.Errorf("IsSubvolume(%s/nested) = %v, %v, want false: it is a stub", name, is, err)
		}
		var st unix.Stat_t
		must(t, unix.Fstat(int(stub.Fd()), &st))
		if st.Ino != btrfs.EmptyDirID {
			t.Errorf("inode of the stub = %d, want %d", st.Ino, btrfs.EmptyDirID)
		}
	}
	if err := os.WriteFile(d.path("ro/file"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only snapshot = %v, want %v", err, unix.EROFS)
	}
	d.write("rw/file", "other")
	if got := d.show("ro")["Flags"]; got != "readonly" {
		t.Errorf("flags of ro = %q, want readonly", got)
	}
}

func TestDestroy(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.create("v/inner")
	d.sh("mkdir -p v/inner/deep v/plain; echo > v/inner/deep/file; chattr +i v/inner/deep/file")
	top := d.open("")
	if err := btrfs.Destroy(top, "v"); !errors.Is(err, unix.ENOTEMPTY) || !d.exists("v/inner") {
		t.Errorf("Destroy of what holds another = %v, want %v", err, unix.ENOTEMPTY)
	}
	for name, want := range map[string]unix.Errno{"missing": unix.ENOENT} {
		if err := btrfs.Destroy(top, name); !errors.Is(err, want) {
			t.Errorf("Destroy(%s) = %v, want %v", name, err, want)
		}
	}
	if err := btrfs.Destroy(d.open("v"), "plain"); err == nil || !d.exists("v/plain") {
		t.Errorf("Destroy of a plain directory = %v, want an error", err)
	}
	must(t, btrfs.Destroy(d.open("v"), "inner"))
	must(t, btrfs.Destroy(top, "v"))
	if list := d.sh("btrfs subvolume list ."); list != "" || d.exists("v") {
		t.Errorf("btrfs subvolume list says\n%s\nwant nothing", list)
	}
}

func TestDestroyDefault(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	top := d.open("")
	if id, err := btrfs.DefaultID(top); id != btrfs.TopLevelID || err != nil {
		t.Errorf("DefaultID = %d, %v, want %d", id, err, btrfs.TopLevelID)
	}
	must(t, btrfs.SetDefault(top, d.info("v").ID))
	id, err := btrfs.DefaultID(top)
	if want := d.sh("btrfs subvolume get-default ."); err != nil || !strings.HasPrefix(want, "ID "+strconv.FormatUint(id, 10)+" ") || id != d.info("v").ID {
		t.Errorf("DefaultID = %d, %v, btrfs subvolume get-default says %q", id, err, want)
	}
	if err := btrfs.Destroy(top, "v"); !errors.Is(err, unix.EPERM) {
		t.Errorf("Destroy of the default subvolume = %v, want %v", err, unix.EPERM)
	}
	d.sh("btrfs subvolume set-default 5 .")
	if id, err := btrfs.DefaultID(top); id != btrfs.TopLevelID || err != nil {
		t.Errorf("DefaultID after set-default 5 = %d, %v", id, err)
	}
	if err := btrfs.SetDefault(top, 4711); !errors.Is(err, unix.ENOENT) {
		t.Errorf("SetDefault(4711) = %v, want %v", err, unix.ENOENT)
	}
	must(t, btrfs.Destroy(top, "v"))
}

func TestDestroyByID(t *testing.T) {
	d := newDisk(t)
	d.sh("mkdir -p a/b")
	d.create("a/b/v")
	d.create("a/b/v/inner one")
	outer, inner := d.info("a/b/v").ID, d.info("a/b/v/inner one").ID
	top := d.open("")
	if err := btrfs.DestroyByID(top, outer); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("DestroyByID of what holds another = %v, want %v", err, unix.ENOTEMPTY)
	}
	must(t, btrfs.DestroyByID(top, inner))
	must(t, btrfs.DestroyByID(top, outer))
	if err := btrfs.DestroyByID(top, inner); !errors.Is(err, unix.ENOENT) {
		t.Errorf("DestroyByID twice = %v, want %v", err, unix.ENOENT)
	}
	if list := d.sh("btrfs subvolume list ."); list != "" || d.exists("a/b/v") {
		t.Errorf("btrfs subvolume list says\n%s\nwant nothing", list)
	}
}

func TestSetReadOnly(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	v := d.open("v")
	for _, want := range []bool{true, true, false, false, true} {
		generation := d.info("").Generation
		before, err := btrfs.ReadOnly(v)
		must(t, err)
		must(t, btrfs.SetReadOnly(v, want))
		got, err := btrfs.ReadOnly(v)
		if says := strings.TrimSpace(d.sh("btrfs property get v ro")); got != want || err != nil || says != "ro="+strconv.FormatBool(want) {
			t.Errorf("after SetReadOnly(%v): ReadOnly = %v, %v, btrfs property says %q", want, got, err, says)
		}
		if before == want && d.info("").Generation != generation {
			t.Errorf("SetReadOnly(%v) committed a transaction, though nothing changed", want)
		}
	}
	d.sh("mkdir plain")
	if err := btrfs.SetReadOnly(d.open("plain"), true); !errors.Is(err, unix.EINVAL) {
		t.Errorf("SetReadOnly of a plain directory = %v, want %v", err, unix.EINVAL)
	}
}

// A name is one component and reaches the kernel whole, or not at all.
func TestNames(t *testing.T) {
	d := newDisk(t)
	d.create("source")
	top, source := d.open(""), d.open("source")
	long := strings.Repeat("n", btrfs.MaxNameLength)
	calls := map[string]func(string) error{
		"Create":   func(name string) error { return btrfs.Create(top, name) },
		"Snapshot": func(name string) error { return btrfs.Snapshot(source, top, name, false) },
		"Destroy":  func(name string) error { return btrfs.Destroy(top, name) },
	}
	for call, f := range calls {
		for name, want := range map[string]unix.Errno{
			"": unix.EINVAL, ".": unix.EINVAL, "..": unix.EINVAL, "a/b": unix.EINVAL, "/a": unix.EINVAL, "a/": unix.EINVAL,
			"a\x00b": unix.EINVAL, "\x00": unix.EINVAL, long + "n": unix.ENAMETOOLONG, strings.Repeat("n", 5000): unix.ENAMETOOLONG,
		} {
			if err := f(name); !errors.Is(err, want) {
				t.Errorf("%s(%.20q, %d bytes) = %v, want %v", call, name, len(name), err, want)
			}
			if err := btrfs.CheckName(name); !errors.Is(err, want) {
				t.Errorf("CheckName(%.20q) = %v, want %v", name, err, want)
			}
		}
	}
	if list := d.sh("ls -A"); list != "source\n" {
		t.Errorf("the top level holds %q, want nothing new", list)
	}
	for _, name := range []string{long, "new\nline", "caf\xe9", " ", "-", "a\\b", "..."} {
		for _, call := range []string{"Create", "Destroy", "Snapshot"} {
			if err := calls[call](name); err != nil {
				t.Errorf("%s(%.20q) = %v", call, name, err)
			}
			if call != "Destroy" && d.info(name).Name != name {
				t.Errorf("after %s the name is %q, want %q", call, d.info(name).Name, name)
			}
		}
	}
}

// Every error is a *os.PathError around the errno, and names the operation and what
// it was about.
func TestErrors(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.sh("echo > file")
	top, v := d.open(""), d.open("v")
	proc, err := os.Open("/proc/self")
	must(t, err)
	defer proc.Close()
	readOnly := func() error { _, err := btrfs.ReadOnly(d.open("file")); return err }
	search := func() error {
		return btrfs.NewLookup(top).Search(btrfs.SearchKey{Tree: 4711, Max: btrfs.Key{ObjectID: 1}}, nil)
	}
	for _, tt := range []struct {
		name string
		err  error
		want unix.Errno
		path string
	}{
		{"Create twice", btrfs.Create(top, "v"), unix.EEXIST, d.path("v")},
		{"Snapshot over something", btrfs.Snapshot(v, top, "file", false), unix.EEXIST, d.path("file")},
		{"Snapshot of a directory elsewhere", btrfs.Snapshot(proc, top, "s", false), unix.EXDEV, d.path("s")},
		{"Create elsewhere", btrfs.Create(proc, "v"), unix.ENOTTY, "/proc/self/v"},
		{"Info elsewhere", func() error { _, err := btrfs.ReadInfo(proc); return err }(), unix.ENOTTY, "/proc/self"},
		{"ReadFilesystem elsewhere", func() error { _, err := btrfs.ReadFilesystem(proc); return err }(), unix.ENOTTY, "/proc/self"},
		{"ReadOnly of a file", readOnly(), unix.EINVAL, d.path("file")},
		{"Search of no tree", search(), unix.ENOENT, d.path("")},
	} {
		var pathErr *os.PathError
		if !errors.Is(tt.err, tt.want) || !errors.As(tt.err, &pathErr) || filepath.Clean(pathErr.Path) != tt.path || pathErr.Op == "" {
			t.Errorf("%s = %v, want a *os.PathError of %s with %v", tt.name, tt.err, tt.path, tt.want)
		}
	}
}

func TestReadOnlyMount(t *testing.T) {
	d := newDisk(t)
	d.sh("btrfs -q subvolume create v")
	d.fs.Remount("ro")
	top, v := d.open(""), d.open("v")
	for name, err := range map[string]error{
		"Create":     btrfs.Create(top, "w"),
		"Snapshot":   btrfs.Snapshot(v, top, "w", true),
		"Destroy":    btrfs.Destroy(top, "v"),
		"SetDefault": btrfs.SetDefault(top, d.info("v").ID),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s on a read-only mount = %v, want %v", name, err, unix.EROFS)
		}
	}
}
