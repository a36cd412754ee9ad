package powercut

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// newBase makes an image of size bytes in the test's folder.
func newBase(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "base.img")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	return name
}

// checkNothingLeft fails the test when a mount, loop device or process still
// refers to the folder.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left below %s", dir)
	}
	backings, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range backings {
		if text, err := os.ReadFile(b); err == nil && strings.Contains(string(text), dir) {
			t.Errorf("%s is left: %s", b, text)
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if text, err := os.ReadFile(c); err == nil && strings.Contains(string(text), dir) {
			t.Errorf("process %s is left: %q", c, text)
		}
	}
	if _, err := os.Stat(servedName(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat %s = %v, want it gone", servedName(dir), err)
	}
}

func TestRecord(t *testing.T) {
	needRecorder(t)
	dir, base := t.TempDir(), newBase(t, 8<<20)
	err := Record(t.Context(), dir, base, func(_ context.Context, device string) error {
		f, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			return err
		}
		// Direct writes need a buffer that begins at a page.
		buf, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		defer func() {
			if err := unix.Munmap(buf); err != nil {
				t.Error(err)
			}
		}()
		for i := range buf {
			buf[i] = 'x'
		}
		if _, err := f.WriteAt(buf, 4096); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if _, err := f.WriteAt(buf[:4096], 1<<20); err != nil {
			return err
		}
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 4096); err != nil {
			return err
		}
		return f.Close()
	})
	if err != nil {
		t.Fatalf("Record = %v", err)
	}
	checkNothingLeft(t, dir)
	r, err := OpenRecording(dir)
	if err != nil {
		t.Fatalf("OpenRecording = %v", err)
	}
	defer r.Close()
	if err := r.Verify(); err != nil {
		t.Errorf("Verify = %v", err)
	}
	got := make([]string, 0, len(r.Log.Entries))
	for _, e := range r.Log.Entries {
		got = append(got, e.String())
	}
	want := []string{"4096+8192", "0+0 flush", "1048576+4096", "8192+4096 discard"}
	if diff := cmp.Diff(want, got[:min(len(got), len(want))]); diff != "" {
		t.Errorf("Record: log (-want +got)\n%s", diff)
	}
	// At the end the last close flushes once more.
	for _, e := range r.Log.Entries[len(want):] {
		if e.IsWrite() {
			t.Errorf("Record: log has %v after the program's last write", e)
		}
	}
}

func TestVerifyFindsDifferences(t *testing.T) {
	needRecorder(t)
	dir := t.TempDir()
	err := Record(t.Context(), dir, newBase(t, 1<<20), func(_ context.Context, device string) error {
		return os.WriteFile(device, bytes.Repeat([]byte("x"), 4096), 0)
	})
	if err != nil {
		t.Fatalf("Record = %v", err)
	}
	r, err := OpenRecording(dir)
	if err != nil {
		t.Fatalf("OpenRecording = %v", err)
	}
	defer r.Close()
	if err := r.Verify(); err != nil {
		t.Errorf("Verify = %v", err)
	}
	last, err := os.OpenFile(filepath.Join(dir, lastName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if _, err := last.WriteAt([]byte("y"), 4095); err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(); !errors.Is(err, ErrDiffer) {
		t.Errorf("Verify(changed disk) = %v, want %v", err, ErrDiffer)
	}
}

func TestRecordNothing(t *testing.T) {
	needRecorder(t)
	dir := t.TempDir()
	if err := Record(t.Context(), dir, newBase(t, 1<<20), func(context.Context, string) error { return nil }); err != nil {
		t.Fatalf("Record = %v", err)
	}
	r, err := OpenRecording(dir)
	if err != nil {
		t.Fatalf("OpenRecording = %v", err)
	}
	defer r.Close()
	if n := len(r.Log.Entries); n != 0 {
		t.Errorf("Record(nothing): %d entries, want 0", n)
	}
	if err := r.Verify(); err != nil {
		t.Errorf("Verify = %v", err)
	}
}

func TestRecordCleansUp(t *testing.T) {
	needRecorder(t)
	errProgram := errors.New("the program failed")

	t.Run("error", func(t *testing.T) {
		dir := t.TempDir()
		err := Record(t.Context(), dir, newBase(t, 1<<20), func(context.Context, string) error { return errProgram })
		if !errors.Is(err, errProgram) {
			t.Errorf("Record = %v, want %v", err, errProgram)
		}
		checkNothingLeft(t, dir)
	})
	t.Run("panic", func(t *testing.T) {
		dir := t.TempDir()
		func() {
			defer func() {
				if got := recover(); got != "oops" {
					t.Errorf("recover() = %v, want oops", got)
				}
			}()
			_ = Record(t.Context(), dir, newBase(t, 1<<20), func(context.Context, string) error { panic("oops") })
		}()
		checkNothingLeft(t, dir)
	})
	t.Run("cancelled", func(t *testing.T) {
		dir := t.TempDir()
		ctx, cancel := context.WithCancelCause(t.Context())
		err := Record(ctx, dir, newBase(t, 1<<20), func(ctx context.Context, _ string) error {
			cancel(errProgram)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.Is(err, errProgram) {
			t.Errorf("Record = %v, want %v", err, errProgram)
		}
		checkNothingLeft(t, dir)
	})
	t.Run("cancelled before", func(t *testing.T) {
		dir := t.TempDir()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errProgram)
		err := Record(ctx, dir, newBase(t, 1<<20), func(ctx context.Context, _ string) error { return context.Cause(ctx) })
		if !errors.Is(err, errProgram) {
			t.Errorf("Record = %v, want %v", err, errProgram)
		}
		checkNothingLeft(t, dir)
	})
	t.Run("left mounted", func(t *testing.T) {
		dir, base := t.TempDir(), newBase(t, 128<<20)
		mkfs(t, base)
		mount := t.TempDir()
		err := Record(t.Context(), dir, base, func(_ context.Context, device string) error {
			return unix.Mount(device, mount, "btrfs", 0, "")
		})
		if err == nil || !strings.Contains(err.Error(), "still mounted on "+mount) {
			t.Errorf("Record = %v, want it to say that %s is still mounted", err, mount)
		}
		checkNothingLeft(t, dir)
	})
	t.Run("daemon killed", func(t *testing.T) {
		dir := t.TempDir()
		err := Record(t.Context(), dir, newBase(t, 1<<20), func(ctx context.Context, _ string) error {
			killDaemon(t, dir)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if !errors.Is(err, errDaemonEnded) {
			t.Errorf("Record = %v, want %v", err, errDaemonEnded)
		}
		checkNothingLeft(t, dir)
	})
	t.Run("no base", func(t *testing.T) {
		dir := t.TempDir()
		err := Record(t.Context(), dir, filepath.Join(dir, "none"), func(context.Context, string) error { return nil })
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Record = %v, want %v", err, os.ErrNotExist)
		}
	})
}

func mkfs(t *testing.T, image string) {
	t.Helper()
	if out, err := exec.Command("mkfs.btrfs", "--quiet", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.btrfs: %v\n%s", err, out)
	}
}

// killDaemon kills the daemon that serves a recording in dir, and no other.
func killDaemon(t *testing.T, dir string) {
	t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		text, err := os.ReadFile(c)
		if err != nil || !strings.Contains(string(text), daemonProgram) || !strings.Contains(string(text), servedName(dir)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(c)))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no daemon found")
}
