package reset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// CleanupOptions says how a cleanup goes about its work.
type CleanupOptions struct {
	// Trace is called right before and after each change to the disk.
	Trace func(Step)
}

// Cleanup does after the boot what would have kept it waiting: it makes PREVIOUS,
// PENULTIMATE and REPLACED read-only, destroys the snapshots that were rotated out,
// and empties the trash of the live volumes. Cut off anywhere, it goes on from
// there when it runs again. It does not run beside a reset: both take the lock.
//
// Volumes are independent; the errors of all are joined.
func Cleanup(ctx context.Context, top *os.File, plan *PlanFile, options CleanupOptions) error {
	snapshots, err := openSnapshots(top, plan.Snapshots)
	if err != nil {
		return err
	}
	defer snapshots.Close()
	var errs []error
	for _, spec := range plan.Volumes {
		v := &volume{spec: spec, plan: plan, top: top, trace: options.Trace, clock: &stopwatch{}}
		if err := v.cleanup(ctx, snapshots); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", spec.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (v *volume) cleanup(ctx context.Context, snapshots *os.File) error {
	var err error
	if v.dir, err = openDir(snapshots, v.spec.Name); err != nil {
		return err
	}
	defer v.dir.Close()
	names, err := listSnapshots(v.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	// What one step cannot do is no reason to leave the rest: on a full disk, it is
	// this work that makes room.
	errs := []error{v.sealHistory()}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if IsAged(name) {
			errs = append(errs, v.destroyAged(name))
		}
	}
	return errors.Join(append(errs, v.emptyTrash(ctx))...)
}

// destroyAged destroys a snapshot that was rotated out, if it is one.
func (v *volume) destroyAged(name string) error {
	f, err := openDir(v.dir, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	is, err := btrfs.IsSubvolume(f)
	f.Close()
	if err != nil || !is {
		return errors.Join(fmt.Errorf("%s is a plain directory, not a subvolume: move it away", name), err)
	}
	return v.step("destroy AGED", func() error { return destroyTree(v.dir, name) })
}

// sealHistory sets the read-only flags that the reset left, since each costs a
// commit. The nested subvolumes of a snapshot keep their own.
func (v *volume) sealHistory() error {
	var errs []error
	for _, name := range []string{NamePrevious, NamePenultimate, NameReplaced} {
		errs = append(errs, v.seal(name))
	}
	return errors.Join(errs...)
}

func (v *volume) seal(name string) error {
	f, err := v.snapshot(name)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	return v.step("seal "+name, func() error { return btrfs.SetReadOnly(f, true) })
}

// emptyTrash deletes the trash folder of the live volume, and puts back the time of
// the volume's root.
func (v *volume) emptyTrash(ctx context.Context) error {
	live, err := v.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	var st unix.Stat_t
	err = unix.Fstatat(int(live.Fd()), TrashName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: TrashName, Err: err}
	}
	return v.step("empty trash", func() error {
		done, err := holdDirs(live)
		if err != nil {
			return err
		}
		return errors.Join(removeTree(ctx, live, TrashName), done())
	})
}

// TakeClean takes the first CLEAN of a volume from its live state: a read-only
// snapshot, which the kernel makes whole or not at all. It refuses where there is
// one already (EEXIST).
func TakeClean(top *os.File, plan *PlanFile, name string, options CleanupOptions) error {
	snapshots, err := openSnapshots(top, plan.Snapshots)
	if err != nil {
		return err
	}
	defer snapshots.Close()
	v := &volume{spec: PlanFileVolume{Name: name}, plan: plan, top: top, trace: options.Trace, clock: &stopwatch{}}
	live, err := v.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	if is, err := btrfs.IsSubvolume(live); err != nil || !is {
		return errors.Join(fmt.Errorf("%q is a plain directory, not a subvolume", name), err)
	}
	err = unix.Mkdirat(int(snapshots.Fd()), name, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "make directory", Path: name, Err: err}
	}
	if v.dir, err = openDir(snapshots, name); err != nil {
		return err
	}
	defer v.dir.Close()
	// A snapshot is on disk, whole, when the call returns, and not there before.
	return v.step("snapshot "+plan.Clean, func() error { return btrfs.Snapshot(live, v.dir, plan.Clean, true) })
}
