package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	for _, content := range []string{"first", "second, longer", ""} {
		if err := Write(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("content = %q, %v, want %q", got, err, content)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
			t.Errorf("mode = %v, %v, want 0640", info.Mode(), err)
		}
	}
	alone(t, path)
}

func TestWriteIgnoresTheUmask(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	defer unix.Umask(unix.Umask(0o777))
	if err := Write(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode = %v, %v, want 0644", info.Mode(), err)
	}
}

func TestWriteReplacesASymlink(t *testing.T) {
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(victim, []byte("old"), 0o600), os.Symlink(victim, link)); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "old" {
		t.Errorf("the link's target holds %q, %v, want it untouched", got, err)
	}
	if info, err := os.Lstat(link); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the name is %v, %v, want a regular file", info.Mode(), err)
	}
}

func TestWriteKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 1234, 5678)); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 1234 || owner.Gid != 5678 {
		t.Errorf("owner = %d:%d, want 1234:5678", owner.Uid, owner.Gid)
	}
}

// TestFailureLeavesTheOldFile: the rename cannot succeed over a directory.
func TestFailureLeavesTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600); !errors.Is(err, unix.EISDIR) {
		t.Errorf("Write(over a directory) = %v, want EISDIR", err)
	}
	alone(t, path)
	if err := Write(filepath.Join(path, "no", "x"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write(missing folder) = %v, want fs.ErrNotExist", err)
	}
}

// alone checks that no temporary file stands beside path.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v, want %s alone", entries, err, filepath.Base(path))
	}
}
