package resets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/vmtest/powercut"
)

// A second, plain engine for one volume, whose steps can be put in any order: proof
// that the scenarios catch wrong ones. In the right order it passes all that the
// real one has to.
type step string

const (
	next     step = "snapshot live as NEXT"
	apply    step = "make NEXT the new state"
	ready    step = "mark NEXT as complete"
	flush    step = "sync"
	exchange step = "exchange live and NEXT"
	moves    step = "move nested subvolumes"
	rotate   step = "rotate history"
	current  step = "take CURRENT"

	// steps of wrong orders
	applyLive   step = "make live the new state"
	readyLive   step = "mark live as complete"
	movesEarly  step = "move nested subvolumes into NEXT"
	movesLate   step = "move nested subvolumes out of PREVIOUS"
	makeRoom    step = "destroy PENULTIMATE"
	rotateEarly step = "rotate history, without NEXT"
	liveAway    step = "rename live away"
	nextIn      step = "rename NEXT to live, and what was live to NEXT"
)

// rightOrder is the plain engine as it should be.
var rightOrder = []step{next, apply, flush, ready, flush, exchange, moves, rotate, current, flush}

// plainVolume is the volume of the plain engine, at work below a mounted top level.
type plainVolume struct {
	top  *os.File
	path string // of the top level
	mark string // what the new state is marked with
}

// markName is a symlink: it is on disk with the transaction, as no file's content is.
const markName = ".complete"

// plainPlan is what the plain engine keeps.
func plainPlan() *reset.PlanFile {
	p := plan(reset.ModeReset)
	p.Volumes = []reset.PlanFileVolume{{Name: rootVolume, MountPoint: "/", Keep: []string{"/var/lib"}}}
	return p
}

func (v *plainVolume) live() string { return filepath.Join(v.path, rootVolume) }

func (v *plainVolume) snapshot(name string) string {
	return filepath.Join(v.path, reset.DefaultSnapshots, rootVolume, name)
}

func (v *plainVolume) do(s step) error {
	switch s {
	case next:
		return snapshotOf(v.live(), v.snapshot(reset.NameNext), false)
	case apply:
		return v.makeNew(v.snapshot(reset.NameNext))
	case applyLive:
		return v.makeNew(v.live())
	case ready:
		return os.Symlink(v.mark, filepath.Join(v.snapshot(reset.NameNext), markName))
	case readyLive:
		return os.Symlink(v.mark, filepath.Join(v.live(), markName))
	case flush:
		return btrfs.Sync(v.top)
	case exchange:
		return unix.Renameat2(unix.AT_FDCWD, v.live(), unix.AT_FDCWD, v.snapshot(reset.NameNext), unix.RENAME_EXCHANGE)
	case moves:
		return moveAll(v.snapshot(reset.NameNext), v.live())
	case movesLate:
		return moveAll(v.snapshot(reset.NamePrevious), v.live())
	case movesEarly:
		return moveAll(v.live(), v.snapshot(reset.NameNext))
	case rotate:
		return errors.Join(v.rotateEarlier(), renameIfThere(v.snapshot(reset.NameNext), v.snapshot(reset.NamePrevious)))
	case rotateEarly:
		return v.rotateEarlier()
	case current:
		return errors.Join(destroyAll(v.snapshot(reset.NameCurrent)), snapshotOf(v.live(), v.snapshot(reset.NameCurrent), true))
	case makeRoom:
		return destroyAll(v.snapshot(reset.NamePenultimate))
	case liveAway:
		return os.Rename(v.live(), v.live()+".old")
	case nextIn:
		return errors.Join(os.Rename(v.snapshot(reset.NameNext), v.live()), os.Rename(v.live()+".old", v.snapshot(reset.NameNext)))
	}
	return errors.ErrUnsupported
}

func (v *plainVolume) rotateEarlier() error {
	if !exists(v.snapshot(reset.NamePrevious)) {
		return nil // rotated already
	}
	return errors.Join(
		renameIfThere(v.snapshot(reset.NamePenultimate), v.snapshot("AGED-"+v.mark)),
		os.Rename(v.snapshot(reset.NamePrevious), v.snapshot(reset.NamePenultimate)),
	)
}

func renameIfThere(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// makeNew makes a subvolume what CLEAN has, but for /var/lib, by plain copies.
func (v *plainVolume) makeNew(root string) error {
	const script = `
		cd "$1"
		chattr -i var/log/locked
		find . -mindepth 1 -maxdepth 1 ! -name var ! -name .complete -exec rm -rf {} +
		find var -mindepth 1 -maxdepth 1 ! -name lib -exec rm -rf {} +
		find "$2" -mindepth 1 -maxdepth 1 ! -name var -exec cp -a --reflink=never -t . {} +
		find "$2/var" -mindepth 1 -maxdepth 1 ! -name lib -exec cp -a --reflink=never -t var {} +
		touch -r "$2/var" var
		touch -r "$2" .`
	out, err := exec.Command("bash", "-euc", script, "bash", root, v.snapshot(reset.NameClean)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// nestedNames are the nested subvolumes of the layout, all below the kept path. The
// plain engine knows no read-only ones.
var nestedNames = []string{"var/lib/machines/vm"}

func moveAll(from, to string) error {
	for _, name := range nestedNames {
		if err := moveOne(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// moveOne moves a nested subvolume into the place of its stub, unless it is there.
func moveOne(from, to string) error {
	if is, err := isNested(from); err != nil || !is {
		return err
	}
	var times [2]unix.Stat_t
	dirs := []string{filepath.Dir(from), filepath.Dir(to)}
	for i, dir := range dirs {
		if err := unix.Stat(dir, &times[i]); err != nil {
			return err
		}
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	for i, dir := range dirs {
		err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, []unix.Timespec{times[i].Atim, times[i].Mtim}, 0)
		if err != nil {
			return err
		}
	}
	return nil
}

func isNested(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return btrfs.IsSubvolume(f)
}

func snapshotOf(from, to string, readOnly bool) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close()
	return btrfs.Snapshot(src, dir, filepath.Base(to), readOnly)
}

// destroyAll destroys a subvolume and those nested in it.
func destroyAll(path string) error {
	if !exists(path) {
		return nil
	}
	for _, name := range nestedNames {
		is, err := isNested(filepath.Join(path, name))
		if err != nil {
			return err
		}
		if !is {
			continue
		}
		if err := destroyAll(filepath.Join(path, name)); err != nil {
			return err
		}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(btrfs.Destroy(dir, filepath.Base(path)), dir.Close())
}

func uuids(path string) (own, parent btrfs.UUID, err error) {
	f, err := os.Open(path)
	if err != nil {
		return own, parent, err
	}
	defer f.Close()
	info, err := btrfs.ReadInfo(f)
	return info.UUID, info.ParentUUID, err
}

// recover is the next boot: it brings what it finds to an end, by what is marked and
// by who descends from whom.
func (v *plainVolume) recover() error {
	isNew := v.isMarked(v.live())
	var todo []step
	switch {
	case exists(v.snapshot(reset.NameNext)):
		after, err := v.afterExchange()
		if err != nil {
			return err
		}
		switch {
		case after:
			todo = []step{moves, rotate, current, flush}
		case v.isMarked(v.snapshot(reset.NameNext)):
			todo = []step{exchange, moves, rotate, current, flush}
		default:
			if err := destroyAll(v.snapshot(reset.NameNext)); err != nil {
				return err
			}
			todo = append([]step{flush}, rightOrder...)
		}
	case !isNew:
		todo = rightOrder
	default:
		todo = []step{current, flush}
	}
	return v.doAll(todo, nil)
}

func (v *plainVolume) isMarked(path string) bool {
	mark, err := os.Readlink(filepath.Join(path, markName))
	return err == nil && mark == v.mark
}

func (v *plainVolume) afterExchange() (bool, error) {
	_, liveParent, err := uuids(v.live())
	if err != nil {
		return false, err
	}
	nextOwn, _, err := uuids(v.snapshot(reset.NameNext))
	return liveParent == nextOwn, err
}

func (v *plainVolume) doAll(steps []step, after func() error) error {
	for _, s := range steps {
		if err := v.do(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		if after == nil {
			continue
		}
		if err := after(); err != nil {
			return err
		}
	}
	return nil
}

func plainProgram(work func(v *plainVolume) error) program {
	return func(_ context.Context, device string) error {
		return withTop(device, func(top *os.File) error {
			return work(&plainVolume{top: top, path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), top.Fd()), mark: "boot-3"})
		})
	}
}

// plainScenario cuts the plain engine off, with a commit after each of its steps.
func (t Tools) plainScenario(order []step) *powercut.Scenario {
	return &powercut.Scenario{
		Name: "plain", Mode: "self-test",
		Prepare: inOrder(t.used(3), mounted(func(mount string) error {
			f, err := os.Open(filepath.Join(mount, rootVolume, "var/lib/machines"))
			if err != nil {
				return err
			}
			base := filepath.Join(f.Name(), "base")
			return errors.Join(f.Close(), destroyAll(base))
		})),
		Run: plainProgram(func(v *plainVolume) error {
			return v.doAll(order, func() error { return powercut.Commit(v.top) })
		}),
		Again: plainProgram((*plainVolume).recover),
		Checker: func() powercut.Checker {
			return newChecker(plainPlan(), func(state, state) error { return nil })
		},
	}
}

func TestPlainEngineHolds(t *testing.T) {
	tools := newTools(t)
	r := newRunner(t, powercut.Selection{Flushes: true, Writes: true, Subsets: 2, Sample: 8})
	result, err := r.Cut(t.Context(), tools.plainScenario(rightOrder))
	if err != nil {
		t.Fatalf("Cut = %v", err)
	}
	for _, f := range result.Failures {
		t.Errorf("point %s, %s: %s", f.Point, f.Phase, f.Error)
	}
	if n := result.Points[powercut.Flush].Tried; n < 2*len(rightOrder) {
		t.Errorf("Cut tried %d flushes, want two for each step at least", n)
	}
}

func TestWrongOrdersAreCaught(t *testing.T) {
	tools := newTools(t)
	tests := []struct {
		name  string
		order []step
	}{
		{"exchange before sync", []step{next, apply, ready, exchange, flush, moves, rotate, current, flush}},
		{"exchange before the work", []step{next, exchange, applyLive, readyLive, flush, moves, rotate, current, flush}},
		{"marked before the work", []step{next, ready, apply, flush, exchange, moves, rotate, current, flush}},
		{"marked before sync", []step{next, apply, ready, flush, exchange, moves, rotate, current, flush}},
		{"rotated before the exchange", []step{next, apply, flush, ready, flush, rotateEarly, exchange, moves, rotate, current, flush}},
		{"old history destroyed before the exchange", []step{next, makeRoom, apply, flush, ready, flush, exchange, moves, rotate, current, flush}},
		{"nested subvolumes moved before the exchange", []step{next, movesEarly, apply, flush, ready, flush, exchange, rotate, current, flush}},
		{"two renames", []step{next, apply, flush, ready, flush, liveAway, nextIn, moves, rotate, current, flush}},
		{"history rotated before nested subvolumes moved", []step{next, apply, flush, ready, flush, exchange, rotate, movesLate, current, flush}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRunner(t, powercut.Selection{Flushes: true})
			// Once is enough, unless something else on the machine calls sync(2)
			// just then, which makes up for a missing one.
			const tries = 4
			for range tries {
				result, err := r.Cut(t.Context(), tools.plainScenario(tt.order))
				if err != nil {
					t.Fatalf("Cut = %v", err)
				}
				if result.Failed() > 0 {
					f := result.Failures[0]
					t.Logf("%d of %d points fail, first %s, %s: %.300s", result.Failed(), result.Tried(), f.Point, f.Phase, f.Error)
					return
				}
			}
			t.Errorf("Cut found nothing in %d recordings", tries)
		})
	}
}
