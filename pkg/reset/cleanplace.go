package reset

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// PutInPlace makes the new CLEANs what was planned, and CLEAN. Each volume is done
// for itself. When the context ends it stops, with each CLEAN old or new.
func (c *Cleans) PutInPlace(ctx context.Context) error {
	for _, n := range c.Volumes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := n.putInPlace(ctx); err != nil {
			return fmt.Errorf("volume %s: %w", n.Name, explainSpace(err))
		}
	}
	return nil
}

func (n *NewClean) putInPlace(ctx context.Context) error {
	made, err := openDir(n.work.dir, n.made)
	if err != nil {
		return err
	}
	defer made.Close()
	if err := n.apply(ctx, made); err != nil {
		return err
	}
	// This commits: from here on the new CLEAN is on disk, whole.
	err = n.work.step("seal the new CLEAN", func() error { return btrfs.SetReadOnly(made, true) })
	if err != nil {
		return err
	}
	info, err := btrfs.ReadInfo(made)
	if err != nil {
		return err
	}
	if n.Replaces {
		err = n.exchange(info.UUID)
	} else {
		err = n.work.rename(n.made, n.work.plan.Clean)
	}
	if err != nil {
		return err
	}
	n.UUID, n.made = info.UUID.String(), "" // not Close's to drop any more
	return n.work.step("sync", func() error { return btrfs.Sync(n.work.top) })
}

// apply makes what becomes the new CLEAN as planned. A first one is that already, but
// for what is the toolkit's own.
func (n *NewClean) apply(ctx context.Context, made *os.File) error {
	if n.planned == nil {
		return n.work.step("finish", func() error {
			done, err := holdDirs(made)
			if err != nil {
				return err
			}
			return errors.Join(dropOwn(ctx, made), done())
		})
	}
	source, err := openDir(n.work.dir, n.source)
	if err != nil {
		return err
	}
	defer source.Close()
	a := newApplier(made, made, source, n.planned)
	defer a.close()
	if err := n.work.step("apply", a.apply); err != nil {
		return err
	}
	return n.work.step("finish", func() error {
		if err := n.dropBranches(a, source); err != nil {
			return err
		}
		if _, known := a.times[""]; !known {
			if err := a.rememberDir(made, ""); err != nil {
				return err
			}
		}
		if err := dropOwn(ctx, made); err != nil {
			return err
		}
		return a.finishTimes()
	})
}

// dropBranches removes the directories that were made in the place of nested
// subvolumes which kept paths may lie in: as in a snapshot of live, where such a
// stub counts as nothing, CLEAN must not decide about owner and mode there.
func (n *NewClean) dropBranches(a *applier, source *os.File) error {
	info, err := btrfs.ReadInfo(source)
	if err != nil {
		return err
	}
	w := &walker{src: Sources{Live: source}}
	stubs, err := w.subvolumeNames(newTree(source, info.ID))
	if err != nil {
		return err
	}
	for _, path := range stubs {
		state := stateAt(n.rules, path)
		if state.Kept() || !state.MayKeepBelow() {
			continue
		}
		dir, name, err := a.openParent(path)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // what it would lie in was left out
		}
		if err != nil {
			return err
		}
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
		switch {
		case err == nil:
			delete(a.times, path) // what lay in it is gone already
			delete(a.locked, path)
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		case errors.Is(err, unix.ENOTEMPTY): // what was left out stays as it is in CLEAN
		default:
			return &os.PathError{Op: "remove", Path: path, Err: err}
		}
	}
	return nil
}

// dropOwn removes what is the toolkit's own from the root of a subvolume.
func dropOwn(ctx context.Context, root *os.File) error {
	for _, name := range []string{TrashName, ReadyName} {
		var st unix.Stat_t
		err := unix.Fstatat(int(root.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "stat", Path: name, Err: err}
		}
		if err := removeTree(ctx, root, name); err != nil {
			return err
		}
	}
	return nil
}

// exchange puts the new CLEAN in the place of the old one, which takes the new one's
// UUID for its name.
func (n *NewClean) exchange(id btrfs.UUID) error {
	aged := agedPrefix + id.String()
	if err := n.work.rename(n.made, aged); err != nil {
		return err
	}
	n.made = aged
	if err := n.work.exchangeClean(aged); err != nil {
		return err
	}
	n.Old = aged
	return nil
}

// exchangeClean swaps CLEAN and an aged snapshot.
func (v *volume) exchangeClean(aged string) error {
	return v.step("exchange CLEAN", func() error {
		fd := int(v.dir.Fd())
		return pathError("exchange", v.plan.Clean, unix.Renameat2(fd, v.plan.Clean, fd, aged, unix.RENAME_EXCHANGE))
	})
}

// replacedCleans names the aged snapshots that were CLEAN, and stay until a boot has
// reset to the one that took their place: that of CLEAN's UUID, that of its own, and
// so on to the one that the last reset was made to.
func (v *volume) replacedCleans() ([]string, error) {
	clean, err := v.snapshotInfo(v.plan.Clean)
	if err != nil || clean == nil {
		return nil, err
	}
	worked, err := v.workedClean()
	if err != nil {
		return nil, err
	}
	var out []string
	for id := clean.UUID; id.String() != worked; {
		name := agedPrefix + id.String()
		info, err := v.snapshotInfo(name)
		if err != nil {
			return nil, err
		}
		if info == nil || info.UUID == id { // an ordinary one bears its own UUID
			break
		}
		out, id = append(out, name), info.UUID
	}
	return out, nil
}

// workedClean gives the UUID of the CLEAN that the last reset was made to; "" if there
// was none.
func (v *volume) workedClean() (string, error) {
	current, err := v.snapshotInfo(NameCurrent)
	if err != nil || current == nil || !current.ReadOnly {
		return "", err
	}
	record := v.snapshotRecord(NameCurrent)
	if record == nil {
		return "", nil
	}
	return record.CleanUUID, nil
}

// UndoCleans puts back the CLEAN that was there before the newest one, for each of
// the named volumes of a plan; the newest is left to the cleanup. Where the one
// before is gone, since a boot has reset to the newest, that is an error (ENOENT).
// It tells the UUIDs of the CLEANs that are in place then.
func UndoCleans(top *os.File, plan *PlanFile, names []string, options CleanOptions) (map[string]string, error) {
	snapshots, err := openSnapshots(top, plan.Snapshots)
	if err != nil {
		return nil, err
	}
	defer snapshots.Close()
	out := map[string]string{}
	for _, name := range names {
		spec, err := plan.volume(name)
		if err != nil {
			return out, err
		}
		v := &volume{spec: *spec, plan: plan, top: top, trace: options.Trace, clock: &stopwatch{}}
		if out[name], err = v.undoClean(snapshots, options.DryRun); err != nil {
			return out, fmt.Errorf("volume %s: %w", name, err)
		}
	}
	return out, nil
}

func (v *volume) undoClean(snapshots *os.File, dryRun bool) (string, error) {
	var err error
	if v.dir, err = openDir(snapshots, v.spec.Name); err != nil {
		return "", err
	}
	defer v.dir.Close()
	clean, err := v.snapshotInfo(v.plan.Clean)
	if err != nil {
		return "", err
	}
	if clean == nil {
		return "", fmt.Errorf("there is no %s: %w", v.plan.Clean, unix.ENOENT)
	}
	aged := agedPrefix + clean.UUID.String()
	before, err := v.snapshotInfo(aged)
	if err != nil {
		return "", err
	}
	if before == nil || before.UUID == clean.UUID {
		return "", fmt.Errorf("the %s before this one is not there any more: %w", v.plan.Clean, unix.ENOENT)
	}
	if dryRun {
		return before.UUID.String(), nil
	}
	if err := v.exchangeClean(aged); err != nil {
		return "", err
	}
	return before.UUID.String(), v.step("sync", func() error { return btrfs.Sync(v.top) })
}
