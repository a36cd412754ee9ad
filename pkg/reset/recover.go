package reset

import (
	"fmt"
	"os"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// finishEarlier brings what an earlier run left undone to a state that it could
// have reached by itself. NEXT exists only while a run works, or after one was cut
// off; what it is follows from the UUIDs:
//
//	live is a snapshot of NEXT          a reset was cut off after the exchange
//	live's record displaces NEXT        a restore was cut off after the exchange
//	NEXT is a snapshot of live          before it; read-only: by snapshot-only
//	NEXT's record displaces live        a restore before the exchange
//	NEXT is a newer one of its source   the same, before the record was written
//
// Anything else under that name is not of these runs and is put aside.
func (v *volume) finishEarlier() error {
	next, err := v.snapshotInfo(NameNext)
	if err != nil {
		return err
	}
	live, err := v.liveInfo()
	if err != nil {
		return err
	}
	if next == nil {
		return v.finishCurrent(live)
	}
	liveRoot, err := v.openLive()
	if err != nil {
		return err
	}
	defer liveRoot.Close()
	liveRecord := readRecordOf(liveRoot)
	nextRecord := v.snapshotRecord(NameNext)
	switch {
	case live.ParentUUID == next.UUID:
		v.warnf("an earlier reset was cut off after the exchange: finished it")
		return v.finishExchange(liveRoot, liveRecord, v.finishReset)
	case liveRecord != nil && liveRecord.Displaced == next.UUID.String():
		v.warnf("an earlier restore was cut off after the exchange: finished it")
		return v.finishExchange(liveRoot, liveRecord, v.putAside)
	case next.ParentUUID == live.UUID && next.ReadOnly:
		v.warnf("an earlier snapshot was cut off: finished it")
		return v.keepSnapshot()
	case next.ParentUUID == live.UUID,
		nextRecord != nil && nextRecord.Displaced == live.UUID.String(),
		v.isNewRestore(next, live):
		v.warnf("an earlier run was cut off before the exchange: dropped its half-made state")
		return v.discardNext()
	}
	v.warnf("%s/%s is not of this toolkit's making: it is %s now", v.spec.Name, NameNext, NameReplaced)
	return v.putAside()
}

// isNewRestore reports whether NEXT is what a restore was making: a snapshot of what
// it puts back, and newer than live. A live state that a restore displaced may come
// from the same snapshot, but then what took its place is the newer one.
func (v *volume) isNewRestore(next *btrfs.Info, live btrfs.Info) bool {
	if next.OTransID <= live.OTransID {
		return false
	}
	for _, name := range []string{NamePrevious, NamePenultimate} {
		source, err := v.snapshotInfo(name)
		if err == nil && source != nil && source.UUID == next.ParentUUID {
			return true
		}
	}
	return false
}

// finishExchange does what comes after the exchange: the moves that are still to be
// made, then the rotation.
func (v *volume) finishExchange(live *os.File, record *Record, rotate func() error) error {
	m, err := v.recordMatcher(record)
	if err != nil {
		return err
	}
	if err := v.moveNested(live, m); err != nil {
		return err
	}
	if err := rotate(); err != nil {
		return err
	}
	if err := v.step("sync", func() error { return btrfs.Sync(v.top) }); err != nil {
		return err
	}
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		return err
	}
	return v.finishCurrent(info)
}

// confirmNewState reports whether a volume is what a reset by these rules makes of
// it. If so its record is written anew: things may have been replaced by others of
// the same kind, content and time since, and the shortcut has to know their inodes.
func (v *volume) confirmNewState(live *os.File, record *Record, m *keep.Matcher) (bool, error) {
	clean, err := openDir(v.dir, v.plan.Clean)
	if err != nil {
		return false, err
	}
	defer clean.Close()
	p, err := MakePlan(Sources{Live: live, Clean: clean, Outside: record.Outside}, m)
	if err != nil || len(p.Changes)+len(p.stubs) > 0 {
		return false, err
	}
	record.Outside, record.Shared = p.outside, p.shared
	return true, v.step("renew record", func() error { return replaceRecord(live, record) })
}

// recordMatcher gives the rules that the cut-off run worked by; without a record,
// those of now.
func (v *volume) recordMatcher(record *Record) (*keep.Matcher, error) {
	if record == nil {
		return keep.NewMatcher(v.rules...), nil
	}
	var sets []keep.Set
	for _, r := range record.Effective {
		s, err := r.parse()
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	return keep.NewMatcher(sets...), nil
}

// moveNested moves the nested subvolumes from NEXT, the old state, to live.
func (v *volume) moveNested(live *os.File, m *keep.Matcher) error {
	old, err := v.snapshot(NameNext)
	if err != nil || old == nil {
		return err
	}
	defer old.Close()
	record := readRecordOf(live)
	var readOnly []uint64
	if record != nil {
		readOnly = record.ReadOnly
	}
	mover := &mover{
		v: v, old: old, new: live, matcher: m, readOnly: readOnly,
		restoring: record != nil && record.Displaced != "",
	}
	if err := mover.finishNoted(); err != nil {
		return err
	}
	nested, err := nestedSubvolumes(old, m)
	if err != nil || len(nested)+len(readOnly) == 0 {
		return err
	}
	if err := mover.run(); err != nil {
		return fmt.Errorf("nested subvolumes stay in %s until the next run: %w", NameNext, err)
	}
	return nil
}

// finishReset puts the old state into history.
func (v *volume) finishReset() error {
	if err := v.rotate(); err != nil {
		return err
	}
	return v.rename(NameNext, NamePrevious)
}

// putAside makes what a restore displaced REPLACED.
func (v *volume) putAside() error {
	if err := v.age(NameReplaced); err != nil {
		return err
	}
	return v.rename(NameNext, NameReplaced)
}

// keepSnapshot makes NEXT, a read-only snapshot of live, PREVIOUS.
func (v *volume) keepSnapshot() error {
	previous, err := v.snapshotInfo(NamePrevious)
	if err != nil {
		return err
	}
	penultimate, err := v.snapshotInfo(NamePenultimate)
	if err != nil {
		return err
	}
	if previous == nil && penultimate == nil {
		if err := v.cleanAsPenultimate(); err != nil {
			return err
		}
	}
	return v.finishReset()
}

// finishCurrent takes the CURRENT that a reset was cut off from taking, if the live
// volume is still what that reset made: the record was its last change, PREVIOUS is
// what it was made from, and a full comparison finds nothing. Otherwise the next
// reset compares in full, which is slower and as right.
func (v *volume) finishCurrent(live btrfs.Info) error {
	previous, err := v.snapshotInfo(NamePrevious)
	if err != nil || previous == nil || previous.UUID != live.ParentUUID {
		return err
	}
	current, err := v.snapshotInfo(NameCurrent)
	if err != nil {
		return err
	}
	if current != nil && current.ParentUUID == live.UUID {
		return v.finishPenultimate()
	}
	root, err := v.openLive()
	if err != nil {
		return err
	}
	defer root.Close()
	record := readRecordOf(root)
	fresh, err := untouched(root)
	if err != nil || !fresh || record == nil || record.Displaced != "" {
		return err
	}
	m, err := v.recordMatcher(record)
	if err != nil {
		return err
	}
	same, err := v.confirmNewState(root, record, m)
	if err != nil || !same {
		return err
	}
	v.warnf("an earlier reset was cut off before its last snapshot: took it")
	return v.takeCurrent()
}

// finishPenultimate takes the PENULTIMATE that a first boot was cut off from
// taking: it is taken at the same time as CURRENT, and either may be first.
func (v *volume) finishPenultimate() error {
	penultimate, err := v.snapshotInfo(NamePenultimate)
	if err != nil || penultimate != nil {
		return err
	}
	v.warnf("an earlier reset was cut off before its last snapshot: took it")
	return v.cleanAsPenultimate()
}
