package resets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/model"
	"nixos-go/vmtest/powercut"
)

// What nixos-snapshot does to a disk: the first CLEAN, another one, lost files
// fetched back, the deletions after a boot.

const snapshotTool = "nixos-snapshot"

// nixosSnapshot is a command line of nixos-snapshot that asks nothing.
func (t Tools) nixosSnapshot(p *reset.PlanFile, args ...string) call {
	return func(dir, device string) (run.Command, error) {
		plan, err := writePlan(dir, p)
		return run.New(t.Snapshot, slices.Concat([]string{"--yes", "--plan", plan, "--device", device}, args)...), err
	}
}

// nixosSnapshotInUse is one for which the volumes are mounted as on a running system.
func (t Tools) nixosSnapshotInUse(p *reset.PlanFile, args ...string) call {
	tool := t.nixosSnapshot(p, args...)
	return func(dir, device string) (run.Command, error) {
		c, err := tool(dir, device)
		root := filepath.Join(dir, "root")
		in := []string{helperWord, inUseName, filepath.Join(dir, "plan.json"), device, root, c.Program, "--root", root}
		return run.New(t.Helper, append(in, c.Args...)...), errors.Join(err, os.Mkdir(root, 0o700))
	}
}

// inUseName is the helper that mounts the volumes of a plan below a folder, where no
// other process sees them, and becomes another program.
const inUseName = "in-use"

func becomeInUse(p *reset.PlanFile, device string, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s: want a folder and a program, got %q", inUseName, args)
	}
	runtime.LockOSThread() // mounts are of the thread that becomes the program
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	for _, v := range p.Volumes {
		at := filepath.Join(args[0], v.MountPoint)
		if err := unix.Mount(device, at, "btrfs", unix.MS_NOATIME, "subvol="+v.Name); err != nil {
			return &os.PathError{Op: "mount " + v.Name, Path: at, Err: err}
		}
	}
	return os.NewSyscallError("exec", unix.Exec(args[1], args[1:], os.Environ()))
}

func (t Tools) snapshotTool() []*powercut.Scenario {
	return slices.Concat(t.firstCleans(), t.rebases(), t.undoneRebases(), t.fetches(), t.collections())
}

func (t Tools) firstCleans() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	init := t.nixosSnapshot(p, "init", "--all")
	return t.both(powercut.Scenario{
		Name: "snapshot-init", Mode: snapshotTool, Prepare: mounted(install), CutTwice: true,
		Again:   mayFail(t.quiet(init)), // status 1 says that there is nothing to do
		Checker: func() powercut.Checker { return newChecker(p, verifyClean(p)) },
	}, init)
}

// rebases are new CLEANs. The cut is followed by a boot, which goes by the old CLEAN or
// by the new one.
func (t Tools) rebases() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	rebase := t.nixosSnapshot(p, "rebase", "--all")
	return t.both(powercut.Scenario{
		Name: "snapshot-rebase", Mode: snapshotTool, Prepare: t.used(3),
		Again: inOrder(t.boot(p), t.quiet(rebase)),
		Checker: func() powercut.Checker {
			c := newChecker(p, verifyRebase(p))
			c.renewsClean = true
			return c
		},
	}, rebase)
}

func (t Tools) undoneRebases() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	return t.both(powercut.Scenario{
		Name: "snapshot-rebase-undo", Mode: snapshotTool, Prepare: inOrder(t.used(3), t.quiet(t.nixosSnapshot(p, "rebase", "--all"))),
		Again: t.boot(p),
		Checker: func() powercut.Checker {
			c := newChecker(p, verifyUndo(p))
			c.renewsClean = true
			return c
		},
	}, t.nixosSnapshot(p, "rebase", "--undo"))
}

// verifyRebase holds a new CLEAN against the model.
func verifyRebase(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, func(v reset.PlanFileVolume, before, after volumeState) error {
		clean := after[p.Clean]
		if !clean.readOnly {
			return fmt.Errorf("%s: not there, or can be written to", p.Clean)
		}
		return errors.Join(
			wantSame(before, after, live),
			wantTree(p.Clean, model.ExpectClean(before[p.Clean].tree, before[live].tree, v.Keep, v.Exclude, nil), clean.tree),
		)
	})
}

// verifyUndo wants the CLEAN back that the day before had.
func verifyUndo(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, func(_ reset.PlanFileVolume, before, after volumeState) error {
		for name, old := range before {
			if reset.IsAged(name) && old.uuid == after[p.Clean].uuid {
				return errors.Join(wantSame(before, after, live), wantTree(p.Clean, old.tree, after[p.Clean].tree))
			}
		}
		return fmt.Errorf("%s is none of the snapshots that were put aside", p.Clean)
	})
}

// fetched is what the owner wants back: from folders that are kept and from some that
// are not, single files, links of one inode, a folder.
func fetched() []string {
	return []string{"/etc/conf.d", "/etc/hosts", "/var/tmp/build", "/home/alice/.config/settings", "/home/alice/.cache"}
}

func (t Tools) fetches() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	fetch := t.nixosSnapshotInUse(p, append([]string{"restore", "--force"}, fetched()...)...)
	return t.both(powercut.Scenario{
		Name: "snapshot-restore", Mode: snapshotTool, Prepare: inOrder(t.used(3), t.boot(p)),
		Checker: func() powercut.Checker { return &fetchChecker{plan: p} },
	}, fetch)
}

func (t Tools) collections() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	gc := t.nixosSnapshot(p, "gc")
	return t.both(powercut.Scenario{
		Name: "snapshot-gc", Mode: snapshotTool, Prepare: inOrder(t.used(4), t.boot(p)),
		Again: inOrder(t.boot(p), t.quiet(gc)),
		Checker: func() powercut.Checker {
			c := newChecker(p, verifyCleanup(p))
			c.inUse = true
			return c
		},
	}, gc)
}

// fetchChecker checks a restore of single paths: each path of live is as it was or as
// the snapshot has it, nothing else is there, and the same restore finishes it.
type fetchChecker struct {
	plan         *reset.PlanFile
	before, done state
}

// Check implements powercut.Checker.
func (c *fetchChecker) Check(_ context.Context, mount string, phase powercut.Phase) error {
	got, err := readState(mount, c.plan)
	if err != nil {
		return err
	}
	switch phase {
	case powercut.Before:
		c.before = got
		return nil
	case powercut.Done:
		c.done = got
		return eachVolume(c.plan, c.fetchedRight)(c.before, got)
	case powercut.Crashed:
		return eachVolume(c.plan, c.eachPathWhole)(c.before, got)
	case powercut.MayRecover, powercut.MaySettle, powercut.Recovered, powercut.Settled:
		return eachVolume(c.plan, c.fetchedRight)(c.before, got)
	}
	return nil
}

// fetchedRight holds live against the model, and the rest against what it was.
func (c *fetchChecker) fetchedRight(v reset.PlanFileVolume, before, after volumeState) error {
	want := model.ExpectRestore(before[live].tree, before[reset.NamePrevious].tree, fetchedIn(v), true)
	anyTime(want, "") // the trash folder comes into it
	return errors.Join(wantTree(live, want, after[live].tree), othersSame(before, after))
}

func (c *fetchChecker) eachPathWhole(v reset.PlanFileVolume, before, after volumeState) error {
	got := after[live].tree
	old, fresh := before[live].tree, c.done[v.Name][live].tree
	want := model.Tree{}
	for path, e := range got {
		o, inOld := old[path]
		n, inNew := fresh[path]
		switch {
		case inOld && (!inNew || sameButTime(o, e)):
			want[path] = o
		case inNew:
			want[path] = n
		}
		if w, ok := want[path]; ok && w.IsDir() { // something may have come into it, or not yet
			w.AnyMTime = true
			want[path] = w
		}
	}
	for path, o := range old { // what is in both has to be there
		if _, stays := fresh[path]; stays && got[path].Type == 0 {
			want[path] = o
		}
	}
	return errors.Join(wantTree(live, want, got), othersSame(before, after))
}

// sameButTime reports whether two entries differ in nothing but the time.
func sameButTime(a, b model.Entry) bool {
	a.AnyMTime = true
	return model.Diff(model.Tree{"": a}, model.Tree{"": b}) == ""
}

// othersSame wants every snapshot as it was.
func othersSame(before, after volumeState) error {
	var errs []error
	for name := range before {
		if name != live {
			errs = append(errs, wantSame(before, after, name))
		}
	}
	return errors.Join(errs...)
}

// fetchedIn are the fetched paths of one volume, as trees name them.
func fetchedIn(v reset.PlanFileVolume) []string {
	var out []string
	for _, path := range fetched() {
		rel, below := strings.CutPrefix(path, strings.TrimSuffix(v.MountPoint, "/")+"/")
		if below && (v.MountPoint != "/" || !strings.HasPrefix(path, "/home/")) {
			out = append(out, rel)
		}
	}
	return out
}
