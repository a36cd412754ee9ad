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
	// DryRun changes nothing; Freed is told what would be deleted.
	DryRun bool
	// Trace is called right before and after each change to the disk.
	Trace func(Step)
	// Freed is called after each thing that was deleted, or had to stay.
	Freed func(Freed)
	// Deleted is called after each name that was deleted in the trash.
	Deleted func()
}

// Freed is something that a cleanup dealt with.
type Freed struct {
	Volume string
	Kind   FreedKind
	Name   string // of a snapshot
	ID     uint64 // tree id of a snapshot
	Names  int64  // of the trash: how many files, directories and links
}

// FreedKind says what a cleanup did about something.
type FreedKind string

// The kinds.
const (
	FreedSnapshot FreedKind = "snapshot" // destroyed, since it was rotated out
	FreedTrash    FreedKind = "trash"    // what the last reset moved out of the way, deleted
	FreedSealed   FreedKind = "sealed"   // made read-only
	FreedKept     FreedKind = "kept"     // a CLEAN that was replaced, until a boot has reset to the new one
)

// Cleanup does after the boot what would have kept it waiting: it makes PREVIOUS,
// PENULTIMATE and REPLACED read-only, destroys the snapshots that were rotated out,
// and empties the trash of the live volumes. Cut off anywhere, it goes on from
// there when it runs again; when the context ends it stops between two deletions. It
// does not run beside a reset: both take the lock.
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
		if err := v.cleanup(ctx, snapshots, options); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", spec.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (v *volume) cleanup(ctx context.Context, snapshots *os.File, options CleanupOptions) error {
	var err error
	c := &cleaner{volume: v, ctx: ctx, options: options}
	v.dir, err = openDir(snapshots, v.spec.Name)
	if errors.Is(err, unix.ENOENT) {
		return c.emptyTrash() // no snapshot was ever taken of it
	}
	if err != nil {
		return err
	}
	defer v.dir.Close()
	// What one step cannot do is no reason to leave the rest: on a full disk, it is
	// this work that makes room.
	return errors.Join(c.sealHistory(), c.destroyAll(), c.emptyTrash())
}

// cleaner cleans up one volume.
type cleaner struct {
	*volume

	ctx     context.Context
	options CleanupOptions
}

func (c *cleaner) freed(f Freed) {
	f.Volume = c.spec.Name
	if c.options.Freed != nil {
		c.options.Freed(f)
	}
}

// destroyAll destroys the snapshots that were rotated out.
func (c *cleaner) destroyAll() error {
	names, err := listSnapshots(c.dir)
	if err != nil {
		return err
	}
	kept, err := c.replacedCleans()
	if err != nil {
		return err
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if IsAged(name) {
			errs = append(errs, c.destroyAged(name, slices.Contains(kept, name)))
		}
	}
	return errors.Join(errs...)
}

// destroyAged destroys a snapshot that was rotated out, if it is one.
func (c *cleaner) destroyAged(name string, keep bool) error {
	f, err := openDir(c.dir, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	is, err := btrfs.IsSubvolume(f)
	var info btrfs.Info
	if err == nil && is {
		info, err = btrfs.ReadInfo(f)
	}
	f.Close()
	if err != nil || !is {
		return errors.Join(fmt.Errorf("%s is a plain directory, not a subvolume: move it away", name), err)
	}
	if keep {
		c.freed(Freed{Kind: FreedKept, Name: name, ID: info.ID})
		return nil
	}
	if !c.options.DryRun {
		err = c.step("destroy AGED", func() error { return destroyTree(c.dir, name) })
	}
	if err == nil {
		c.freed(Freed{Kind: FreedSnapshot, Name: name, ID: info.ID})
	}
	return err
}

// sealHistory sets the read-only flags that the reset left, since each costs a
// commit. The nested subvolumes of a snapshot keep their own.
func (c *cleaner) sealHistory() error {
	var errs []error
	for _, name := range []string{NamePrevious, NamePenultimate, NameReplaced} {
		errs = append(errs, c.seal(name))
	}
	return errors.Join(errs...)
}

func (c *cleaner) seal(name string) error {
	f, err := c.snapshot(name)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	sealed, err := btrfs.ReadOnly(f)
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	if !c.options.DryRun {
		err = c.step("seal "+name, func() error { return btrfs.SetReadOnly(f, true) })
	}
	if err == nil && !sealed {
		c.freed(Freed{Kind: FreedSealed, Name: name})
	}
	return err
}

// emptyTrash deletes the trash folder of the live volume, and puts back the time of
// the volume's root.
func (c *cleaner) emptyTrash() error {
	live, err := c.openLive()
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
	var names int64
	if c.options.DryRun {
		names, err = countNames(c.ctx, live, TrashName)
	} else {
		err = c.step("empty trash", func() error {
			done, err := holdDirs(live)
			if err != nil {
				return err
			}
			err = removeCounted(c.ctx, live, TrashName, func() {
				names++
				if c.options.Deleted != nil {
					c.options.Deleted()
				}
			})
			return errors.Join(err, done())
		})
	}
	if names > 1 || err == nil { // what was deleted is told, also when the rest has to wait
		c.freed(Freed{Kind: FreedTrash, Names: max(names-1, 0)}) // the folder itself is none of them
	}
	return err
}
