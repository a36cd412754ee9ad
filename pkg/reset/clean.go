package reset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// The first CLEAN is a snapshot of live without what is kept: that is never read
// there, and old password hashes and keys have no business in it. What exclude rules
// leave to CLEAN below kept paths stays.
//
// Another CLEAN is made as a reset makes live from CLEAN, with the two in each other's
// place: from the CLEAN that is there, without what is kept, towards a snapshot of
// live. So it costs what differs. At and below kept paths, and where something is to
// be left out, it is as the one before.
//
//	source     AGED-<random>, a read-only snapshot of live
//	made       AGED-<random>, a snapshot of live or of CLEAN
//	prune      made loses what is kept
//	apply      made becomes the new CLEAN, read-only
//	exchange   CLEAN <-> AGED-<UUID of the new one>
//
// Until the last step all of it bears names that the cleanup deletes, so a run that
// was cut off leaves nothing to mend. After it the old CLEAN bears the UUID of the
// one that took its place: by that the cleanup knows it, and keeps it until a boot
// has reset to the new one.

// CleanOptions says how a new CLEAN is made.
type CleanOptions struct {
	// First makes a first CLEAN: one that is there is an error (EEXIST), where
	// else one that is missing would be (ENOENT). A snapshots subvolume that is
	// missing is made.
	First bool
	// Again makes a first CLEAN also in the place of one that is there.
	Again bool
	// LeaveOut are rules, by the name of a volume and relative to its root, for what
	// is not taken from live though it is not kept.
	LeaveOut map[string][]string
	// DryRun plans from the live volume as it is, and writes nothing.
	DryRun bool
	// Trace is called right before and after each change to the disk.
	Trace func(Step)
}

// Cleans are new CLEANs of some volumes, under construction.
type Cleans struct {
	Volumes []*NewClean

	top       *os.File
	plan      *PlanFile
	options   CleanOptions
	snapshots *os.File // holds the lock; nil in a dry run that made none
}

// NewClean is the new CLEAN of one volume.
type NewClean struct {
	Name       string
	MountPoint string
	// Changes lead from the CLEAN that is there to the new one: what is added here
	// (KindAdded) goes from CLEAN, what is deleted (KindDeleted) comes into it. A first
	// CLEAN has what is in the root directory here.
	Changes []Change
	// Kept are the top-most kept paths that are not taken from live, of a first CLEAN,
	// or go from CLEAN.
	Kept []string
	// LeftOut are changes that the rules of CleanOptions.LeaveOut left out.
	LeftOut []Change
	// UUID is the new CLEAN's, and Old where the one before is now, once it is in place.
	UUID string
	Old  string
	// Replaces says that there is a CLEAN, which the new one takes the place of.
	Replaces bool

	work         *volume
	source, made string // names below the folder of the volume's snapshots
	planned      *Plan  // nil for a first one

	rules, whole, left, rulesAndLeft *keep.Matcher // see loadRules
}

// PrepareCleans makes all of new CLEANs of the named volumes of a plan but the last
// step, or in a dry run tells what they would be. It takes the lock, which Close
// gives back. It may run while the volumes are in use.
func PrepareCleans(ctx context.Context, top *os.File, plan *PlanFile, names []string, options CleanOptions) (*Cleans, error) {
	c := &Cleans{top: top, plan: plan, options: options}
	if err := c.prepare(ctx, names); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cleans) prepare(ctx context.Context, names []string) error {
	var err error
	if c.snapshots, err = c.openSnapshots(); err != nil {
		return err
	}
	// The planner reads what has reached the trees.
	if err := btrfs.Sync(c.top); err != nil {
		return err
	}
	for _, name := range names {
		spec, err := c.plan.volume(name)
		if err != nil {
			return err
		}
		n := &NewClean{Name: name, MountPoint: spec.MountPoint}
		n.work = &volume{spec: *spec, plan: c.plan, top: c.top, trace: c.options.Trace, clock: &stopwatch{}}
		c.Volumes = append(c.Volumes, n)
		if err := n.prepare(ctx, c.snapshots, c.options); err != nil {
			return fmt.Errorf("volume %s: %w", name, err)
		}
	}
	return nil
}

// volume finds a volume of the plan by its name.
func (p *PlanFile) volume(name string) (*PlanFileVolume, error) {
	for i := range p.Volumes {
		if p.Volumes[i].Name == name {
			return &p.Volumes[i], nil
		}
	}
	return nil, fmt.Errorf("the plan has no volume %q", name)
}

// openSnapshots opens the snapshots subvolume and takes the lock. Where a first CLEAN
// is made it may be missing.
func (c *Cleans) openSnapshots() (*os.File, error) {
	f, err := openSnapshots(c.top, c.plan.Snapshots)
	if !c.options.First || !errors.Is(err, unix.ENOENT) {
		return f, err
	}
	if c.options.DryRun {
		return nil, nil
	}
	w := &volume{trace: c.options.Trace}
	err = w.step("create "+c.plan.Snapshots, func() error { return createPrivate(c.top, c.plan.Snapshots) })
	if err != nil {
		return nil, err
	}
	return openSnapshots(c.top, c.plan.Snapshots)
}

// createPrivate makes a subvolume that only root looks into.
func createPrivate(dir *os.File, name string) error {
	if err := btrfs.Create(dir, name); err != nil {
		return err
	}
	return pathError("chmod", name, unix.Fchmodat(int(dir.Fd()), name, 0o700, 0))
}

func (n *NewClean) prepare(ctx context.Context, snapshots *os.File, options CleanOptions) error {
	live, err := n.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	if err := n.openFolder(snapshots, options); err != nil {
		return err
	}
	if err := n.loadRules(options); err != nil {
		return err
	}
	switch {
	case options.First:
		err = n.prepareFirst(ctx, live, options.DryRun)
	case options.DryRun:
		err = n.preview(live)
	default:
		err = n.prepareNext(ctx, live)
	}
	return explainSpace(err)
}

// openLive opens the live volume, and refuses one that no reset can deal with.
func (n *NewClean) openLive() (*os.File, error) {
	live, err := n.work.openLive()
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("there is no subvolume %q below the top level: the reset works on subvolumes that are mounted by name (%w)", n.Name, err)
	}
	if err != nil {
		return nil, err
	}
	is, err := btrfs.IsSubvolume(live)
	if err == nil && !is {
		err = fmt.Errorf("%q is a plain directory, not a subvolume", n.Name)
	}
	if err == nil {
		err = checkFlags(live, n.Name)
	}
	if err != nil {
		live.Close()
		return nil, err
	}
	return live, nil
}

// openFolder opens the folder of the volume's snapshots, and checks whether there is
// a CLEAN.
func (n *NewClean) openFolder(snapshots *os.File, options CleanOptions) error {
	if snapshots == nil {
		return nil
	}
	if options.First && !options.DryRun {
		err := unix.Mkdirat(int(snapshots.Fd()), n.Name, 0o700)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return &os.PathError{Op: "make directory", Path: n.Name, Err: err}
		}
	}
	var err error
	n.work.dir, err = openDir(snapshots, n.Name)
	if errors.Is(err, unix.ENOENT) && options.First {
		return nil // a dry run
	}
	if err != nil {
		return fmt.Errorf("its snapshots (take the first with `nixos-snapshot init`): %w", err)
	}
	// What is not a subvolume is found here as well.
	_, err = n.work.snapshotInfo(n.work.plan.Clean)
	var st unix.Stat_t
	there := unix.Fstatat(int(n.work.dir.Fd()), n.work.plan.Clean, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	switch {
	case err != nil:
		return err
	case options.First && there && !options.Again:
		return fmt.Errorf("there is a %s already: %w", n.work.plan.Clean, unix.EEXIST)
	case !options.First && !there:
		return fmt.Errorf("there is no %s, take the first with `nixos-snapshot init`: %w", n.work.plan.Clean, unix.ENOENT)
	}
	n.Replaces = there
	return nil
}

// loadRules makes matchers of the rules: of what the reset keeps; of all at or below
// kept paths, excluded parts included, since there CLEAN is as it was; and of that
// with what is to be left out.
func (n *NewClean) loadRules(options CleanOptions) error {
	rules, err := n.work.spec.Rules()
	if err != nil {
		return err
	}
	leaveOut, err := keep.NewSet(options.LeaveOut[n.Name], nil)
	if err != nil {
		return err
	}
	whole := keep.Set{Keep: rules.Keep}
	n.rules, n.whole = keep.NewMatcher(rules), keep.NewMatcher(whole)
	n.left = keep.NewMatcher(whole, leaveOut)
	n.rulesAndLeft = keep.NewMatcher(rules, leaveOut)
	return nil
}

// prepareFirst makes a first CLEAN, or tells what it would be.
func (n *NewClean) prepareFirst(ctx context.Context, live *os.File, dryRun bool) error {
	root := live
	if !dryRun {
		var err error
		if n.made, err = n.snapshot("snapshot live", live, false); err != nil {
			return err
		}
		if root, err = openDir(n.work.dir, n.made); err != nil {
			return err
		}
		defer root.Close()
	}
	var err error
	if n.Kept, err = prunedPaths(root, n.rules); err != nil {
		return err
	}
	if n.Changes, err = firstChanges(root, n.rulesAndLeft); err != nil {
		return err
	}
	pruned, err := prunedPaths(root, n.rulesAndLeft)
	if err != nil {
		return err
	}
	if n.LeftOut, err = n.leftOutOf(root, pruned); err != nil || dryRun {
		return err
	}
	return n.prune(ctx, root, n.rulesAndLeft)
}

// leftOutOf tells of the pruned paths that are not kept.
func (n *NewClean) leftOutOf(root *os.File, pruned []string) ([]Change, error) {
	info, err := btrfs.ReadInfo(root)
	if err != nil {
		return nil, err
	}
	t := newTree(root, info.ID)
	var out []Change
	for _, path := range pruned {
		if stateAt(n.rules, path).Kept() {
			continue
		}
		c, err := t.changeAt(path)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", path, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// changeAt tells of something that comes from a path of the tree, or would.
func (t *tree) changeAt(path string) (Change, error) {
	c := Change{Path: path, Kind: KindDeleted, Mode: modeDir | 0o755}
	at := &entry{inode: rootInode}
	for _, name := range splitComponents(path) {
		next, err := t.find(at.inode, name)
		if err != nil {
			return c, err
		}
		if next == nil {
			return c, errNoInode
		}
		if next.subvolume {
			return c, nil
		}
		at = next
	}
	n, err := t.read(at.inode)
	if err != nil {
		return c, err
	}
	c.Mode, c.Size = n.Mode, fileSize(n)
	return c, nil
}

// prune takes out of what becomes the new CLEAN what a matcher keeps.
func (n *NewClean) prune(ctx context.Context, root *os.File, m *keep.Matcher) error {
	paths, err := prunedPaths(root, m)
	if err != nil || len(paths) == 0 {
		return err
	}
	return n.work.step("prune", func() error { return removePaths(ctx, root, paths) })
}

// prepareNext makes the CLEAN after the one that is there.
func (n *NewClean) prepareNext(ctx context.Context, live *os.File) error {
	var err error
	if n.source, err = n.snapshot("snapshot live", live, true); err != nil {
		return err
	}
	clean, err := openDir(n.work.dir, n.work.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	if n.made, err = n.snapshot("snapshot CLEAN", clean, false); err != nil {
		return err
	}
	made, source, err := n.open()
	if err != nil {
		return err
	}
	defer made.Close()
	defer source.Close()
	if n.Kept, err = prunedPaths(made, n.rules); err != nil {
		return err
	}
	if err := n.prune(ctx, made, n.rules); err != nil {
		return err
	}
	if err := btrfs.Sync(n.work.top); err != nil { // or the planner would not see it
		return err
	}
	return n.makePlans(made, source)
}

// snapshot takes a snapshot under a name that the cleanup may delete.
func (n *NewClean) snapshot(step string, src *os.File, readOnly bool) (string, error) {
	name, err := agedName()
	if err != nil {
		return "", err
	}
	return name, n.work.step(step, func() error { return btrfs.Snapshot(src, n.work.dir, name, readOnly) })
}

// agedName is a name for something that the cleanup may delete.
func agedName() (string, error) {
	var id btrfs.UUID
	if _, err := unix.Getrandom(id[:], 0); err != nil {
		return "", &os.PathError{Op: "getrandom", Path: agedPrefix, Err: err}
	}
	return agedPrefix + id.String(), nil
}

func (n *NewClean) open() (made, source *os.File, err error) {
	if made, err = openDir(n.work.dir, n.made); err != nil {
		return nil, nil, err
	}
	if source, err = openDir(n.work.dir, n.source); err != nil {
		made.Close()
		return nil, nil, err
	}
	return made, source, nil
}

// makePlans plans from what becomes the new CLEAN towards a snapshot of live.
func (n *NewClean) makePlans(made, source *os.File) error {
	var err error
	if n.planned, err = MakePlan(Sources{Live: made, Clean: source}, n.left); err != nil {
		return err
	}
	n.Changes = n.planned.Changes
	all, err := MakePlan(Sources{Live: made, Clean: source}, n.whole)
	if err != nil {
		return err
	}
	n.LeftOut = notAmong(all.Changes, n.Changes)
	inside, err := n.leftOutInside(source)
	if err != nil {
		return err
	}
	n.LeftOut = append(n.LeftOut, inside...)
	sortBy(n.LeftOut, comparePaths, func(c *Change) string { return c.Path })
	return nil
}

// leftOutInside tells of what is left out of directories that come into CLEAN: there it
// is no change of its own.
func (n *NewClean) leftOutInside(source *os.File) ([]Change, error) {
	paths, err := prunedPaths(source, n.left)
	if err != nil {
		return nil, err
	}
	var inside []string
	for _, path := range paths {
		if stateAt(n.whole, path).Kept() {
			continue
		}
		if slices.ContainsFunc(n.Changes, func(c Change) bool {
			return c.act&actCreate != 0 && path != c.Path && below(path, c.Path)
		}) {
			inside = append(inside, path)
		}
	}
	return n.leftOutOf(source, inside)
}

// notAmong gives the changes whose paths are not among others; both are in order.
func notAmong(changes, others []Change) []Change {
	var out []Change
	for _, c := range changes {
		for len(others) > 0 && comparePaths(others[0].Path, c.Path) < 0 {
			others = others[1:]
		}
		if len(others) == 0 || others[0].Path != c.Path {
			out = append(out, c)
		}
	}
	return out
}

// preview plans from the live volume.
func (n *NewClean) preview(live *os.File) error {
	clean, err := openDir(n.work.dir, n.work.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	if n.Kept, err = prunedPaths(clean, n.rules); err != nil {
		return err
	}
	return n.makePlans(clean, live)
}

// firstChanges is what a first CLEAN has in its root directory.
func firstChanges(live *os.File, left *keep.Matcher) ([]Change, error) {
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		return nil, err
	}
	t := newTree(live, info.ID)
	entries, err := t.entries(rootInode)
	if err != nil {
		return nil, err
	}
	var out []Change
	for _, e := range entries {
		if left.Root().Step(e.name).Kept() {
			continue
		}
		c, err := t.changeAt("/" + e.name)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	sortBy(out, comparePaths, func(c *Change) string { return c.Path })
	return out, nil
}

// Close drops what was not put in place, and gives the lock back.
func (c *Cleans) Close() error {
	var errs []error
	for _, n := range c.Volumes {
		errs = append(errs, n.close())
	}
	c.Volumes = nil
	if c.snapshots != nil {
		c.snapshots.Close()
	}
	return errors.Join(errs...)
}

// drop destroys something that is not needed any more.
func (n *NewClean) drop(name string) error {
	if name == "" {
		return nil
	}
	return n.work.step("destroy AGED", func() error { return destroyTree(n.work.dir, name) })
}

// TakeClean takes the first CLEAN of a volume of the plan from its live state, without
// what is kept. CLEAN appears whole or not at all. It refuses where there is one
// already (EEXIST).
func TakeClean(ctx context.Context, top *os.File, plan *PlanFile, name string, options CleanupOptions) error {
	c, err := PrepareCleans(ctx, top, plan, []string{name}, CleanOptions{First: true, Trace: options.Trace})
	if err != nil {
		return err
	}
	return errors.Join(c.PutInPlace(ctx), c.Close())
}

// Drop gives one of the new CLEANs up.
func (c *Cleans) Drop(n *NewClean) error {
	c.Volumes = slices.DeleteFunc(c.Volumes, func(other *NewClean) bool { return other == n })
	return n.close()
}

func (n *NewClean) close() error {
	if n.work.dir == nil {
		return nil
	}
	defer n.work.dir.Close()
	return errors.Join(n.drop(n.made), n.drop(n.source))
}

// HasClean reports whether a volume of the plan has a CLEAN.
func HasClean(top *os.File, plan *PlanFile, volume string) (bool, error) {
	f, err := OpenSnapshot(top, plan, volume, plan.Clean)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}
