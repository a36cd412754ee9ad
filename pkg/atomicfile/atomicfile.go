// Package atomicfile replaces files so that a reader, and a machine that loses
// power, sees the old content or the new one, never a mixture and never an
// empty file.
//
// The new content goes to a temporary file in the same directory, is synced,
// gets its owner and mode, and is renamed over the name; then the directory is
// synced. A symlink under that name is replaced, not followed. An existing
// regular file's owner is kept, since the tools run as root on files that may
// be an admin's.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write replaces the file at path. Only the permission bits of perm count; the
// umask does not.
func Write(path string, data []byte, perm fs.FileMode) error {
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return WriteAt(dir, filepath.Base(path), data, perm)
}

// WriteAt is [Write] for a name in an open directory, for callers that must
// not look the directory up again.
func WriteAt(dir *os.File, name string, data []byte, perm fs.FileMode) (err error) {
	temporary := "." + name + "." + rand.Text()[:8]
	shown := filepath.Join(dir.Name(), name)
	fd, err := unix.Openat(int(dir.Fd()), temporary,
		unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create beside", Path: shown, Err: err}
	}
	f := os.NewFile(uintptr(fd), shown)
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(int(dir.Fd()), temporary, 0)
		}
	}()
	err = errors.Join(fill(dir, f, name, data, perm), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", shown, err)
	}
	if err = unix.Renameat(int(dir.Fd()), temporary, int(dir.Fd()), name); err != nil {
		return &fs.PathError{Op: "rename over", Path: shown, Err: err}
	}
	if err = dir.Sync(); err != nil {
		return fmt.Errorf("syncing the directory of %s: %w", shown, err)
	}
	return nil
}

// fill writes the content and brings it to disk with its owner and mode.
func fill(dir, f *os.File, name string, data []byte, perm fs.FileMode) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	var old unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &old, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && old.Mode&unix.S_IFMT == unix.S_IFREG && os.Geteuid() == 0 {
		if err := f.Chown(int(old.Uid), int(old.Gid)); err != nil {
			return err
		}
	}
	if err := f.Chmod(perm.Perm()); err != nil {
		return err
	}
	return f.Sync()
}
