package reset

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// Building NEXT: everything up to the one sync before the exchange. Live is only
// read. A failure drops NEXT and leaves the volume as it was.

// build makes NEXT for the mode.
func (v *volume) build(mode Mode) error {
	var err error
	started := false
	v.onSnapshot = func() {
		started = true
		v.start.meet()
	}
	defer func() {
		if !started {
			v.start.leave()
		}
	}()
	switch {
	case mode == ModeReset:
		err = v.buildReset()
	case mode.restores():
		err = v.buildRestore(mode.restoreSource())
	default:
		err = v.buildSnapshot()
	}
	if err == nil {
		return nil
	}
	if dropErr := v.discardNext(); dropErr != nil {
		err = errors.Join(err, fmt.Errorf("drop the half-made state: %w", dropErr))
	}
	return err
}

// explainSpace names the cure where the disk is full or a swap file is in use.
func explainSpace(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w (the disk is full: what is in %s and under %s* is deleted by the cleanup after the boot; "+
			"`btrfs filesystem usage` tells what holds the rest)", err, TrashName, agedPrefix)
	case errors.Is(err, unix.ETXTBSY):
		return fmt.Errorf("%w (a swap file in it is in use: `swapoff` it, and keep swap files in a subvolume that is never reset)", err)
	}
	return err
}

func (v *volume) buildReset() error {
	live, err := v.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	clean, err := openDir(v.dir, v.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	// Live is not in use: reading it and taking the snapshot, which waits for
	// the disk, go on at the same time.
	err = together(
		func() error {
			return v.clock.measure("snapshot", func() error { return v.snapshotNext(live, false) })
		},
		func() error {
			return v.clock.measure("plan", func() error { return v.makePlan(live, clean, false) })
		},
	)
	if err != nil {
		return err
	}
	return v.clock.measure("apply", func() error { return v.applyPlan(live, clean) })
}

func (v *volume) snapshotNext(src *os.File, readOnly bool) error {
	return v.step("snapshot NEXT", func() error {
		v.onSnapshot()
		return btrfs.Snapshot(src, v.dir, NameNext, readOnly)
	})
}

// makePlan compares live with CLEAN, the short way where CURRENT proves it.
func (v *volume) makePlan(live, clean *os.File, inUse bool) error {
	liveInfo, err := btrfs.ReadInfo(live)
	if err != nil {
		return err
	}
	cleanInfo, err := btrfs.ReadInfo(clean)
	if err != nil {
		return err
	}
	l, err := readLineage(v.dir, liveInfo, cleanInfo, v.record.Effective)
	if err != nil {
		return err
	}
	defer l.close()
	v.record.CleanUUID, v.record.CleanGeneration = cleanInfo.UUID.String(), cleanInfo.CTransID
	src := l.sources(live, clean)
	src.InUse = inUse
	v.planned, err = MakePlan(src, keep.NewMatcher(v.rules...))
	return err
}

// applyPlan makes NEXT what the plan says, and writes the record last.
func (v *volume) applyPlan(live, clean *os.File) error {
	next, err := openDir(v.dir, NameNext)
	if err != nil {
		return err
	}
	defer next.Close()
	a := newApplier(next, live, clean, v.planned)
	defer a.close()
	if err := v.step("apply", a.apply); err != nil {
		return err
	}
	v.record.Outside, v.record.Shared = v.planned.outside, v.planned.shared
	if v.record.ReadOnly, err = readOnlyNested(live, v.planned.matcher); err != nil {
		return err
	}
	return v.step("write record", func() error { return a.finish(&v.record) })
}

func newApplier(next, live, clean *os.File, plan *Plan) *applier {
	return &applier{
		next: next, live: live, clean: clean, plan: plan,
		times: map[string]unix.Timespec{}, locked: map[string]uint32{},
		branched: map[string]*trashFolder{},
	}
}

// finish writes the record, puts times and flags back, and makes the record the
// last thing that changed.
func (a *applier) finish(record *Record) error {
	if _, known := a.times[""]; !known {
		if err := a.rememberDir(a.next, ""); err != nil {
			return err
		}
	}
	if err := a.clearRecord(); err != nil {
		return err
	}
	if err := writeRecord(a.next, record, a.made); err != nil {
		return err
	}
	if err := a.finishTimes(); err != nil {
		return err
	}
	return touchRecord(a.next)
}

// clearRecord removes what stands under the record's name, whatever it is.
func (a *applier) clearRecord() error {
	err := unix.Unlinkat(int(a.next.Fd()), ReadyName, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	trash, err := a.openTrash()
	if err != nil {
		return err
	}
	return a.putAway(trash, ReadyName)
}

// buildSnapshot makes NEXT the PREVIOUS that snapshot-only leaves.
func (v *volume) buildSnapshot() error {
	live, err := v.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	return v.clock.measure("snapshot", func() error { return v.snapshotNext(live, true) })
}

// prepareRestore looks at the live volume that a restore will displace, and notes
// what of it moves.
func (v *volume) prepareRestore() (btrfs.Info, error) {
	live, err := v.openLive()
	if err != nil {
		return btrfs.Info{}, err
	}
	defer live.Close()
	if v.record.ReadOnly, err = readOnlyNested(live, keep.NewMatcher(v.rules...)); err != nil {
		return btrfs.Info{}, err
	}
	return btrfs.ReadInfo(live)
}

// buildRestore makes NEXT a writable snapshot of an earlier state.
func (v *volume) buildRestore(name string) error {
	source, err := v.snapshot(name)
	if err != nil {
		return err
	}
	defer source.Close()
	live, err := v.prepareRestore()
	if err != nil {
		return err
	}
	sourceInfo, err := btrfs.ReadInfo(source)
	if err != nil {
		return err
	}
	clean, err := openDir(v.dir, v.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	if err := v.clock.measure("snapshot", func() error { return v.snapshotNext(source, false) }); err != nil {
		return err
	}
	next, err := openDir(v.dir, NameNext)
	if err != nil {
		return err
	}
	defer next.Close()
	v.record.Displaced, v.record.Restored = live.UUID.String(), sourceInfo.UUID.String()
	a := newApplier(next, source, clean, &Plan{matcher: keep.NewMatcher(v.rules...), links: map[string]string{}})
	defer a.close()
	// The record comes first: it is what tells this NEXT from a displaced live.
	if err := v.step("write record", func() error { return a.finish(&v.record) }); err != nil {
		return err
	}
	return v.clock.measure("apply", func() error {
		if err := v.step("restore nested", func() error { return a.restoreNested(source, "") }); err != nil {
			return err
		}
		if err := a.finishTimes(); err != nil {
			return err
		}
		return touchRecord(next)
	})
}

// restoreNested deals with the stubs in a restored tree: a nested subvolume that
// counts as a directory is restored with it; of others the stub goes, or becomes a
// real directory where CLEAN shows one.
func (a *applier) restoreNested(from *os.File, prefix string) error {
	at, err := openDir(a.next, prefix)
	if err != nil {
		return err
	}
	defer at.Close()
	w := &walker{src: Sources{Live: at}, matcher: a.plan.matcher}
	info, err := btrfs.ReadInfo(at)
	if err != nil {
		return err
	}
	stubs, err := w.subvolumeNames(newTree(at, info.ID))
	if err != nil {
		return err
	}
	for _, stub := range stubs {
		if err := a.restoreStub(from, prefix+stub); err != nil {
			return fmt.Errorf("nested subvolume %q: %w", prefix+stub, err)
		}
	}
	return nil
}

func (a *applier) restoreStub(from *os.File, path string) error {
	state := stateAt(a.plan.matcher, path)
	if !state.Kept() && state.MayKeepBelow() {
		nested, err := isNested(from, path)
		if err != nil {
			return err
		}
		if nested {
			if err := a.branch(from, path); err != nil {
				return err
			}
			return a.restoreNested(from, path)
		}
	}
	dir, name, err := a.openParent(path)
	if err != nil {
		return err
	}
	if err := removeStub(dir, name); err != nil {
		return err
	}
	clean, err := openDir(a.clean, path)
	if err != nil || state.Kept() {
		return nil //nolint:nilerr // CLEAN has no directory there
	}
	clean.Close()
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o755); err != nil {
		return &os.PathError{Op: "make directory", Path: path, Err: err}
	}
	return unix.Fchmodat(int(dir.Fd()), name, 0o755, 0)
}

// isNested reports whether a subvolume really lies at a path, and no stub.
func isNested(root *os.File, path string) (bool, error) {
	f, err := openDir(root, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return btrfs.IsSubvolume(f)
}
