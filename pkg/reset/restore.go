package reset

import (
	"cmp"
	"fmt"
	"os"

	"nixos-go/pkg/btrfs"
)

// A restore brings paths of a snapshot back into a live volume that is mounted and in
// use, "exactly" in the sense of DESIGN section 4. What only live has stays. It is
// planned from both trees, as a reset is, and applied in three steps: everything is
// made in a staging folder that only root looks into, synced, and then renamed into
// place, one top-most path at a time. So there is never a half file under a name, and
// a restore that was cut off is finished by the same restore again.

// RestoreAction says what a restore does about a path.
type RestoreAction string

// The actions.
const (
	RestoreCreate   RestoreAction = "create"   // live has nothing there
	RestoreReplace  RestoreAction = "replace"  // live has something else there: needs force
	RestoreMetadata RestoreAction = "metadata" // a directory with other owner, mode …: needs force
	RestoreFlags    RestoreAction = "flags"    // only flags that forbid changes are missing
	RestoreSkip     RestoreAction = "skip"     // the stub of a nested subvolume, which no snapshot holds
)

// RestoreItem is a top-most path that a restore deals with. One that is created stands
// for all below it.
type RestoreItem struct {
	Path   string
	Action RestoreAction
	// OnTheWay says that a directory is created only to hold paths that are restored.
	OnTheWay bool
	Mode     uint32 // st_mode in the snapshot
	Size     uint64 // bytes of the files that are created, or replace others
	Names    int64  // how many names that are
	Fields   Fields // what differs, for replace and metadata
	// LiveMode and LiveSize are of what is replaced.
	LiveMode uint32
	LiveSize uint64

	sel     *selection // below a directory that is created; nil is everything
	subvol  string     // the nested subvolume of live that it goes to; "" is the volume
	dirMade bool       // the time of the directory that holds it was the snapshot's, and stays
}

// Conflict reports whether the item overwrites what live has.
func (i *RestoreItem) Conflict() bool {
	return i.Action == RestoreReplace || i.Action == RestoreMetadata && i.Fields&^FieldMTime != 0
}

// Restore is the plan of a restore in one volume.
type Restore struct {
	Items []RestoreItem // in the order of their paths
	// Same is how many names live has exactly as the snapshot.
	Same int64
	// LiveOnly are top-most paths in restored directories that only live has, and that
	// stay.
	LiveOnly []string

	live, source *os.File
	links        map[string]restoreLink // names that are not made but linked
	subvols      map[string]bool        // the subvolumes of live that were come across
}

// Conflicts reports whether the restore would overwrite something.
func (r *Restore) Conflicts() bool {
	for i := range r.Items {
		if r.Items[i].Conflict() {
			return true
		}
	}
	return false
}

// NotInSnapshotError says that a path to restore is not in the snapshot.
type NotInSnapshotError struct {
	Path     string
	At       string // the first path on the way that is not there, or no directory
	Mode     uint32 // st_mode of what is there; 0 for nothing
	Snapshot string // its name, where known
}

// Error names the path.
func (e *NotInSnapshotError) Error() string {
	snapshot := cmp.Or(e.Snapshot, "the snapshot")
	switch {
	case e.Mode == 0:
		return fmt.Sprintf("%q is not in %s", e.Path, snapshot)
	case e.Mode&modeType == modeDir:
		return fmt.Sprintf("%q was a nested subvolume, which %s does not hold", e.At, snapshot)
	}
	return fmt.Sprintf("%q is a %s in %s: nothing is below it", e.At, TypeName(e.Mode), snapshot)
}

// BlockedError says that something in the live volume must be dealt with before a
// path can be restored, by force or not.
type BlockedError struct {
	Path string
	Why  string
}

// Error names the path and the cure.
func (e *BlockedError) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Why) }

// PlanRestore compares paths of a snapshot with the live volume. live is the open root
// of the mounted volume, source that of the snapshot; both stay the caller's until the
// plan is applied. Paths begin at the volume's root. It writes nothing but what it
// commits.
func PlanRestore(live, source *os.File, paths []string) (*Restore, error) {
	root, err := selectPaths(paths)
	if err != nil {
		return nil, err
	}
	if err := btrfs.Sync(live); err != nil { // what is in memory is not in the trees
		return nil, err
	}
	p := &restorePlanner{
		plan:   &Restore{live: live, source: source, links: map[string]restoreLink{}, subvols: map[string]bool{"": true}},
		groups: map[restoreKey]*restoreGroup{}, sized: map[liveInode]bool{},
	}
	if p.live, err = newRestoreTree(live); err != nil {
		return nil, err
	}
	if p.source, err = newRestoreTree(source); err != nil {
		return nil, err
	}
	top := restoreAt{
		sel:     root,
		source:  p.source.at(rootInode),
		live:    p.live.at(rootInode),
		subvol:  "",
		liveDir: place{p.live.tree, rootInode},
	}
	if err := p.children(top); err != nil {
		return nil, err
	}
	if err := p.link(); err != nil {
		return nil, err
	}
	sortBy(p.plan.LiveOnly, comparePaths, func(path *string) string { return *path })
	sortBy(p.plan.Items, comparePaths, func(i *RestoreItem) string { return i.Path })
	return p.plan, p.checkLive()
}
