package reset

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRefuseMountedVolume(t *testing.T) {
	var point, hidden string
	unmount := func(b *box) {
		for _, p := range []string{hidden, point} {
			if p != "" {
				b.unmount(p)
			}
		}
		hidden = ""
	}
	runRefusals(t, []refusal{
		{name: "whole", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home")
		}},
		{name: "read-only", mode: ModeRestorePrevious, want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME|unix.MS_RDONLY, fmt.Sprintf("subvolid=%d", b.info("@home").ID))
		}},
		{name: "a part of it", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.path("@home/alice"), "", unix.MS_BIND, "")
		}},
		{name: "a file of it", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = filepath.Join(b.t.TempDir(), "file")
			if err := os.WriteFile(point, nil, 0o600); err != nil {
				b.t.Fatal(err)
			}
			if err := unix.Mount(b.path("@home/alice/.bashrc"), point, "", unix.MS_BIND, ""); err != nil {
				b.t.Fatal(err)
			}
			b.t.Cleanup(func() { b.unmount(point) })
		}},
		{name: "below another mount", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home")
			if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
				b.t.Fatal(err)
			}
			hidden = point
		}},
		{name: "at a name with a space", want: []string{"mounted at", "with space"}, cure: unmount, spoil: func(b *box) {
			point = filepath.Join(b.t.TempDir(), "with space")
			if err := os.Mkdir(point, 0o700); err != nil {
				b.t.Fatal(err)
			}
			if err := unix.Mount(b.fs.Device, point, "btrfs", unix.MS_NOATIME, "subvol=@home"); err != nil {
				b.t.Fatal(err)
			}
			b.t.Cleanup(func() { b.unmount(point) })
		}},
	})
}

// What is mounted in another namespace, of which one has the list of mounts, is in
// use as well; a directory of that name here, or none, is none of its business.
func TestRefuseVolumeMountedElsewhere(t *testing.T) {
	for _, gone := range []bool{false, true} {
		b := newBox(t)
		list := filepath.Join(t.TempDir(), "mountinfo")
		point := t.TempDir()
		command(t, "unshare", "--mount", "--propagation", "private", "sh", "-euc",
			fmt.Sprintf("mount -o noatime,subvol=@home %s %s; cat /proc/self/mountinfo > %s", b.fs.Device, point, list))
		if gone {
			must(t, os.Remove(point))
		}
		before := b.everything()
		report, err := b.try(Options{MountInfo: list})
		if home := b.result(report, "@home"); err != nil || home.Outcome != OutcomeFailed || !strings.Contains(home.Error, point) {
			t.Errorf("Run() = %v, @home %+v, want it refused as mounted at %s", err, home, point)
		}
		b.same("@home", only(before, "@home", "@snapshots/@home"), only(b.everything(), "@home", "@snapshots/@home"))
	}
}

// Not in the way: other file systems with subvolumes of that name, also if they are
// gone before one can look, the top level, other volumes, names that only begin alike.
func TestMountsThatAreInNobodysWay(t *testing.T) {
	b := newBox(t)
	b.create("@home2")
	b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home2")
	b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@other")
	b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvolid=5")
	backup := newBox(t)
	backup.mount(backup.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home")
	point := backup.mount(backup.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home")
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	list := filepath.Join(t.TempDir(), "mountinfo")
	must(t, os.WriteFile(list, text, 0o600))
	must(t, unix.Unmount(point, 0))
	must(t, os.Remove(point))
	want := b.expect("@home")
	b.run(Options{MountInfo: list})
	b.same("@home", want, b.read("@home"))
}
