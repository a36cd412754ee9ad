package permissions

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrReplaced is a file that is no longer the one of the plan.
var ErrReplaced = errors.New("it was replaced since the plan was made")

// Apply makes the changes of a plan. It goes on after a file that cannot be
// changed and joins the errors; cut off anywhere, a new plan holds what is left.
func Apply(ctx context.Context, tree Tree, changes []Change) error {
	root, err := os.OpenFile(tree.Path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	var errs []error
	for _, change := range changes {
		if err := context.Cause(ctx); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := apply(root, change); err != nil {
			errs = append(errs, &fs.PathError{Op: "setting the owner and mode of", Path: path.Join(tree.Path, change.Path), Err: err})
		}
	}
	return errors.Join(errs...)
}

func apply(root *os.File, c Change) error {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	if c.link {
		// The last component is a symlink itself: only those before it matter,
		// and O_NOFOLLOW takes care of the last.
		how.Resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV
	}
	fd, err := unix.Openat2(int(root.Fd()), c.Path, &how)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone since
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Ino != c.inode || st.Dev != c.device {
		return ErrReplaced
	}
	if c.Owner() {
		if err := unix.Fchownat(fd, "", c.ToUID, c.ToGID, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	// chown takes the set-user-ID bits away, so the mode comes after it.
	if c.Mode() {
		if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), c.ToMode); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	return nil
}
