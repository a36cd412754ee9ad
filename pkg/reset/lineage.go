package reset

import (
	"os"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// lineage is what CURRENT proves of a live volume.
type lineage struct {
	current *os.File // open; nil if it proves nothing
	info    btrfs.Info
	record  *Record
	// sameState says that CURRENT was made by a reset to this very CLEAN under
	// these very rules: then live can differ from the new state only where it
	// differs from CURRENT.
	sameState bool
}

func (l *lineage) close() {
	if l.current != nil {
		l.current.Close()
	}
}

// readLineage looks whether CURRENT is a finished, unmodified snapshot of this very
// live subvolume, and whether it was made from this CLEAN under these rules.
func readLineage(snapshots *os.File, live, clean btrfs.Info, effective []RuleSet) (*lineage, error) {
	l := &lineage{}
	f, err := openDir(snapshots, NameCurrent)
	if err != nil {
		return l, nil //nolint:nilerr // no CURRENT proves nothing; what else is wrong with it was checked
	}
	if l.info, err = btrfs.ReadInfo(f); err != nil {
		f.Close()
		return nil, err
	}
	record := readRecordOf(f)
	if record == nil || !l.info.ReadOnly || l.info.ParentUUID != live.UUID || l.info.CTransID > l.info.OTransID {
		f.Close()
		return l, nil
	}
	// A snapshot that somebody took later holds that record too.
	if last, err := recordChanged(f, l.info, l.info.CTransID); err != nil || !last {
		f.Close()
		return l, err
	}
	l.current, l.record = f, record
	l.sameState = record.Displaced == "" &&
		record.CleanUUID == clean.UUID.String() && record.CleanGeneration == clean.CTransID &&
		equalRuleSets(record.Effective, effective)
	return l, nil
}

// sources gives the trees that a plan for the live volume is made from.
func (l *lineage) sources(live, clean *os.File) Sources {
	src := Sources{Live: live, Clean: clean}
	if l.current == nil {
		return src
	}
	src.NoStubs, src.Since = true, l.info.OTransID
	if l.sameState {
		src.Current, src.Outside, src.Shared = l.current, l.record.Outside, l.record.Shared
	}
	return src
}

// unchanged reports whether nothing was written to the live volume since CURRENT,
// nor to a nested subvolume of it that holds kept paths.
func (l *lineage) unchanged(live *os.File, info btrfs.Info, m *keep.Matcher) (bool, error) {
	if l.current == nil || !l.sameState || info.Generation != l.info.OTransID {
		return false, nil
	}
	return branchesUnchanged(live, info.ID, "", m, l.info.OTransID)
}

// branchesUnchanged looks at the generation of each nested subvolume that may hold
// kept paths and is not kept itself.
func branchesUnchanged(live *os.File, id uint64, prefix string, m *keep.Matcher, since uint64) (bool, error) {
	children, err := btrfs.Children(live, id)
	if err != nil {
		return false, err
	}
	for _, c := range children {
		t := newTree(live, id)
		dir, err := t.path(c.DirID)
		if err != nil {
			return false, err
		}
		path := prefix + dir + "/" + c.Name
		state := stateAt(m, path)
		if state.Kept() || !state.MayKeepBelow() {
			continue
		}
		generation, err := btrfs.Generation(live, c.ID)
		if err != nil || generation > since {
			return false, err
		}
		same, err := branchesUnchanged(live, c.ID, path, m, since)
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}
