package reset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// RestoreOptions says how a restore goes about its work.
type RestoreOptions struct {
	// Force overwrites what live has in the place of what is restored.
	Force bool
	// Volume is the name of the volume, for Trace.
	Volume string
	// Trace is called right before and after each change to the disk.
	Trace func(Step)
}

// ErrConflict says that a restore would overwrite something, and was not told to.
var ErrConflict = errors.New("something else is there")

// Apply restores what was planned. The caller holds the lock of the snapshots. When
// the context ends it stops between two files that are made, or two paths that are put
// in place, and the same restore finishes it.
func (r *Restore) Apply(ctx context.Context, options RestoreOptions) error {
	if r.Conflicts() && !options.Force {
		return ErrConflict
	}
	b := &restorer{
		plan: r, ctx: ctx, force: options.Force,
		volume: &volume{spec: PlanFileVolume{Name: options.Volume}, trace: options.Trace},
		stages: map[string]*stage{}, made: map[string]staged{},
	}
	err := b.clearStages()
	if err == nil {
		err = b.run()
	}
	return explainSpace(errors.Join(err, b.close(context.WithoutCancel(ctx))))
}

// restorer makes a planned restore so.
type restorer struct {
	plan   *Restore
	ctx    context.Context
	force  bool
	volume *volume // for its steps

	stages map[string]*stage // by the subvolume of live
	made   map[string]staged // where the top-most paths lie that are made
	dirs   []stagedDir
	locks  []stagedLock
	linked []string // paths, in the order in which the names were come across
}

// stage is the folder in which things for one subvolume of live are made: of the
// volume itself in its trash folder, which the cleanup empties, of a nested one in its
// root.
type stage struct {
	parent *os.File // holds the folder
	name   string
	dir    *os.File
}

// staged is a path in a stage.
type staged struct {
	stage *stage
	at    string
}

// stagedDir is a directory that was made and gets its metadata once it is full.
type stagedDir struct {
	staged

	path string // in the snapshot
}

// stagedLock is flags that forbid changes, set once everything is made.
type stagedLock struct {
	path  string // where it ends up
	flags uint32
}

// run makes everything in the stages, and puts it in place.
func (b *restorer) run() error {
	if err := b.volume.step("make", b.makeAll); err != nil {
		return err
	}
	if len(b.made) > 0 {
		// Or a power cut after the renames could leave empty files.
		if err := b.volume.step("sync", func() error { return btrfs.Sync(b.plan.live) }); err != nil {
			return err
		}
	}
	if err := b.placeAll(); err != nil {
		return err
	}
	return b.volume.step("sync", func() error { return btrfs.Sync(b.plan.live) })
}

func (b *restorer) makeAll() error {
	for i := range b.plan.Items {
		item := &b.plan.Items[i]
		if item.Action != RestoreCreate && item.Action != RestoreReplace {
			continue
		}
		s, err := b.stageOf(item.subvol)
		if err != nil {
			return err
		}
		b.made[item.Path] = staged{s, strconv.Itoa(i)}
		if err := b.makeItem(item, b.made[item.Path]); err != nil {
			return fmt.Errorf("make %q: %w", item.Path, err)
		}
	}
	for _, path := range b.linked {
		if err := b.makeLink(path); err != nil {
			return fmt.Errorf("link %q to %q: %w", path, b.plan.links[path].to, err)
		}
	}
	// Nothing is made in the directories any more.
	for _, d := range slices.Backward(b.dirs) {
		if err := b.finishDir(d); err != nil {
			return fmt.Errorf("%q: %w", d.path, err)
		}
	}
	for _, l := range b.locks {
		if err := b.setStagedFlags(l); err != nil {
			return fmt.Errorf("%q: %w", l.path, err)
		}
	}
	return nil
}

// find finds where a path lies while it is being made.
func (b *restorer) find(path string) staged {
	for top := path; top != ""; top = parentOf(top) {
		if made, ok := b.made[top]; ok {
			return staged{made.stage, made.at + strings.TrimPrefix(path, top)}
		}
	}
	return staged{}
}

// makeItem makes a top-most path in a stage. It works from a list, since the depth has
// no bound.
func (b *restorer) makeItem(item *RestoreItem, to staged) error {
	type pair struct {
		path, at string
		sel      *selection
	}
	dir, name := splitPath(item.Path)
	src, err := openDir(b.plan.source, dir)
	if err != nil {
		return err
	}
	isDir, err := b.makeOne(src, name, to.stage.dir, to.at, item.Path, item.sel)
	src.Close()
	if err != nil || !isDir {
		return err
	}
	for list := []pair{{item.Path, to.at, item.sel}}; len(list) > 0; list = list[1:] {
		p := list[0]
		b.dirs = append(b.dirs, stagedDir{staged{to.stage, p.at}, p.path})
		below, err := b.makeEntries(to.stage, p.path, p.at, p.sel)
		if err != nil {
			return err
		}
		for _, name := range below {
			next := pair{p.path + "/" + name, p.at + "/" + name, nil}
			if p.sel != nil {
				next.sel = p.sel.below[name]
			}
			list = append(list, next)
		}
	}
	return nil
}

// makeEntries makes the entries of one directory and names the directories among them,
// which are still empty.
func (b *restorer) makeEntries(s *stage, path, at string, sel *selection) (dirs []string, err error) {
	src, err := openDir(b.plan.source, path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	dst, err := openDir(s.dir, at)
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	names, err := src.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var below *selection
		if sel != nil {
			var selected bool
			if below, selected = sel.below[name]; !selected {
				continue
			}
		}
		if err := b.ctx.Err(); err != nil {
			return nil, err
		}
		isDir, err := b.makeOne(src, name, dst, name, path+"/"+name, below)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path+"/"+name, err)
		}
		if isDir {
			dirs = append(dirs, name)
		}
	}
	return dirs, nil
}

// makeOne makes one name; a directory stays empty and gets its metadata later.
func (b *restorer) makeOne(src *os.File, name string, dst *os.File, at, path string, sel *selection) (isDir bool, err error) {
	if _, link := b.plan.links[path]; link {
		b.linked = append(b.linked, path)
		return false, nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(src.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	switch {
	case st.Mode&modeType == modeDir && st.Ino == btrfs.EmptyDirID:
		return false, nil // a stub
	case st.Mode&modeType == modeDir && st.Ino == rootInode && sel == nil:
		return false, b.snapshotNested(src, name, dst, at, path)
	case st.Mode&modeType == modeDir:
		return true, pathError("make directory", path, unix.Mkdirat(int(dst.Fd()), at, 0o700))
	case st.Mode&modeType == unix.S_IFREG:
		locks, err := copyFile(src, name, dst, at, path, &st)
		b.lock(path, locks)
		return false, err
	}
	return false, copySpecial(src, name, dst, at, path, &st)
}

func (b *restorer) lock(path string, flags uint32) {
	if flags != 0 {
		b.locks = append(b.locks, stagedLock{path, flags})
	}
}

// snapshotNested restores a nested subvolume by a snapshot of it.
func (b *restorer) snapshotNested(srcDir *os.File, name string, dstDir *os.File, at, path string) error {
	if err := snapshotTree(srcDir, name, dstDir, at); err != nil {
		return err
	}
	f, err := openDir(dstDir, at)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := btrfs.Flags(f)
	if err != nil || flags&lockFlags == 0 {
		return err
	}
	b.lock(path, flags)
	return btrfs.SetFlags(f, flags&^lockFlags)
}

// snapshotTree takes a snapshot of a subvolume, and in it of those that are nested in
// that one; each is read-only if its source is.
func snapshotTree(srcDir *os.File, name string, dstDir *os.File, made string) error {
	src, err := openDir(srcDir, name)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := btrfs.Snapshot(src, dstDir, made, false); err != nil {
		return err
	}
	info, err := btrfs.ReadInfo(src)
	if err != nil {
		return err
	}
	children, err := btrfs.Children(src, info.ID)
	if err != nil {
		return err
	}
	dst, err := openDir(dstDir, made)
	if err != nil {
		return err
	}
	defer dst.Close()
	t := newTree(src, info.ID)
	for _, c := range children {
		dir, err := t.path(c.DirID)
		if err == nil {
			err = snapshotChild(src, dst, dir, c.Name)
		}
		if err != nil {
			return fmt.Errorf("nested subvolume %q: %w", dir+"/"+c.Name, err)
		}
	}
	return btrfs.SetReadOnly(dst, info.ReadOnly)
}

// snapshotChild puts a snapshot of a nested subvolume in the place of its stub.
func snapshotChild(src, dst *os.File, dir, name string) error {
	from, err := openDir(src, dir)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openDir(dst, dir)
	if err != nil {
		return err
	}
	defer to.Close()
	done, err := holdDirs(to)
	if err != nil {
		return err
	}
	if err := removeStub(to, name); err != nil {
		return err
	}
	return errors.Join(snapshotTree(from, name, to, name), done())
}

// makeLink makes a name in its stage a link to another, which is there already or in
// live.
func (b *restorer) makeLink(path string) error {
	link := b.plan.links[path]
	made := b.find(path)
	to, err := openDir(made.stage.dir, parentOf(made.at))
	if err != nil {
		return err
	}
	defer to.Close()
	from, fromName, err := b.openLinked(link)
	if err != nil {
		return err
	}
	defer from.Close()
	name := made.at[strings.LastIndexByte(made.at, '/')+1:]
	if err := linkUnlocked(from, fromName, to, name); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(to.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if link.inode != 0 && st.Ino != link.inode {
		return fmt.Errorf("%q was replaced meanwhile: try again", link.to)
	}
	return nil
}

// openLinked opens the directory of what a name is linked to.
func (b *restorer) openLinked(link restoreLink) (*os.File, string, error) {
	if link.inode != 0 {
		dir, name := splitPath(link.to)
		f, err := openMounted(b.plan.live, dir)
		return f, name, err
	}
	made := b.find(link.to)
	f, err := openDir(made.stage.dir, parentOf(made.at))
	return f, made.at[strings.LastIndexByte(made.at, '/')+1:], err
}

// linkUnlocked makes a link, also to an inode that flags protect: they are put back.
func linkUnlocked(from *os.File, fromName string, to *os.File, name string) error {
	err := unix.Linkat(int(from.Fd()), fromName, int(to.Fd()), name, 0)
	if !errors.Is(err, unix.EPERM) {
		return pathError("link", fromName, err)
	}
	f, err := openRegular(from, fromName)
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
	err = pathError("link", fromName, unix.Linkat(int(from.Fd()), fromName, int(to.Fd()), name, 0))
	if flags&lockFlags != 0 {
		err = errors.Join(err, btrfs.SetFlags(f, flags))
	}
	return err
}

func parentOf(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

// finishDir gives a directory that was made the metadata of the snapshot's.
func (b *restorer) finishDir(d stagedDir) error {
	dst, err := openDir(d.stage.dir, d.at)
	if err != nil {
		return err
	}
	defer dst.Close()
	flags, err := b.dirMetadata(dst, d.path)
	b.lock(d.path, flags)
	return err
}

// dirMetadata gives a directory the metadata of the snapshot's, and tells the flags
// that forbid changes, which are left.
func (b *restorer) dirMetadata(dst *os.File, path string) (locks uint32, err error) {
	src, err := openDir(b.plan.source, path)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	flags, err := btrfs.Flags(src)
	if err != nil {
		return 0, err
	}
	now, err := btrfs.Flags(dst)
	if err != nil {
		return 0, err
	}
	if want := flags &^ lockFlags; want != now {
		// From compressed to NOCOW, say, there is no way but through neither.
		if err := errors.Join(btrfs.SetFlags(dst, 0), btrfs.SetFlags(dst, want)); err != nil {
			return 0, err
		}
	}
	if flags&lockFlags != 0 {
		locks = flags
	}
	return locks, copyMetadata(src, dst, &st)
}

func (b *restorer) setStagedFlags(l stagedLock) error {
	made := b.find(l.path)
	f, err := openRegular(made.stage.dir, made.at)
	if err != nil {
		return err
	}
	defer f.Close()
	return btrfs.SetFlags(f, l.flags)
}
