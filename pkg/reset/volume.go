package reset

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// volume is one volume during a run.
type volume struct {
	spec  PlanFileVolume
	plan  *PlanFile
	top   *os.File // the top level of the file system
	dir   *os.File // @snapshots/V
	trace func(Step)
	clock *stopwatch
	start *rendezvous // of the snapshots of all volumes
	// onSnapshot is called right before the snapshot NEXT.
	onSnapshot func()

	rules   []keep.Set // in force: the plan's, or with a newer generation's
	record  Record     // what this run will write
	planned *Plan
	renamed bool // a snapshot has another name now

	result Result
	err    error // what stopped it
}

// Step is one change to the disk. Tests cut a run off before and after each.
type Step struct {
	Volume string
	Name   string
	Done   bool // false right before the change, true right after
}

// step runs one change to the disk under its name.
func (v *volume) step(name string, change func() error) error {
	if v.trace != nil {
		v.trace(Step{Volume: v.spec.Name, Name: name})
	}
	if err := change(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if v.trace != nil {
		v.trace(Step{Volume: v.spec.Name, Name: name, Done: true})
	}
	return nil
}

func (v *volume) warnf(format string, args ...any) {
	v.result.Warnings = append(v.result.Warnings, fmt.Sprintf(format, args...))
}

// openLive opens the live volume.
func (v *volume) openLive() (*os.File, error) { return openDir(v.top, v.spec.Name) }

// snapshot opens a snapshot of the volume; nil if there is none.
func (v *volume) snapshot(name string) (*os.File, error) {
	f, err := openDir(v.dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return f, err
}

// snapshotInfo tells of a snapshot of the volume; nil if there is none.
func (v *volume) snapshotInfo(name string) (*btrfs.Info, error) {
	f, err := v.snapshot(name)
	if err != nil || f == nil {
		return nil, err
	}
	defer f.Close()
	info, err := btrfs.ReadInfo(f)
	return &info, err
}

func (v *volume) liveInfo() (btrfs.Info, error) {
	f, err := v.openLive()
	if err != nil {
		return btrfs.Info{}, err
	}
	defer f.Close()
	return btrfs.ReadInfo(f)
}

// rename moves a snapshot to a name that must be free.
func (v *volume) rename(from, to string) error {
	return v.renameAs("rename "+from+" to "+to, from, to)
}

func (v *volume) renameAs(step, from, to string) error {
	err := v.step(step, func() error {
		fd := int(v.dir.Fd())
		return v.withRoom(func() error {
			return pathError("rename", from, unix.Renameat2(fd, from, fd, to, unix.RENAME_NOREPLACE))
		})
	})
	v.renamed = v.renamed || err == nil
	return err
}

// age moves a snapshot to a name under which the cleanup finds it.
func (v *volume) age(name string) error {
	info, err := v.snapshotInfo(name)
	if err != nil || info == nil {
		return err
	}
	return v.renameAs("rename "+name+" to AGED", name, agedPrefix+info.UUID.String())
}

// discardNext destroys a half-made new state. On a full disk that, too, may find no
// space for its metadata, while that of what was just thrown away is not yet free: a
// commit frees it.
func (v *volume) discardNext() error {
	const tries = 3
	return v.step("destroy NEXT", func() error {
		err := destroyTree(v.dir, NameNext)
		for try := 1; try < tries && errors.Is(err, unix.ENOSPC); try++ {
			if err = btrfs.Sync(v.top); err == nil {
				err = destroyTree(v.dir, NameNext)
			}
		}
		return err
	})
}

// destroyTree destroys a subvolume and all that are nested in it, innermost first.
// What forbids it on the way, read-only subvolumes and flags of directories, is
// lifted.
func destroyTree(dir *os.File, name string) error {
	f, err := openDir(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := btrfs.ReadInfo(f)
	if err != nil {
		return err
	}
	children, err := btrfs.Children(f, info.ID)
	if err != nil {
		return err
	}
	flags, err := btrfs.Flags(f)
	if err != nil {
		return err
	}
	if info.ReadOnly && (len(children) > 0 || flags&lockFlags != 0) {
		if err := btrfs.SetReadOnly(f, false); err != nil {
			return err
		}
	}
	if err := liftFlags(f); err != nil {
		return err
	}
	t := newTree(f, info.ID)
	for _, c := range children {
		path, err := t.path(c.DirID)
		if err == nil {
			err = destroyNested(f, path, c.Name)
		}
		if err != nil {
			return fmt.Errorf("nested subvolume %q: %w", path+"/"+c.Name, err)
		}
	}
	return btrfs.Destroy(dir, name)
}

func destroyNested(root *os.File, path, name string) error {
	dir, err := openDir(root, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := liftFlags(dir); err != nil {
		return err
	}
	return destroyTree(dir, name)
}

// readRecordOf reads the record in a volume's root; nil if there is none that can
// be trusted.
func readRecordOf(root *os.File) *Record {
	f, err := openRegular(root, ReadyName)
	if err != nil {
		return nil
	}
	defer f.Close()
	// Where a volume's root belongs to a user, anybody's file may stand there.
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Mode != unix.S_IFREG|0o600 || st.Uid != 0 || st.Nlink != 1 {
		return nil
	}
	rec, err := readRecord(f)
	if err != nil {
		return nil
	}
	return rec
}

// snapshotRecord reads the record in a snapshot; nil if there is none.
func (v *volume) snapshotRecord(name string) *Record {
	f, err := v.snapshot(name)
	if err != nil || f == nil {
		return nil
	}
	defer f.Close()
	return readRecordOf(f)
}

// untouched reports whether the live volume is as the run that wrote its record
// left it: that file was the last thing changed in it. Changes in that very
// transaction do not show, so a caller must be sure there are none, or look.
func untouched(live *os.File) (bool, error) {
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		return false, err
	}
	return recordChanged(live, info, info.Generation)
}

// recordChanged reports whether the record of a subvolume last changed in a
// transaction.
func recordChanged(root *os.File, info btrfs.Info, transID uint64) (bool, error) {
	t := newTree(root, info.ID)
	t.top = false // to see the toolkit's own names
	e, err := t.find(rootInode, ReadyName)
	if err != nil || e == nil || e.subvolume {
		return false, err
	}
	n, err := t.read(e.inode)
	return err == nil && n.TransID == transID, err
}
