package reset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// restorePrefix begins the names of stages in the trash folder.
const restorePrefix = "restore-"

// inStage reports whether a directory of a subvolume of live is a stage, or lies in
// one.
func inStage(subvol, dir string) bool {
	if subvol == "" {
		return below(dir, "/"+TrashName)
	}
	return strings.HasPrefix(dir, "/"+TrashName+".")
}

// stageOf gives the folder in which things for a subvolume of live are made.
func (b *restorer) stageOf(subvol string) (*stage, error) {
	if s := b.stages[subvol]; s != nil {
		return s, nil
	}
	name, err := temporaryName()
	if err != nil {
		return nil, err
	}
	root, err := openMounted(b.plan.live, subvol)
	if err != nil {
		return nil, err
	}
	parent := root
	if subvol == "" {
		defer root.Close()
		if parent, err = openTrashFolder(root); err != nil {
			return nil, err
		}
		name = restorePrefix + strings.TrimPrefix(name, TrashName+".")
	}
	s := &stage{parent: parent, name: name}
	done, err := holdDirs(parent)
	if err != nil {
		parent.Close()
		return nil, err
	}
	err = b.volume.step("make stage", func() (err error) {
		s.dir, err = makeTrash(parent, name)
		return errors.Join(err, done())
	})
	if err != nil {
		parent.Close()
		return nil, err
	}
	b.stages[subvol] = s
	return s, nil
}

// openTrashFolder opens the trash folder of a live volume, made if need be.
func openTrashFolder(root *os.File) (*os.File, error) {
	dir, err := openMounted(root, TrashName)
	if errors.Is(err, unix.ENOENT) {
		var done func() error
		if done, err = holdDirs(root); err != nil {
			return nil, err
		}
		dir, err = makeTrash(root, TrashName)
		if err := errors.Join(err, done()); err != nil {
			return nil, err
		}
		return dir, nil
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(dir.Fd()), &st)
	if err == nil && (st.Uid != 0 || st.Mode&0o7777 != 0o700) {
		err = unix.EPERM
	}
	if err != nil {
		dir.Close()
		return nil, &os.PathError{Op: "use", Path: TrashName, Err: err}
	}
	return dir, nil
}

// clearStages deletes what a restore that was cut off has left in the subvolumes that
// this one looks into.
func (b *restorer) clearStages() error {
	for subvol := range b.plan.subvols {
		path, prefix := subvol, TrashName+"."
		if subvol == "" {
			path, prefix = TrashName, restorePrefix
		}
		if err := b.clearStage(path, prefix); err != nil {
			return err
		}
	}
	return nil
}

func (b *restorer) clearStage(path, prefix string) error {
	dir, err := openMounted(b.plan.live, path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) || !isPrivate(dir, name) {
			continue
		}
		err := b.volume.step("clear an earlier stage", func() error { return removeHeld(b.ctx, dir, name) })
		if err != nil {
			return err
		}
	}
	return nil
}

// isPrivate reports whether a name is a directory of root's that nobody else opens, as
// stages are.
func isPrivate(dir *os.File, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode == modeDir|0o700 && st.Uid == 0 && st.Gid == 0
}

// close deletes the stages with what is left in them: things that were replaced, or
// after a failure that were not put in place.
func (b *restorer) close(ctx context.Context) error {
	var errs []error
	for _, s := range b.stages {
		s.dir.Close()
		errs = append(errs, b.volume.step("delete stage", func() error { return removeHeld(ctx, s.parent, s.name) }))
		s.parent.Close()
	}
	return errors.Join(append(errs, b.dropTrashFolder(ctx))...)
}

// dropTrashFolder removes the trash folder if it is empty.
func (b *restorer) dropTrashFolder(ctx context.Context) error {
	live := int(b.plan.live.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(live, TrashName, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil //nolint:nilerr // there is none
	}
	if empty, err := isEmptyDir(b.plan.live, TrashName); err != nil || !empty {
		return err
	}
	return b.volume.step("remove the trash folder", func() error { return removeHeld(ctx, b.plan.live, TrashName) })
}

// placeAll puts everything in place, and then gives directories that were there their
// metadata, those below first: each entry that is made in one changes its time.
func (b *restorer) placeAll() error {
	for i := range b.plan.Items {
		item := &b.plan.Items[i]
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err := b.place(item); err != nil {
			return fmt.Errorf("restore %q: %w", item.Path, err)
		}
	}
	for i := range b.plan.Items {
		item := &b.plan.Items[len(b.plan.Items)-1-i]
		if err := b.finish(item); err != nil {
			return fmt.Errorf("restore %q: %w", item.Path, err)
		}
	}
	return nil
}

func (b *restorer) place(item *RestoreItem) error {
	if item.Action != RestoreCreate && item.Action != RestoreReplace {
		return nil
	}
	return b.volume.step("place "+item.Path, func() error { return b.placeMade(item) })
}

func (b *restorer) finish(item *RestoreItem) error {
	switch item.Action {
	case RestoreCreate, RestoreReplace:
		if item.dirMade {
			return b.volume.step("time of the directory of "+item.Path, func() error { return b.placeTime(item) })
		}
	case RestoreFlags:
		return b.volume.step("flags "+item.Path, func() error { return b.copyFlags(item) })
	case RestoreMetadata:
		if b.force {
			return b.volume.step("metadata "+item.Path, func() error { return b.placeMetadata(item) })
		}
	case RestoreSkip:
	}
	return nil
}

// placeTime gives the directory that something was put into the snapshot's time, which
// it had before.
func (b *restorer) placeTime(item *RestoreItem) error {
	path, _ := splitPath(item.Path)
	source, err := openDir(b.plan.source, path)
	if err != nil {
		return err
	}
	defer source.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	dir, err := openMounted(b.plan.live, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return setMTime(dir, st.Mtim)
}

// placeMade renames what was made to where it belongs. What it replaces is swapped into
// the stage, and deleted there; never a directory that holds anything.
func (b *restorer) placeMade(item *RestoreItem) error {
	path, name := splitPath(item.Path)
	dir, err := openMounted(b.plan.live, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	made := b.made[item.Path]
	if item.Action == RestoreCreate {
		return placeError(item.Path, renameUnlocked(made, dir, name, unix.RENAME_NOREPLACE))
	}
	if err := renameUnlocked(made, dir, name, unix.RENAME_EXCHANGE); err != nil {
		return placeError(item.Path, err)
	}
	stage := int(made.stage.dir.Fd())
	err = unix.Unlinkat(stage, made.at, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(stage, made.at, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOTEMPTY) {
		return errors.Join(placeError(item.Path, err), renameUnlocked(made, dir, name, unix.RENAME_EXCHANGE))
	}
	return nil // what forbids to delete it is lifted with the stage
}

// renameUnlocked renames what was made, also where flags of its own forbid it: they are
// put back.
func renameUnlocked(made staged, dir *os.File, name string, how uint) error {
	stage := int(made.stage.dir.Fd())
	err := unix.Renameat2(stage, made.at, int(dir.Fd()), name, how)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	f, err := openRegular(made.stage.dir, made.at)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := btrfs.Flags(f)
	if err != nil {
		return err
	}
	if err := liftFlags(f); err != nil {
		return err
	}
	err = unix.Renameat2(stage, made.at, int(dir.Fd()), name, how)
	return errors.Join(err, btrfs.SetFlags(f, flags))
}

func placeError(path string, err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY) {
		err = fmt.Errorf("what is there changed meanwhile, try again: %w", err)
	}
	return pathError("rename into place", path, err)
}

func (b *restorer) setFlags(path string, flags uint32) error {
	dirPath, name := splitPath(path)
	dir, err := openMounted(b.plan.live, dirPath)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := openRegular(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	return btrfs.SetFlags(f, flags)
}

// copyFlags sets the flags that the snapshot has at a path.
func (b *restorer) copyFlags(item *RestoreItem) error {
	src, err := openRegular(b.plan.source, item.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	flags, err := btrfs.Flags(src)
	if err != nil {
		return err
	}
	return b.setFlags(item.Path, flags)
}

// placeMetadata gives a directory of live the metadata of the snapshot's.
func (b *restorer) placeMetadata(item *RestoreItem) error {
	dir, err := openMounted(b.plan.live, item.Path)
	if err != nil {
		return err
	}
	defer dir.Close()
	locks, err := b.dirMetadata(dir, item.Path)
	if err != nil || locks == 0 {
		return err
	}
	return btrfs.SetFlags(dir, locks)
}

// Lock takes the lock of the snapshots of a plan, which a reset, a cleanup and
// whatever writes snapshots hold. It goes when the file is closed.
func Lock(top *os.File, plan *PlanFile) (*os.File, error) { return openSnapshots(top, plan.Snapshots) }

// OpenSnapshot opens a snapshot of a volume of the plan. One that is not there is
// ENOENT.
func OpenSnapshot(top *os.File, plan *PlanFile, volume, name string) (*os.File, error) {
	snapshots, err := openDir(top, plan.Snapshots)
	if err != nil {
		return nil, fmt.Errorf("snapshots subvolume %q: %w", plan.Snapshots, err)
	}
	defer snapshots.Close()
	dir, err := openDir(snapshots, volume)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := openDir(dir, name)
	if err != nil {
		return nil, err
	}
	if is, err := btrfs.IsSubvolume(f); err != nil || !is {
		f.Close()
		return nil, errors.Join(fmt.Errorf("%s of %s is a plain directory, not a subvolume", name, volume), err)
	}
	return f, nil
}

// IsLive reports whether an open directory is the root of a live volume of the plan, as
// seen from a mount of it.
func IsLive(top *os.File, volume string, root *os.File) (bool, error) {
	is, err := btrfs.IsSubvolume(root)
	if err != nil || !is {
		return false, err
	}
	live, err := openDir(top, volume)
	if err != nil {
		return false, err
	}
	defer live.Close()
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		return false, err
	}
	fs, err := btrfs.ReadFilesystem(live)
	if err != nil {
		return false, err
	}
	rootFS, err := btrfs.ReadFilesystem(root)
	if err != nil || rootFS.ID != fs.ID {
		return false, err
	}
	return sameID(root, info.ID)
}

func sameID(root *os.File, id uint64) (bool, error) {
	info, err := btrfs.ReadInfo(root)
	return err == nil && info.ID == id, err
}
