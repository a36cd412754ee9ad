package reset

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// How a volume begins: it is checked, what an earlier run left is finished, the rules
// in force are found, and whether there is anything to do; or, in a dry run, its plan.

// begin checks a volume, finishes what an earlier run left, and decides whether
// there is anything to do.
func (v *volume) begin(snapshots *os.File, mode Mode, dryRun bool, mountInfo []byte) error {
	var mounts io.Reader
	if !dryRun {
		mounts = bytes.NewReader(mountInfo)
	}
	if err := v.check(snapshots, mode, mounts); err != nil {
		return err
	}
	if err := v.loadRules(); err != nil {
		return err
	}
	if dryRun {
		if next, err := v.snapshotInfo(NameNext); err != nil || next != nil {
			v.warnf("an earlier run was cut off: the next one finishes it first")
			return err
		}
	} else if err := v.finishEarlier(); err != nil {
		return fmt.Errorf("finish an earlier run: %w", err)
	}
	same, err := v.nothingChanged(mode)
	if err == nil && same {
		v.result.Outcome = OutcomeUnchanged
	}
	if mode.restores() {
		v.warnf("mode %s restores at every boot: set the mode back to %s", mode, ModeReset)
	}
	return err
}

// loadRules decides which rules are in force.
func (v *volume) loadRules() error {
	rules, err := v.spec.Rules()
	if err != nil {
		return err
	}
	last := v.snapshotRecord(NameCurrent)
	if last == nil {
		if last, err = v.liveRecord(); err != nil {
			return err
		}
	}
	var older bool
	v.rules, v.record, older, err = effectiveRules(rules, v.plan.Revision, last)
	if older {
		v.warnf("this generation is older than the one that the last reset knew: what either of them keeps is kept")
	}
	return err
}

// liveRecord reads the record in the live volume, for where there is no CURRENT: the
// run that made the volume was cut off, or had no space left for it. In a volume that
// no run made, it is a record of some other one.
func (v *volume) liveRecord() (*Record, error) {
	live, err := v.openLive()
	if err != nil {
		return nil, err
	}
	defer live.Close()
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{NameNext, NamePrevious, NamePenultimate} {
		old, err := v.snapshotInfo(name)
		if err != nil {
			return nil, err
		}
		if old != nil && old.UUID == info.ParentUUID {
			return readRecordOf(live), nil
		}
	}
	return nil, nil
}

// nothingChanged reports whether the volume is as the last run left it, so that
// there is nothing to do and history must not move.
func (v *volume) nothingChanged(mode Mode) (bool, error) {
	root, err := v.openLive()
	if err != nil {
		return false, err
	}
	defer root.Close()
	live, err := btrfs.ReadInfo(root)
	if err != nil {
		return false, err
	}
	if mode.restores() {
		return v.restoredAlready(root, mode)
	}
	if mode == ModeSnapshotOnly {
		previous, err := v.snapshotInfo(NamePrevious)
		if err != nil || previous != nil && previous.ParentUUID == live.UUID && previous.OTransID == live.Generation {
			return err == nil, err
		}
	}
	clean, err := v.snapshotInfo(v.plan.Clean)
	if err != nil {
		return false, err
	}
	l, err := readLineage(v.dir, live, *clean, v.record.Effective)
	if err != nil {
		return false, err
	}
	defer l.close()
	return l.unchanged(root, live, keep.NewMatcher(v.rules...))
}

// preview makes the plan of a dry run.
func (v *volume) preview(mode Mode) error {
	v.result.Outcome = OutcomePlanned
	if mode != ModeReset {
		return nil
	}
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
	err = v.clock.measure("plan", func() error { return v.makePlan(live, clean, true) })
	if err == nil {
		v.warnMissed(v.planned)
	}
	return err
}

// warnMissed says that a plan of a volume in use may lack something.
func (v *volume) warnMissed(plan *Plan) {
	if plan.missed > 0 {
		v.warnf("%d paths vanished while they were looked at", plan.missed)
	}
}

// restoredAlready reports whether live is what a restore of this very snapshot made,
// and nothing was written to it since.
func (v *volume) restoredAlready(live *os.File, mode Mode) (bool, error) {
	source, err := v.snapshotInfo(mode.restoreSource())
	if err != nil {
		return false, err
	}
	if source == nil {
		return false, fmt.Errorf("there is no %s to restore: %w", mode.restoreSource(), unix.ENOENT)
	}
	record := readRecordOf(live)
	if record == nil || record.Restored != source.UUID.String() {
		return false, nil
	}
	return untouched(live)
}
