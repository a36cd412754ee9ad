// Package testx makes what tests need of a real system: btrfs file systems on
// loop devices, undone when the test ends, failed or not. (A test that is killed
// leaves its mount; once that is unmounted the kernel frees the device.)
//
// Where the machine cannot give it (no root, no loop devices, no mkfs.btrfs)
// the test is skipped and says why, unless NIXOS_GO_NO_SKIP=1 is in the
// environment: then it fails, so that CI never skips in silence.
package testx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Filesystem is a btrfs file system on loop devices, made for one test.
type Filesystem struct {
	Device  string        // the first device, "/dev/loop7"
	Image   string        // the file behind it
	Devices []*LoopDevice // all devices
	Mount   string        // where its top level (subvolid=5) is mounted, or belongs

	tb      testing.TB
	mounted bool
	known   bool // to the driver, which has scanned the devices
}

// An Option changes how Disk and NewFilesystem make a file system.
type Option func(*options)

type options struct {
	devices   int
	mkfs      []string
	mountData string
	unmounted bool
}

// WithDevices spreads the file system over several devices, with mirrored data
// and metadata where there are two or more.
func WithDevices(n int) Option { return func(o *options) { o.devices = n } }

// WithMkfs adds arguments of mkfs.btrfs(8).
func WithMkfs(args ...string) Option {
	return func(o *options) { o.mkfs = append(o.mkfs, args...) }
}

// WithMountOptions mounts with options, as Remount does.
func WithMountOptions(data string) Option { return func(o *options) { o.mountData = data } }

// Unmounted leaves the file system for the test to mount.
func Unmounted() Option { return func(o *options) { o.unmounted = true } }

// Disk makes a btrfs file system of size bytes on a loop device, mounts its top
// level and returns the mount point. All is undone when the test ends.
func Disk(tb testing.TB, size int64, opts ...Option) string {
	tb.Helper()

	return NewFilesystem(tb, size, opts...).Mount
}

// NewFilesystem is Disk for tests that need the device too. Each device has
// size bytes, sparse.
func NewFilesystem(tb testing.TB, size int64, opts ...Option) *Filesystem {
	tb.Helper()
	NeedBtrfs(tb)

	o := options{devices: 1}
	for _, opt := range opts {
		opt(&o)
	}

	folder := tb.TempDir()
	f := &Filesystem{Mount: filepath.Join(folder, "mount"), tb: tb}

	if err := os.Mkdir(f.Mount, 0o700); err != nil {
		tb.Fatal(err)
	}

	for i := range o.devices {
		f.Devices = append(f.Devices, NewLoopDevice(tb, filepath.Join(folder, fmt.Sprintf("image%d", i)), size))
	}

	f.Device, f.Image = f.Devices[0].Path, f.Devices[0].Image
	f.mkfs(o)

	tb.Cleanup(func() {
		if f.mounted {
			f.Unmount()
		}

		if f.known {
			f.Forget()
		}
	})

	if o.unmounted {
		return f
	}

	switch err := f.TryMount(o.mountData); {
	case errors.Is(err, fs.ErrPermission):
		Unavailable(tb, err.Error())
	case err != nil:
		tb.Fatal(err)
	}

	return f
}

func (f *Filesystem) mkfs(o options) {
	f.tb.Helper()

	args := []string{"--quiet", "--nodiscard"}
	if o.devices > 1 {
		args = append(args, "--data", "raid1", "--metadata", "raid1")
	}

	args = append(args, o.mkfs...)
	for _, d := range f.Devices {
		args = append(args, d.Path)
	}

	if out, err := exec.Command("mkfs.btrfs", args...).CombinedOutput(); err != nil {
		f.tb.Fatalf("mkfs.btrfs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Remount mounts the top level with the given options of btrfs(5), or ro,
// noatime, nosuid, nodev, noexec, separated by commas, after unmounting it if it
// is mounted: caches are cold then.
func (f *Filesystem) Remount(mountOptions string) {
	f.tb.Helper()

	if f.mounted {
		f.Unmount()
	}

	if err := f.TryMount(mountOptions); err != nil {
		f.tb.Fatal(err)
	}
}

// mountFlags are the options that are flags of mount(2) and not btrfs' own.
var mountFlags = map[string]uintptr{
	"":        0,
	"ro":      unix.MS_RDONLY,
	"noatime": unix.MS_NOATIME,
	"nosuid":  unix.MS_NOSUID,
	"nodev":   unix.MS_NODEV,
	"noexec":  unix.MS_NOEXEC,
}

// TryMount mounts the top level and returns what goes wrong.
func (f *Filesystem) TryMount(mountOptions string) error {
	words := []string{"subvolid=5"}

	var flags uintptr

	for word := range strings.SplitSeq(mountOptions, ",") {
		if flag, ok := mountFlags[word]; ok {
			flags |= flag
		} else {
			words = append(words, word)
		}
	}

	data := strings.Join(words, ",")

	if len(f.Devices) > 1 {
		for _, d := range f.Devices {
			if err := d.scan(); err != nil {
				return err
			}
		}

		f.known = true
	}

	for _, d := range f.Devices {
		if d.detached() {
			continue
		}

		// Busy: a device of the same name, of another test, is still going.
		mount := func() error { return unix.Mount(d.Path, f.Mount, "btrfs", flags, data) }
		if err := retry(isBusy, mount); err != nil {
			return fmt.Errorf("mount %s on %s with %q: %w", d.Path, f.Mount, data, err)
		}

		f.mounted = true

		return nil
	}

	return fmt.Errorf("mount %s: %w", f.Mount, fs.ErrNotExist)
}

// Unmount unmounts the file system; the devices stay. Whoever still has a file
// open there gets ten seconds to close it.
func (f *Filesystem) Unmount() {
	f.tb.Helper()

	err := retry(isBusy, func() error { return unix.Unmount(f.Mount, unix.UMOUNT_NOFOLLOW) })
	if err != nil {
		f.tb.Errorf("unmount %s: %v; it is detached and goes when the last file in it is closed", f.Mount, err)

		if err := unix.Unmount(f.Mount, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			f.tb.Fatalf("unmount %s: %v", f.Mount, err)
		}
	}

	f.mounted = false
}

// Detach takes the device with that index away, as if it had failed. The file
// system must not be mounted. Mounting it needs "degraded" from then on.
func (f *Filesystem) Detach(i int) {
	f.tb.Helper()

	if f.mounted {
		f.tb.Fatalf("detach %s: the file system is mounted", f.Devices[i].Path)
	}

	f.Forget()

	if err := f.Devices[i].Detach(); err != nil {
		f.tb.Fatal(err)
	}
}

// Forget makes the kernel forget the devices of the file system, which must not
// be mounted: a device of the same name that another test makes is another.
func (f *Filesystem) Forget() {
	f.tb.Helper()

	for _, d := range f.Devices {
		if err := d.forget(); err != nil {
			f.tb.Error(err)
		}
	}
}

// NeedBtrfs ends the test, see Unavailable, where it cannot make and mount a
// btrfs file system.
func NeedBtrfs(tb testing.TB) {
	tb.Helper()
	NeedRoot(tb)

	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		Unavailable(tb, "no mkfs.btrfs (Debian: btrfs-progs): "+err.Error())
	}

	if !kernelHasBtrfs() {
		// The module may not be loaded yet. Whether it is now is what counts.
		out, err := exec.Command("modprobe", "btrfs").CombinedOutput()
		if !kernelHasBtrfs() {
			Unavailable(tb, fmt.Sprintf("the kernel has no btrfs (modprobe: %v, %s)", err, out))
		}
	}

	if _, err := os.Stat(loopControl); err != nil {
		Unavailable(tb, "no loop devices: "+err.Error())
	}
}

// NeedRoot ends the test, see Unavailable, where it does not run as root.
func NeedRoot(tb testing.TB) {
	tb.Helper()

	if os.Geteuid() != 0 {
		Unavailable(tb, "must be root")
	}
}

// Unavailable skips the test with a reason, or fails it where the environment
// says NIXOS_GO_NO_SKIP=1.
func Unavailable(tb testing.TB, reason string) {
	tb.Helper()

	if os.Getenv("NIXOS_GO_NO_SKIP") == "1" {
		tb.Fatal("NIXOS_GO_NO_SKIP=1, but " + reason)
	}

	tb.Skip(reason)
}

func kernelHasBtrfs() bool {
	// A file of /proc that cannot be read lists nothing.
	list, _ := os.ReadFile("/proc/filesystems")

	return strings.Contains(string(list), "\tbtrfs\n")
}

func isBusy(err error) bool { return errors.Is(err, unix.EBUSY) }
