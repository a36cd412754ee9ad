package settings

import (
	"fmt"
	"io/fs"
	"path"
	"syscall"

	"nixos-go/pkg/run"
)

// WriteSecret writes a secret to a file of mode 0600 in a folder of mode 0700,
// both root's, and makes the folder where it is missing. A folder that belongs
// to somebody else is refused: its owner could put another file in the place.
func WriteSecret(files run.Files, name string, secret []byte) error {
	dir := path.Dir(name)
	if err := files.MkdirAll(path.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := files.Stat(dir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
		return fmt.Errorf("the folder of secrets %s belongs to user %d: it must be root's: %w", files.Path(dir), stat.Uid, fs.ErrPermission)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the folder of secrets %s has mode %04o: it must be 0700: %w", files.Path(dir), info.Mode().Perm(), fs.ErrPermission)
	}
	return files.WriteFile(name, secret, 0o600)
}
