package btrfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

func mounts(t *testing.T, device string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return strings.Count(string(text), " "+device+" ")
}

// The mount is the top level, writable, seen by nobody, and gone when it is closed.
func TestMount(t *testing.T) {
	fs := testx.NewFilesystem(t, 256<<20)
	d := &disk{t: t, fs: fs, top: fs.Mount}
	d.sh(`btrfs -q subvolume create v; mkdir v/dir; echo text > v/dir/file; btrfs subvolume set-default v`)
	fs.Unmount()
	top, err := btrfs.Mount(fs.Device, btrfs.MountOptions{Flags: []string{"skip_balance"}, Values: map[string]string{"commit": "7"}})
	must(t, err)
	info, err := btrfs.ReadInfo(top)
	if info.ID != btrfs.TopLevelID || err != nil {
		t.Errorf("subvolume %d, %v is mounted, want %d: the default is another", info.ID, err, btrfs.TopLevelID)
	}
	if n := mounts(t, fs.Device); n != 0 {
		t.Errorf("%d mounts of %s are seen, want none", n, fs.Device)
	}
	var st unix.Statfs_t
	must(t, unix.Fstatfs(int(top.Fd()), &st))
	const want = unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC | unix.ST_NOATIME
	if st.Flags&(want|unix.ST_RDONLY) != want {
		t.Errorf("flags of the mount = %#x, want nosuid, nodev, noexec and noatime", st.Flags)
	}
	must(t, btrfs.Create(top, "made"))
	fd, err := unix.Openat(int(top.Fd()), "v/dir/file", unix.O_RDONLY, 0)
	must(t, err)
	unix.Close(fd)
	mounted := filepath.Join("/sys/fs/btrfs", filesystemID(t, top), "devinfo")
	if _, err := os.Stat(mounted); err != nil {
		t.Errorf("while it is open: %v", err)
	}
	must(t, top.Close())
	if _, err := os.Stat(mounted); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close the file system is mounted (%s: %v)", mounted, err)
	}
	fs.Remount("")
	d.sh("test -d made && btrfs subvolume show made && btrfs subvolume set-default 5 .")
}

func filesystemID(t *testing.T, f *os.File) string {
	t.Helper()
	fs, err := btrfs.ReadFilesystem(f)
	must(t, err)
	return fs.ID.String()
}

// A read-only mount is one, whether the disk is mounted elsewhere or not, and does
// not make the other read-only.
func TestMountReadOnly(t *testing.T) {
	fs := testx.NewFilesystem(t, 256<<20)
	d := &disk{t: t, fs: fs, top: fs.Mount}
	check := func(where string) {
		t.Helper()
		top, err := btrfs.Mount(fs.Device, btrfs.MountOptions{ReadOnly: true})
		must(t, err)
		defer top.Close()
		if err := btrfs.Create(top, "v"); !errors.Is(err, unix.EROFS) {
			t.Errorf("Create %s = %v, want %v", where, err, unix.EROFS)
		}
		if _, err := unix.Openat(int(top.Fd()), "file", unix.O_WRONLY|unix.O_CREAT, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("open to write %s = %v, want %v", where, err, unix.EROFS)
		}
	}
	check("beside a writable mount")
	d.write("file", "the other mount can still be written to")
	fs.Unmount()
	check("alone")
	// And the other way round.
	fs.Remount("ro")
	top, err := btrfs.Mount(fs.Device, btrfs.MountOptions{})
	if err == nil {
		defer top.Close()
		err = btrfs.Create(top, "v")
	}
	if err != nil && !errors.Is(err, unix.EROFS) {
		t.Errorf("beside a read-only mount, a writable one = %v, want that it works or %v", err, unix.EROFS)
	}
}

func TestMountErrors(t *testing.T) {
	fs := testx.NewFilesystem(t, 256<<20, testx.Unmounted())
	blank := testx.NewLoopDevice(t, filepath.Join(t.TempDir(), "blank"), 256<<20)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("text"), 0o600))
	for _, tt := range []struct {
		name, device string
		options      btrfs.MountOptions
		want         error
		says         string
	}{
		{"missing device", "/dev/nonexistent", btrfs.MountOptions{}, unix.ENOENT, "mount /dev/nonexistent: "},
		{"no device", file, btrfs.MountOptions{}, unix.ENOTBLK, "mount " + file + ": "},
		{"no btrfs", blank.Path, btrfs.MountOptions{}, unix.EINVAL, "mount " + blank.Path + ": "},
		{"unknown option", fs.Device, btrfs.MountOptions{Flags: []string{"nonsense"}}, unix.EINVAL, ": invalid argument (btrfs: Unknown parameter 'nonsense')"},
		{"bad value", fs.Device, btrfs.MountOptions{Values: map[string]string{"compress": "nonsense"}}, unix.EINVAL, "mount " + fs.Device + ": "},
	} {
		top, err := btrfs.Mount(tt.device, tt.options)
		if err == nil {
			top.Close()
		}
		var pathErr *os.PathError
		if !errors.Is(err, tt.want) || !errors.As(err, &pathErr) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Mount with %s = %q, want one line with %q that wraps %v", tt.name, err, tt.says, tt.want)
		}
	}
}
