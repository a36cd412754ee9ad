package steptrace

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// stepsFolder tells this test program to be the one that is watched.
const stepsFolder = "STEPTRACE_TEST_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(stepsFolder); dir != "" {
		if err := takeSteps(dir); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func takeSteps(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	return errors.Join(
		os.Mkdir(at("a"), 0o700),
		os.Mkdir(at("b"), 0o700),
		os.Rename(at("a"), at("c")),
		os.Remove(at("b")),
		os.WriteFile(at("c/file"), []byte("text"), 0o600),
	)
}

// TestRun: the caller sees the state after each step of a program.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(stepsFolder, dir)
	var got []string
	look := func() error {
		names, err := filepath.Glob(dir + "/*")
		for i := range names {
			names[i] = filepath.Base(names[i])
		}
		if state := strings.Join(names, " "); len(got) == 0 || got[len(got)-1] != state {
			got = append(got, state)
		}
		return err
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), self, nil, Changes, look); err != nil {
		t.Fatalf("Run = %v", err)
	}
	for len(got) > 0 && got[0] == "" { // the runtime's own writes before the first step
		got = got[1:]
	}
	if diff := cmp.Diff([]string{"a", "a b", "b c", "c"}, got); diff != "" {
		t.Errorf("Run: states after each step (-want +got)\n%s", diff)
	}
}

func TestChanges(t *testing.T) {
	ioctl := func(number uint64) Call { return Call{Number: unix.SYS_IOCTL, Args: [6]uint64{0, number}} }
	for _, tt := range []struct {
		name string
		call Call
		want bool
	}{
		{"rename", Call{Number: unix.SYS_RENAMEAT2}, true},
		{"read", Call{Number: unix.SYS_READ}, false},
		{"BTRFS_IOC_SNAP_CREATE_V2", ioctl(0x50009417), true},
		{"BTRFS_IOC_SNAP_DESTROY_V2", ioctl(0x5000943f), true},
		{"BTRFS_IOC_SUBVOL_SETFLAGS", ioctl(0x4008941a), true},
		{"FS_IOC_SETFLAGS", ioctl(0x40086602), true},
		{"FICLONE", ioctl(0x40049409), true},
		{"FS_IOC_GETFLAGS", ioctl(0x80086601), false},
		{"BTRFS_IOC_TREE_SEARCH_V2", ioctl(0xc0709411), false},
		{"TCGETS", ioctl(0x5401), false},
	} {
		if got := Changes(tt.call); got != tt.want {
			t.Errorf("Changes(%s) = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// shell is a program to be watched.
func shell(t *testing.T) string {
	t.Helper()
	name, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	return name
}

func TestRunFails(t *testing.T) {
	err := Run(t.Context(), shell(t), []string{"-c", "echo oops >&2; exit 3"}, Changes, func() error { return nil })
	exit, ok := errors.AsType[*ExitError](err)
	if !ok || exit.Status != 3 || exit.Output != "oops" {
		t.Errorf("Run(exit 3) = %v, want status 3 and the message", err)
	}
	if err := Run(t.Context(), filepath.Join(t.TempDir(), "none"), nil, Changes, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run(no program) = %v, want %v", err, os.ErrNotExist)
	}
}

var errStop = errors.New("stop")

func TestRunStops(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	err := Run(t.Context(), shell(t), []string{"-c", "echo a; echo b > " + file}, Changes, func() error { return errStop })
	if !errors.Is(err, errStop) {
		t.Errorf("Run = %v, want %v", err, errStop)
	}
	if text, err := os.ReadFile(file); err == nil {
		t.Errorf("the program went on: %q", text)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	err = Run(ctx, shell(t), []string{"-c", "echo a; while :; do :; done"}, Changes, func() error {
		cancel(errStop)
		return nil
	})
	if !errors.Is(err, errStop) {
		t.Errorf("Run(cancelled) = %v, want %v", err, errStop)
	}
}

// TestABI: struct ptrace_syscall_info has 88 bytes, linux/ptrace.h.
func TestABI(t *testing.T) {
	if n := unsafe.Sizeof(syscallInfo{}); n < 88 {
		t.Errorf("size of syscallInfo = %d, want at least 88", n)
	}
	if n := unsafe.Offsetof(syscallInfo{}.call); n != 24 {
		t.Errorf("offset of call = %d, want 24", n)
	}
}
