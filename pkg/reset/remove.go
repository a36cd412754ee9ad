package reset

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// removeTree deletes a name in an open directory and all below it, with flags that
// forbid it lifted; an inode that has other names gets its flags back. It follows no
// symlink, and stops between two deletions when the context ends.
//
// Users decide how deep a tree is and how long its names are. What lies deeper than
// a few levels is moved up before it is deleted, so that neither paths nor open files
// nor the work for one directory grow with the depth.
func removeTree(ctx context.Context, dir *os.File, name string) error {
	return removeCounted(ctx, dir, name, func() {})
}

// removeCounted is removeTree, and calls a function after each name that was deleted.
func removeCounted(ctx context.Context, dir *os.File, name string, deleted func()) error {
	top, err := openDir(dir, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return counted(removeName(dir, name, 0), deleted)
	}
	if err != nil {
		return err
	}
	defer top.Close()
	r := &remover{ctx: ctx, top: top, deleted: deleted}
	if err := r.empty(top, 0); err != nil {
		return err
	}
	return counted(removeName(dir, name, unix.AT_REMOVEDIR), deleted)
}

// counted passes an error on, and counts where there is none.
func counted(err error, deleted func()) error {
	if err == nil {
		deleted()
	}
	return err
}

// remover empties a directory.
type remover struct {
	ctx     context.Context
	top     *os.File
	deleted func()
}

const (
	removeLevels = 32   // of directories that are open at a time
	removeBatch  = 1024 // names that are in memory at a time, of each of them
)

// empty deletes all that is in a directory. What was moved up into it meanwhile, it
// finds by looking again.
func (r *remover) empty(dir *os.File, level int) error {
	if err := liftFlags(dir); err != nil {
		return err
	}
	for found := true; found; {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		found = false
		for {
			names, err := dir.Readdirnames(removeBatch)
			if len(names) == 0 && errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			found = true
			for _, name := range names {
				if err := r.remove(dir, name, level); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// remove deletes one entry of a directory.
func (r *remover) remove(dir *os.File, name string, level int) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	err := removeName(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) {
		return counted(err, r.deleted)
	}
	err = removeName(dir, name, unix.AT_REMOVEDIR)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return counted(err, r.deleted)
	}
	sub, err := openDir(dir, name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if level >= removeLevels {
		err := r.moveUp(dir, name, sub)
		if !errors.Is(err, unix.EXDEV) { // out of another subvolume nothing moves
			return err
		}
	}
	if err := r.empty(sub, level+1); err != nil {
		return err
	}
	return counted(removeName(dir, name, unix.AT_REMOVEDIR), r.deleted)
}

// moveUp moves a directory to the top, where its turn comes.
func (r *remover) moveUp(dir *os.File, name string, sub *os.File) error {
	to, err := temporaryName()
	if err != nil {
		return err
	}
	if err := liftFlags(sub); err != nil {
		return err
	}
	err = unix.Renameat2(int(dir.Fd()), name, int(r.top.Fd()), to, unix.RENAME_NOREPLACE)
	return pathError("move up", name, err)
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
