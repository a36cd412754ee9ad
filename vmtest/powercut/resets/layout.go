package resets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
)

// The disk of the scenarios, at the top level:
//
//	@root                        a small system
//	├── etc, usr, var
//	└── var/lib/machines         kept, with nested subvolumes, which move:
//	    ├── vm                   one that can be written to
//	    └── base                 one that is read-only
//	└── var/lib/locked           immutable
//	    └── inner                and one in a directory that forbids it
//	@home                        two owners
//	├── alice
//	└── bob                      nested subvolume above a kept path: it counts
//	                             as a directory, and a new one is made of it
//	@snapshots/@root/CLEAN …
//	@snapshots/@home/CLEAN …
const (
	rootVolume = "@root"
	homeVolume = "@home"
)

// plan is the plan of the scenarios.
func plan(mode reset.Mode) *reset.PlanFile {
	return &reset.PlanFile{
		Version:   reset.PlanFileVersion,
		Device:    "/dev/disk/by-label/unused", // the command line names the device
		Snapshots: reset.DefaultSnapshots,
		Clean:     reset.NameClean,
		Mode:      mode,
		Revision:  1773122722,
		Volumes: []reset.PlanFileVolume{
			{
				Name: rootVolume, MountPoint: "/",
				Keep:    []string{"/etc/ssh", "/etc/machine-id", "/var/lib"},
				Exclude: []string{"/var/lib/cache"},
			},
			{
				Name: homeVolume, MountPoint: "/home",
				Keep:    []string{"/*/Documents", "/*/.ssh"},
				Exclude: []string{"/*/Documents/tmp"},
			},
		},
	}
}

// A tree is a folder of a test disk, and what went wrong in it first, so that a
// layout reads as a list.
type tree struct {
	root string
	err  error
}

func (t *tree) do(f func(path string) error, name string) {
	if t.err == nil {
		t.err = f(filepath.Join(t.root, name))
	}
}

func (t *tree) dir(name string, mode os.FileMode) {
	t.do(func(path string) error { return errors.Join(os.MkdirAll(path, mode), os.Chmod(path, mode)) }, name)
}

// file writes a file, long enough to have an extent of its own if size says so.
func (t *tree) file(name, text string, size int) {
	t.do(func(path string) error {
		content := text
		if len(text) > 0 {
			content = strings.Repeat(text, max(1, size/len(text)))
		}
		return os.WriteFile(path, []byte(content), 0o644)
	}, name)
}

func (t *tree) remove(name string) { t.do(os.RemoveAll, name) }

func (t *tree) symlink(target, name string) {
	t.do(func(path string) error { return os.Symlink(target, path) }, name)
}

func (t *tree) link(target, name string) {
	t.do(func(path string) error { return os.Link(filepath.Join(t.root, target), path) }, name)
}

func (t *tree) rename(from, to string) {
	t.do(func(path string) error { return os.Rename(path, filepath.Join(t.root, to)) }, from)
}

func (t *tree) own(name string, uid int) {
	t.do(func(path string) error { return os.Lchown(path, uid, uid) }, name)
}

func (t *tree) mode(name string, mode os.FileMode) {
	t.do(func(path string) error { return os.Chmod(path, mode) }, name)
}

func (t *tree) xattr(name, attribute, value string) {
	t.do(func(path string) error { return unix.Setxattr(path, attribute, []byte(value), 0) }, name)
}

func (t *tree) fifo(name string) {
	t.do(func(path string) error { return unix.Mkfifo(path, 0o600) }, name)
}

func (t *tree) flags(name string, flags uint32) {
	t.do(func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(btrfs.SetFlags(f, flags), f.Close())
	}, name)
}

func (t *tree) subvolume(name string) {
	t.do(func(path string) error {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		return errors.Join(btrfs.Create(dir, filepath.Base(path)), os.Chmod(path, 0o755), dir.Close())
	}, name)
}

func (t *tree) readOnly(name string) {
	t.do(func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(btrfs.SetReadOnly(f, true), f.Close())
	}, name)
}

// old gives everything a time in the past, as it is on a real disk, so that a
// time that a reset failed to put back shows.
func (t *tree) old() {
	past := time.Date(2026, 3, 10, 6, 5, 22, 123456789, time.UTC)
	t.do(func(root string) error {
		return filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			past = past.Add(time.Second)
			stamp := unix.NsecToTimespec(past.UnixNano())
			return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW)
		})
	}, "")
}

// install lays out a freshly installed machine, but for CLEAN.
func install(mount string) error {
	t := &tree{root: mount}
	t.subvolume(rootVolume)
	t.subvolume(homeVolume)
	t.subvolume(reset.DefaultSnapshots)
	t.mode(reset.DefaultSnapshots, 0o700)
	if t.err != nil {
		return t.err
	}
	root, home := &tree{root: filepath.Join(mount, rootVolume)}, &tree{root: filepath.Join(mount, homeVolume)}
	installRoot(root)
	installHome(home)
	root.old()
	home.old()
	return errors.Join(root.err, home.err)
}

func installRoot(t *tree) {
	t.dir("etc/ssh", 0o755)
	t.dir("etc/conf.d", 0o755)
	t.dir("usr/lib", 0o755)
	t.dir("var/lib/nixos", 0o755)
	t.dir("var/lib/cache", 0o755)
	t.dir("var/log", 0o755)
	t.dir("var/tmp", 0o777)
	t.file("etc/hosts", "127.0.0.1 localhost\n", 0)
	t.file("etc/motd", "welcome\n", 0)
	t.file("etc/machine-id", "", 0)
	t.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n", 9000)
	t.file("usr/lib/big", "library ", 300_000)
	t.file("usr/lib/nocow", "", 0)
	t.flags("usr/lib/nocow", btrfs.FlagNoCOW)
	t.file("usr/lib/nocow", "database ", 20_000)
	t.file("var/log/locked", "log\n", 0)
	t.symlink("../usr/lib/big", "etc/big")
	t.link("etc/hosts", "etc/conf.d/hosts")
	t.xattr("etc/passwd", "user.origin", "installer")
	for i := range 12 {
		t.file(fmt.Sprintf("etc/conf.d/%02d.conf", i), fmt.Sprintf("option %d\n", i), 0)
	}
}

func installHome(t *tree) {
	t.dir("alice/.config", 0o700)
	t.dir("alice/Documents", 0o755)
	t.file("alice/.profile", "export EDITOR=ed\n", 0)
	t.file("alice/.config/settings", "theme=light\n", 5000)
	for _, name := range []string{"alice", "alice/.config", "alice/Documents", "alice/.profile", "alice/.config/settings"} {
		t.own(name, 1000)
	}
}

// day is what happens between two boots. Each day differs from the last.
func day(mount string, n int) error {
	root, home := &tree{root: filepath.Join(mount, rootVolume)}, &tree{root: filepath.Join(mount, homeVolume)}
	dayOfRoot(root, n)
	dayOfHome(home, n)
	return errors.Join(root.err, home.err)
}

func dayOfRoot(t *tree, n int) {
	// kept
	t.file(fmt.Sprintf("etc/ssh/key-%d", n), "secret ", 600*n)
	t.file("etc/machine-id", fmt.Sprintf("%032d\n", n), 0)
	t.file("var/lib/nixos/uids", fmt.Sprintf("day %d\n", n), 6000)
	if n == 1 {
		t.dir("var/lib/machines", 0o700)
		t.subvolume("var/lib/machines/vm")
		t.subvolume("var/lib/machines/base")
		t.file("var/lib/machines/base/image", "template ", 20_000)
		t.readOnly("var/lib/machines/base")
		t.dir("var/lib/locked", 0o755)
		t.subvolume("var/lib/locked/inner")
		t.file("var/lib/locked/inner/data", "inner ", 6000)
		t.flags("var/lib/locked/inner", btrfs.FlagImmutable)
		t.flags("var/lib/locked", btrfs.FlagImmutable)
		t.file("var/lib/machines/vm/disk", "guest ", 50_000)
	}
	t.file("var/lib/machines/vm/log", fmt.Sprintf("boot %d\n", n), 0)
	// not kept
	t.file("etc/hosts", fmt.Sprintf("127.0.0.1 day%d\n", n), 0)
	t.remove("etc/motd")
	t.mode("etc/passwd", 0o600)
	t.xattr("etc/passwd", "user.origin", fmt.Sprintf("day %d", n))
	t.file("usr/lib/big", fmt.Sprintf("hacked on day %d ", n), 200_000)
	t.file("usr/lib/nocow", "changed ", 20_000)
	t.remove(fmt.Sprintf("etc/conf.d/%02d.conf", n%6))
	t.rename(fmt.Sprintf("etc/conf.d/%02d.conf", 6+n%6), fmt.Sprintf("etc/conf.d/moved-%d", n))
	t.file("var/lib/cache/thumbnails", fmt.Sprintf("%d ", n), 9000)
	t.dir("var/tmp/build/out", 0o755)
	for i := range 10 {
		t.file(fmt.Sprintf("var/tmp/build/out/%d-%d.o", n, i), "object ", 5000)
	}
	t.fifo("var/tmp/pipe")
	t.link(fmt.Sprintf("etc/ssh/key-%d", n), "var/tmp/linked-key")
	t.file("var/tmp/name\nwith \xff bytes", "odd\n", 0)
	t.flags("var/log/locked", btrfs.FlagImmutable)
}

func dayOfHome(t *tree, n int) {
	t.file(fmt.Sprintf("alice/Documents/letter-%d", n), "dear reader ", 4000*n)
	t.dir("alice/Documents/tmp", 0o755)
	t.file("alice/Documents/tmp/draft", fmt.Sprintf("draft %d\n", n), 0)
	t.dir("alice/.cache/browser", 0o700)
	for i := range 10 {
		t.file(fmt.Sprintf("alice/.cache/browser/%d-%d", n, i), "cached ", 5000)
	}
	t.file("alice/.config/settings", "theme=dark\n", 5000)
	t.remove("alice/.profile")
	if n == 1 {
		t.subvolume("bob")
		t.dir("bob/Documents", 0o755)
	}
	t.file(fmt.Sprintf("bob/Documents/note-%d", n), "note ", 6000)
	t.file(fmt.Sprintf("bob/junk-%d", n), "junk ", 6000)
	t.dir("bob/.ssh", 0o700)
	t.file("bob/.ssh/known_hosts", fmt.Sprintf("host %d\n", n), 0)
}
