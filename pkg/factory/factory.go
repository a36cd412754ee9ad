// Package factory takes the factory state of a volume: CLEAN, the read-only
// snapshot that every reset goes back to.
//
// CLEAN is the live state without what lies at and below kept paths. The reset
// never reads it there, and old password hashes, keys and private files have no
// business in it. What an exclude rule leaves to CLEAN below a kept path stays.
//
// The snapshot is made and thinned out under a name of those that wait for the
// cleanup after the boot, and becomes CLEAN by one rename at the end; so at every
// instant there is the old CLEAN or the new one, and what a cut leaves is cleaned
// up like any aged snapshot. Nothing outside the snapshots subvolume is written.
package factory

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
)

// Result tells what was taken.
type Result struct {
	// Volume is the volume's name.
	Volume string `json:"volume"`
	// LeftOut is how many top-most kept paths were left out of CLEAN.
	LeftOut int `json:"leftOut"`
	// Replaced says that there was a CLEAN before.
	Replaced bool `json:"replaced"`
}

// Take makes CLEAN of one volume. top is the open top level (subvolid=5) of the
// file system.
func Take(ctx context.Context, top *os.File, plan *reset.PlanFile, volume reset.PlanFileVolume) (Result, error) {
	result, err := take(ctx, top, plan, volume)
	if err != nil {
		return Result{}, fmt.Errorf("the factory state of volume %s: %w", volume.Name, err)
	}
	return result, nil
}

func take(ctx context.Context, top *os.File, plan *reset.PlanFile, volume reset.PlanFileVolume) (_ Result, err error) {
	rules, err := volume.Rules()
	if err != nil {
		return Result{}, err
	}
	live, err := openSubvolume(top, volume.Name)
	if err != nil {
		return Result{}, err
	}
	defer live.Close()
	dir, err := volumeFolder(top, plan.Snapshots, volume.Name)
	if err != nil {
		return Result{}, err
	}
	defer dir.Close()
	old, err := openSubvolume(dir, plan.Clean)
	replaces := err == nil
	if replaces {
		old.Close()
	} else if !errors.Is(err, unix.ENOENT) {
		return Result{}, err
	}
	working := temporaryName()
	if err := btrfs.Snapshot(live, dir, working, false); err != nil {
		return Result{}, err
	}
	renamed := false
	defer func() {
		if !renamed {
			err = errors.Join(err, btrfs.Destroy(dir, working))
		}
	}()
	leftOut, err := finish(ctx, dir, working, keep.NewMatcher(rules))
	if err != nil {
		return Result{}, err
	}
	if err := become(dir, working, plan.Clean, replaces); err != nil {
		return Result{}, err
	}
	renamed = true
	return Result{Volume: volume.Name, LeftOut: leftOut, Replaced: replaces}, btrfs.Sync(top)
}

// finish thins a snapshot out and makes it read-only.
func finish(ctx context.Context, dir *os.File, name string, matcher *keep.Matcher) (leftOut int, err error) {
	snapshot, err := openSubvolume(dir, name)
	if err != nil {
		return 0, err
	}
	defer snapshot.Close()
	p := pruner{ctx: ctx}
	if err := p.volume(snapshot, matcher.Root()); err != nil {
		return 0, err
	}
	return p.leftOut, btrfs.SetReadOnly(snapshot, true)
}

// become gives a finished snapshot its name; an old CLEAN gets the working name
// in exchange, under which the cleanup destroys it.
func become(dir *os.File, working, clean string, replaces bool) error {
	how := uint(unix.RENAME_NOREPLACE)
	if replaces {
		how = unix.RENAME_EXCHANGE
	}
	if err := unix.Renameat2(int(dir.Fd()), working, int(dir.Fd()), clean, how); err != nil {
		return &os.LinkError{Op: "rename", Old: path.Join(dir.Name(), working), New: clean, Err: err}
	}
	return nil
}

// temporaryName is a name that the cleanup after the boot takes for a snapshot
// that was rotated out.
func temporaryName() string { return "AGED-" + rand.Text() }

// volumeFolder opens the folder of a volume's snapshots, made where it is
// missing. The snapshots subvolume is closed to everybody but root: old states
// hold old permissions and setuid programs.
func volumeFolder(top *os.File, snapshots, volume string) (*os.File, error) {
	all, err := openSubvolume(top, snapshots)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err := all.Chmod(0o700); err != nil {
		return nil, err
	}
	err = unix.Mkdirat(int(all.Fd()), volume, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "mkdir", Path: path.Join(all.Name(), volume), Err: err}
	}
	return openDir(all, volume)
}

// openDir opens a directory below another; no symlink is followed.
func openDir(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), path.Join(dir.Name(), name)), nil
}

// openSubvolume is openDir for what has to be a subvolume.
func openSubvolume(dir *os.File, name string) (*os.File, error) {
	f, err := openDir(dir, name)
	if err != nil {
		return nil, err
	}
	is, err := btrfs.IsSubvolume(f)
	if err == nil && !is {
		err = fmt.Errorf("%s is a plain directory, not a subvolume: move it away", f.Name())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
