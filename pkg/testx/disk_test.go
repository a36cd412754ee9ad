package testx

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func mounts(t *testing.T) string {
	t.Helper()

	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}

	return string(text)
}

// backingFile returns the file behind a loop device, "" if it is free.
func backingFile(device string) string {
	// A free device has no such file.
	text, _ := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))

	return strings.TrimSpace(string(text))
}

func TestDisk(t *testing.T) {
	var fs *Filesystem

	t.Run("use", func(t *testing.T) {
		fs = NewFilesystem(t, 256<<20)

		var st unix.Statfs_t
		if err := unix.Statfs(fs.Mount, &st); err != nil || st.Type != unix.BTRFS_SUPER_MAGIC {
			t.Fatalf("Statfs(%s) = type %#x, %v, want btrfs", fs.Mount, st.Type, err)
		}

		if got := backingFile(fs.Device); got != fs.Image {
			t.Errorf("%s is over %q, want %q", fs.Device, got, fs.Image)
		}

		file := filepath.Join(fs.Mount, "file")
		if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}

		fs.Remount("ro,noatime")

		if got, err := os.ReadFile(file); err != nil || string(got) != "text" {
			t.Errorf("after Remount, %s = %q, %v, want what was written", file, got, err)
		}

		if err := os.WriteFile(file, nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write after Remount(ro) = %v, want %v", err, unix.EROFS)
		}

		if !strings.Contains(mounts(t), fs.Mount+" btrfs ro,noatime") {
			t.Errorf("Remount(ro,noatime) mounted with other options:\n%s", mounts(t))
		}
	})

	if fs == nil {
		t.Skip("no disk")
	}

	if strings.Contains(mounts(t), fs.Mount) {
		t.Errorf("%s is mounted after the test, want it gone", fs.Mount)
	}

	if got := backingFile(fs.Device); got == fs.Image {
		t.Errorf("%s is attached after the test, want it free", fs.Device)
	}
}

func TestRetry(t *testing.T) {
	other := errors.New("other")

	for _, tt := range []struct {
		results []error
		want    error
	}{
		{[]error{nil}, nil},
		{[]error{unix.EBUSY, &os.PathError{Err: unix.EBUSY}, nil}, nil},
		{[]error{unix.EBUSY, other}, other},
	} {
		calls := 0

		got := retry(isBusy, func() error {
			calls++

			return tt.results[calls-1]
		})
		if !errors.Is(got, tt.want) || calls != len(tt.results) {
			t.Errorf("retry(%v) = %v after %d calls, want %v after all", tt.results, got, calls, tt.want)
		}
	}
}

func TestDegraded(t *testing.T) {
	fs := NewFilesystem(t, 256<<20, WithDevices(2))
	file := filepath.Join(fs.Mount, "file")

	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}

	fs.Remount("")
	fs.Unmount()
	fs.Detach(0)

	if err := fs.TryMount(""); err == nil {
		t.Fatal("TryMount() of one device of two succeeded, want an error")
	}

	fs.Remount("degraded")

	if got, err := os.ReadFile(file); err != nil || string(got) != "text" {
		t.Errorf("degraded, %s = %q, %v, want what was written", file, got, err)
	}
}

// TestManyDisks races for loop devices.
func TestManyDisks(t *testing.T) {
	NeedBtrfs(t)

	const n = 8

	devices := make([]*LoopDevice, n)
	folder := t.TempDir()

	var all sync.WaitGroup
	for i := range devices {
		all.Go(func() {
			d, err := AttachLoop(filepath.Join(folder, string(rune('a'+i))), 1<<20)
			if err != nil {
				t.Error(err)

				return
			}

			devices[i] = d
		})
	}

	all.Wait()

	var names []string

	for _, d := range devices {
		if d == nil {
			continue
		}

		if got := backingFile(d.Path); got != d.Image {
			t.Errorf("%s is over %q, want %q", d.Path, got, d.Image)
		}

		names = append(names, d.Path)

		if err := d.Detach(); err != nil {
			t.Error(err)
		}
	}

	slices.Sort(names)

	if got := len(slices.Compact(names)); got != n {
		t.Errorf("%d different devices, want %d", got, n)
	}
}

// fakeTB records how a test ended.
type fakeTB struct {
	testing.TB

	skipped, failed bool
}

func (f *fakeTB) Helper()      {}
func (f *fakeTB) Skip(...any)  { f.skipped = true }
func (f *fakeTB) Fatal(...any) { f.failed = true; panic(f) }

func TestUnavailable(t *testing.T) {
	for _, tt := range []struct {
		env             string
		skipped, failed bool
	}{
		{"", true, false},
		{"1", false, true},
	} {
		t.Setenv("NIXOS_GO_NO_SKIP", tt.env)

		tb := &fakeTB{TB: t}

		func() {
			defer func() {
				if got := recover(); got != nil && got != any(tb) {
					panic(got)
				}
			}()
			Unavailable(tb, "reason")
		}()

		if tb.skipped != tt.skipped || tb.failed != tt.failed {
			t.Errorf("NIXOS_GO_NO_SKIP=%q: skipped %v, failed %v, want %v, %v", tt.env, tb.skipped, tb.failed, tt.skipped, tt.failed)
		}
	}
}
