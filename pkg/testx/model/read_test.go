package model

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()

	dir, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { _ = dir.Close() })

	return dir
}

func subvolume(t *testing.T, path string) {
	t.Helper()
	must(t, btrfs.Create(openDir(t, filepath.Dir(path)), filepath.Base(path)))
}

func snapshot(t *testing.T, from, to string) {
	t.Helper()
	must(t, btrfs.Snapshot(openDir(t, from), openDir(t, filepath.Dir(to)), filepath.Base(to), true))
}

func setFlags(t *testing.T, path string, flags uint32) {
	t.Helper()

	f, err := os.Open(path)
	must(t, err)

	defer f.Close()

	must(t, btrfs.SetFlags(f, flags))
}

func setTime(t *testing.T, path string, ns int64) {
	t.Helper()

	ts := unix.NsecToTimespec(ns)
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// TestRead makes one of everything and reads it.
func TestRead(t *testing.T) {
	mount := testx.Disk(t, 256<<20)
	root := filepath.Join(mount, "live")
	at := func(name string) string { return filepath.Join(root, name) }
	odd := "new\nline \"'\xff"

	subvolume(t, root)
	must(t, os.WriteFile(at("file"), []byte("text"), 0o640))
	must(t, os.Chown(at("file"), 1000, 100))
	must(t, unix.Chmod(at("file"), 0o4640))
	must(t, unix.Setxattr(at("file"), "user.a", []byte("x\x00y"), 0))
	must(t, unix.Setxattr(at("file"), "trusted.t", nil, 0))
	must(t, os.Link(at("file"), at("link")))
	must(t, os.Mkdir(at("dir"), 0o750))
	must(t, os.Link(at("file"), at("dir/link")))
	must(t, os.WriteFile(at(odd), nil, 0o600))
	must(t, os.Symlink("/nowhere", at("symlink")))
	must(t, os.Lchown(at("symlink"), 5, 6))
	must(t, unix.Lsetxattr(at("symlink"), "trusted.s", []byte("1"), 0))
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	must(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	must(t, unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, os.WriteFile(at("immutable"), []byte("i"), 0o600))
	must(t, os.WriteFile(at(strings.Repeat("n", 255)), nil, 0o600))
	subvolume(t, at("dir/nested"))
	subvolume(t, at("dir/nested/inner"))
	must(t, os.WriteFile(at("dir/nested/inner/x"), nil, 0o600))
	must(t, btrfs.SetReadOnly(openDir(t, at("dir/nested/inner")), true))
	must(t, os.WriteFile(at(".boot-ready"), nil, 0o600))
	must(t, os.MkdirAll(at(".immutability-trash/x"), 0o700))
	must(t, os.MkdirAll(at("dir/.boot-ready"), 0o700))

	for _, name := range []string{"file", "symlink", "fifo", "socket", "device", "immutable", odd, "dir/nested", "dir/.boot-ready", "dir", ""} {
		setTime(t, at(name), 1234567890)
	}

	setFlags(t, at("immutable"), btrfs.FlagImmutable|btrfs.FlagNoAtime)
	setFlags(t, at("dir"), btrfs.FlagDirSync)
	t.Cleanup(func() { setFlags(t, at("immutable"), 0) })

	got, err := Read(root)
	must(t, err)

	if uuid := got["dir/nested"].UUID; len(uuid) != 36 || uuid == got["dir/nested/inner"].UUID {
		t.Errorf("nested subvolume has the UUID %q, want one of its own", uuid)
	}

	text := sha256.Sum256([]byte("text"))
	file := Entry{
		Type: unix.S_IFREG, Mode: 0o4640, UID: 1000, GID: 100, MTime: 1234567890, Size: 4, Hash: text, Inode: got["file"].Inode,
		Xattrs: map[string]string{"user.a": "x\x00y", "trusted.t": ""},
	}
	special := func(kind uint32) Entry {
		return Entry{Type: kind, Mode: 0o600, MTime: 1234567890, Xattrs: map[string]string{}}
	}
	dir := func(mode, flags uint32) Entry {
		return Entry{Type: unix.S_IFDIR, Mode: mode, MTime: 1234567890, Flags: flags, Xattrs: map[string]string{}}
	}
	empty := func(content string) Entry {
		e := special(unix.S_IFREG)
		e.Size, e.Hash = int64(len(content)), sha256.Sum256([]byte(content))

		return e
	}

	want := Tree{
		"": dir(0o755, 0), "file": file, "link": file, "dir/link": file, "dir": dir(0o750, btrfs.FlagDirSync),
		odd: empty(""), "fifo": special(unix.S_IFIFO), "socket": special(unix.S_IFSOCK),
		"dir/.boot-ready": dir(0o700, 0),
	}

	device := special(unix.S_IFCHR)
	device.Rdev = unix.Mkdev(1, 3)
	want["device"] = device

	immutable := empty("i")
	immutable.Flags = btrfs.FlagImmutable | btrfs.FlagNoAtime
	want["immutable"] = immutable

	link := special(unix.S_IFLNK)
	link.Mode, link.UID, link.GID, link.Target, link.Xattrs = 0o777, 5, 6, "/nowhere", map[string]string{"trusted.s": "1"}
	want["symlink"] = link

	nested := dir(0o755, 0)
	nested.Subvolume, nested.UUID = true, got["dir/nested"].UUID
	want["dir/nested"] = nested

	for _, path := range []string{strings.Repeat("n", 255), "dir/nested/inner", "dir/nested/inner/x"} {
		want[path] = got[path] // times of their own
	}

	if inner := got["dir/nested/inner"]; !inner.Subvolume || !inner.ReadOnly || inner.Stub {
		t.Errorf("inner subvolume = %+v, want a read-only subvolume", inner)
	}

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Read (-want +got):\n%s", diff)
	}

	snapshot(t, root, filepath.Join(mount, "snapshot"))

	again, err := Read(filepath.Join(mount, "snapshot"))
	must(t, err)

	if e := again["dir/nested"]; !e.Stub || !e.IsDir() || e.Subvolume {
		t.Errorf("nested subvolume in a snapshot = %+v, want a stub", e)
	}

	again["dir/nested"] = want["dir/nested"]
	delete(want, "dir/nested/inner")
	delete(want, "dir/nested/inner/x")

	if diff := Diff(want, again); diff != "" {
		t.Errorf("a snapshot differs from its source:\n%s", diff)
	}
}

// TestReadACL reads what setfacl and setcap would set.
func TestReadACL(t *testing.T) {
	root := testx.Disk(t, 256<<20)
	must(t, os.WriteFile(filepath.Join(root, "f"), nil, 0o644))

	// struct posix_acl_xattr_header and entries: user::rw-, user:7:r--,
	// group::r--, mask::r--, other::---.
	acl := "\x02\x00\x00\x00" +
		"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x07\x00\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	must(t, unix.Setxattr(filepath.Join(root, "f"), "system.posix_acl_access", []byte(acl), 0))

	// struct vfs_cap_data, revision 2, effective: CAP_NET_BIND_SERVICE.
	capability := "\x01\x00\x00\x02" + "\x00\x04\x00\x00" + strings.Repeat("\x00", 12)
	must(t, unix.Setxattr(filepath.Join(root, "f"), "security.capability", []byte(capability), 0))

	tree, err := Read(root)
	must(t, err)

	want := map[string]string{"system.posix_acl_access": acl, "security.capability": capability}
	if diff := cmp.Diff(want, tree["f"].Xattrs); diff != "" || tree["f"].Mode != 0o640 {
		t.Errorf("Read: mode %#o, want 0640; xattrs (-want +got):\n%s", tree["f"].Mode, diff)
	}
}

// TestReadDeep goes deeper than any path can name.
func TestReadDeep(t *testing.T) {
	const depth = 2000

	root := testx.Disk(t, 256<<20)
	name := "a name of some length"
	dir := int(openDir(t, root).Fd())

	for range depth {
		must(t, unix.Mkdirat(dir, name, 0o700))

		sub, err := unix.Openat(dir, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		t.Cleanup(func() { _ = unix.Close(sub) })

		dir = sub
	}

	tree, err := Read(root)
	must(t, err)

	if got := len(tree); got != depth+1 {
		t.Errorf("Read finds %d entries, want %d", got, depth+1)
	}

	deepest := strings.Repeat(name+"/", depth-1) + name
	if !tree[deepest].IsDir() {
		t.Error("Read does not find the deepest directory")
	}

	if diff := Diff(tree, Expect(tree, tree, []string{"/*"}, nil)); diff != "" {
		t.Errorf("Expect of a deep tree:\n%s", diff)
	}
}

func TestReadErrors(t *testing.T) {
	folder := t.TempDir()
	must(t, os.WriteFile(filepath.Join(folder, "file"), nil, 0o600))
	must(t, os.Symlink(folder, filepath.Join(folder, "link")))

	for _, name := range []string{"missing", "file", "link"} {
		if _, err := Read(filepath.Join(folder, name)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Read(%s) = %v, want an error that names it", name, err)
		}
	}
}

// TestReadIsStable reads twice and finds the same, and no trace of having read.
func TestReadIsStable(t *testing.T) {
	root := testx.Disk(t, 256<<20, testx.WithMountOptions("noatime"))

	for i := range 20 {
		must(t, os.MkdirAll(filepath.Join(root, fmt.Sprint("d", i%5)), 0o700))
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint("d", i%5), fmt.Sprint("f", i)), []byte{byte(i)}, 0o600))
		must(t, os.Symlink("x", filepath.Join(root, fmt.Sprint("l", i))))
	}

	dir := openDir(t, root)
	must(t, btrfs.Sync(dir))

	before, err := btrfs.ReadInfo(dir)
	must(t, err)

	first, err := Read(root)
	must(t, err)
	second, err := Read(root)
	must(t, err)
	must(t, btrfs.Sync(dir))

	after, err := btrfs.ReadInfo(dir)
	must(t, err)

	if diff := Diff(first, second); diff != "" {
		t.Errorf("read twice:\n%s", diff)
	}

	if before.Generation != after.Generation {
		t.Errorf("generation %d after reading, want %d as before", after.Generation, before.Generation)
	}
}
