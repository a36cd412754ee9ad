package reset

import (
	"context"
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// removeTree deletes a name in an open directory and all below it, of any depth,
// with flags that forbid it lifted; an inode that has other names gets its flags
// back. It follows no symlink, and stops between two deletions when the context
// ends.
func removeTree(ctx context.Context, dir *os.File, name string) error {
	return remover{ctx: ctx}.removeTree(dir, name)
}

// remover deletes whole trees.
type remover struct {
	ctx     context.Context
	deleted func() // called after each name, if set
}

func (r remover) removeTree(dir *os.File, name string) error {
	list := []string{name}
	for i := 0; i < len(list); i++ {
		dirs, err := r.removeEntries(dir, list[i])
		if err != nil {
			return err
		}
		for _, d := range dirs {
			list = append(list, list[i]+"/"+d)
		}
	}
	for _, path := range slices.Backward(list) {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := removeEmptyDir(dir, path); err != nil {
			return err
		}
		r.count()
	}
	return nil
}

func (r remover) count() {
	if r.deleted != nil {
		r.deleted()
	}
}

// countNames counts the names that removeTree would delete, the first one included.
func countNames(ctx context.Context, dir *os.File, name string) (int64, error) {
	count := int64(1)
	for list := []string{name}; len(list) > 0; {
		if err := ctx.Err(); err != nil {
			return count, err
		}
		path := list[len(list)-1]
		list = list[:len(list)-1]
		f, err := openDir(dir, path)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return count, err
		}
		entries, err := f.ReadDir(-1)
		f.Close()
		if err != nil {
			return count, err
		}
		count += int64(len(entries))
		for _, e := range entries {
			if e.IsDir() {
				list = append(list, path+"/"+e.Name())
			}
		}
	}
	return count, nil
}

// removeEntries deletes what lies in a directory but for the directories, which it
// names. A path that is no directory is deleted itself, by removeEmptyDir.
func (r remover) removeEntries(base *os.File, path string) (dirs []string, err error) {
	dir, err := openDir(base, path)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := liftFlags(dir); err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		err := removeName(dir, e.Name(), 0)
		switch {
		case errors.Is(err, unix.EISDIR):
			dirs = append(dirs, e.Name())
		case err != nil:
			return nil, err
		default:
			r.count()
		}
	}
	return dirs, nil
}

// liftFlags clears the flags that forbid changes in a directory; on the stub of a
// subvolume, which has none, it does nothing.
func liftFlags(dir *os.File) error {
	flags, err := btrfs.Flags(dir)
	if err != nil || flags&lockFlags == 0 {
		return ignoreNotSupported(err)
	}
	return btrfs.SetFlags(dir, flags&^lockFlags)
}

func ignoreNotSupported(err error) error {
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func removeEmptyDir(base *os.File, path string) error {
	parent, name := ".", path
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			parent, name = path[:i], path[i+1:]
			break
		}
	}
	dir, err := openDir(base, parent)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = removeName(dir, name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTDIR) {
		return removeName(dir, name, 0)
	}
	return err
}

// removeName unlinks one name, lifting the flags of its inode where they forbid it.
func removeName(dir *os.File, name string, flags int) error {
	err := unix.Unlinkat(int(dir.Fd()), name, flags)
	if errors.Is(err, unix.EPERM) {
		err = removeLocked(dir, name, flags)
	}
	return pathError("delete", name, err)
}

func removeLocked(dir *os.File, name string, how int) error {
	f, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := btrfs.Flags(f)
	if err != nil {
		return err
	}
	if err := btrfs.SetFlags(f, flags&^lockFlags); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, how); err != nil {
		return errors.Join(err, btrfs.SetFlags(f, flags))
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 || st.Mode&modeType == modeDir {
		return err
	}
	return btrfs.SetFlags(f, flags)
}
