package resets

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx/model"
	"nixos-go/vmtest/powercut"
)

// checker checks the invariants of the package comment on one recording.
type checker struct {
	plan   *reset.PlanFile
	verify func(before, after state) error // what the uninterrupted run has to have done
	// mayFail says that a run may find no space on the disk and leave volumes as
	// they were.
	mayFail bool
	// inUse says that the live volumes are mounted while the program works, so that
	// the times of their roots mean nothing until the next boot.
	inUse bool

	before, done        state
	recovered, settling []state // what runs without a cut reached
	// anyTime are the paths whose times differ between two runs from the same
	// disk, by volume: something new was made there.
	anyTime map[string]map[string]bool
	// moved are the nested subvolumes that went with the exchange, by volume.
	moved map[string]map[string]bool
}

func newChecker(p *reset.PlanFile, verify func(before, after state) error) *checker {
	return &checker{plan: p, verify: verify, anyTime: map[string]map[string]bool{}, moved: map[string]map[string]bool{}}
}

// Check implements powercut.Checker.
func (c *checker) Check(_ context.Context, mount string, phase powercut.Phase) error {
	got, err := readState(mount, c.plan)
	if err != nil {
		return err
	}
	switch phase {
	case powercut.Before:
		c.before = got
	case powercut.Done:
		c.done = got
		if err := c.verify(c.before, c.done); err != nil {
			return err
		}
		if c.mayFail {
			c.expectResets()
		}
		c.findMoved()
	case powercut.MayRecover:
		c.recovered = append(c.recovered, got)
		c.findAnyTime()
	case powercut.MaySettle:
		c.settling = append(c.settling, got)
		c.findAnyTime()
	case powercut.Crashed:
		return c.each(func(name string) error { return c.crashed(name, got[name]) })
	case powercut.Recovered, powercut.Settled:
		if c.inUse {
			return c.each(func(name string) error { return c.unharmed(name, got[name]) })
		}
		states := map[powercut.Phase][]state{powercut.Recovered: c.recovered, powercut.Settled: c.settling}[phase]
		return c.each(func(name string) error { return c.reached(name, got[name], states) })
	}
	return nil
}

// each checks the volumes, which are independent of each other.
func (c *checker) each(check func(name string) error) error {
	var errs []error
	for _, v := range c.plan.Volumes {
		if err := check(v.Name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.Name, err))
		}
	}
	return errors.Join(errs...)
}

// expectResets takes the model's new state for that of volumes that a run left as
// they were: the next may find the space.
func (c *checker) expectResets() {
	for _, v := range c.plan.Volumes {
		before, done := c.before[v.Name], c.done[v.Name]
		if before[live].uuid == done[live].uuid {
			expected := done[live]
			expected.uuid = "any other"
			expected.tree = model.Expect(before[live].tree, before[c.plan.Clean].tree, v.Keep, v.Exclude)
			done[live] = expected
		}
	}
}

// findMoved finds what is the same nested subvolume before and after, although
// the live subvolume is another.
func (c *checker) findMoved() {
	for name, before := range c.before {
		c.moved[name] = map[string]bool{}
		after := c.done[name]
		if before[live].uuid == after[live].uuid {
			continue
		}
		for path, e := range before[live].tree {
			if e.Subvolume && after[live].tree[path].UUID == e.UUID {
				c.moved[name][path] = true
			}
		}
	}
}

// findAnyTime compares states that runs reached from the same disk: one run
// from the start, and two.
func (c *checker) findAnyTime() {
	twins := [][2]state{{c.done, at(c.recovered, 0)}, {at(c.settling, 0), at(c.recovered, 1)}}
	for _, twin := range twins {
		for volume, a := range twin[0] {
			b, ok := twin[1][volume]
			if !ok {
				continue
			}
			if c.anyTime[volume] == nil {
				c.anyTime[volume] = map[string]bool{}
			}
			for name := range a {
				noteTimes(c.anyTime[volume], a[name].tree, b[name].tree)
			}
		}
	}
}

func at(states []state, i int) state {
	if i < len(states) {
		return states[i]
	}
	return nil
}

func noteTimes(paths map[string]bool, a, b model.Tree) {
	for path, e := range a {
		if f, ok := b[path]; ok && e.Type == f.Type && e.MTime != f.MTime {
			paths[path] = true
		}
	}
}

// lenient is a wanted subvolume in which the times do not matter that no run
// repeats, nor the identity of nested subvolumes that a run makes.
func (c *checker) lenient(volume string, want subvolume) subvolume {
	tree := maps.Clone(want.tree)
	old := c.before[volume][live].tree
	for path, e := range tree {
		e.AnyMTime = e.AnyMTime || c.anyTime[volume][path]
		if e.Subvolume && old[path].UUID != e.UUID {
			e.UUID = ""
		}
		tree[path] = e
	}
	want.tree = tree
	return want
}

// reached checks that a volume is in one of the states that runs without a cut
// reached, and otherwise tells how it differs from the nearest.
func (c *checker) reached(name string, got volumeState, states []state) error {
	nearest := ""
	if c.mayFail && verifyOutcome(c.plan, name, c.before[name], got) == nil {
		return nil
	}
	for _, s := range states {
		want := s[name].settled()
		for snapshot, sub := range want {
			want[snapshot] = c.lenient(name, sub)
		}
		diff := diffVolume(want, got.settled())
		if diff == "" {
			return nil
		}
		if nearest == "" || len(diff) < len(nearest) {
			nearest = diff
		}
	}
	return fmt.Errorf("I2: no run without a cut reaches this state; the nearest differs in\n%s", nearest)
}

// crashed checks I1 and I3.
func (c *checker) crashed(name string, got volumeState) error {
	return errors.Join(
		c.complete(name, got), c.cleanComplete(name, got),
		c.oldReachable(name, got), c.historyReachable(name, got), c.movedComplete(name, got),
	)
}

// same tells how a subvolume differs from a wanted one, but for nested subvolumes
// that move, the times and flags of the directories that they move between, and what
// is set at the end.
func (c *checker) same(volume, name string, want, got subvolume) string {
	want = c.lenient(volume, want)
	if c.inUse {
		anyTime(want.tree, "")
	}
	for path := range c.moved[volume] {
		dir := parent(path)
		anyTime(want.tree, dir)
		if e, ok := want.tree[dir]; ok {
			e.Flags = got.tree[dir].Flags
			want.tree[dir] = e
		}
	}
	want.tree, got.tree = without(want.tree, c.moved[volume]), without(got.tree, c.moved[volume])
	want.readOnly, want.ready, want.trash = got.readOnly, got.ready, got.trash
	return diffSubvolume(name, want, got)
}

// anyTime makes the time of a path of a wanted tree not matter.
func anyTime(t model.Tree, path string) {
	if e, ok := t[path]; ok {
		e.AnyMTime = true
		t[path] = e
	}
}

// unharmed checks a volume after a cut of what runs while it is in use. What was
// done of that is a change like one of the owner's, so the boots after it may have
// moved the history on, but for nothing else.
func (c *checker) unharmed(volume string, got volumeState) error {
	now := c.before[volume][live].tree
	left := model.ExpectPrevious(now, c.rules(volume)) // by what moves out of it
	wanted := maps.Clone(now)
	for path := range left {
		e := wanted[path]
		e.UUID = ""
		wanted[path] = e
	}
	// From the newest on: what the boots put aside, then the history as it was.
	history := []model.Tree{
		left, left,
		c.before[volume][reset.NamePrevious].tree, c.before[volume][reset.NamePenultimate].tree,
	}
	clean := c.before[volume][c.plan.Clean]
	errs := []error{
		wantTree(live, wanted, got[live].tree),
		wantTree(reset.NameCurrent, asSnapshot(got[live].tree), got[reset.NameCurrent].tree),
		wantTree(c.plan.Clean, clean.tree, got[c.plan.Clean].tree),
		wantNone(got, reset.NameNext),
	}
	var moved error
	for ; len(history) >= 2; history = history[1:] {
		moved = errors.Join(
			wantTree(reset.NamePrevious, putAside(history[0]), got[reset.NamePrevious].tree),
			wantTree(reset.NamePenultimate, putAside(history[1]), got[reset.NamePenultimate].tree))
		if moved == nil {
			break
		}
	}
	return errors.Join(append(errs, moved)...)
}

// putAside is a wanted tree that was live while its root's time was in flux, and
// whose nested subvolumes may have been made anew.
func putAside(t model.Tree) model.Tree {
	left := maps.Clone(t)
	for path, e := range left {
		e.UUID = ""
		left[path] = e
	}
	anyTime(left, "")
	return left
}

func (c *checker) rules(volume string) model.Rules {
	for _, v := range c.plan.Volumes {
		if v.Name == volume {
			return model.Rules{Keep: v.Keep, Exclude: v.Exclude}
		}
	}
	return model.Rules{}
}

// complete checks I1: live is the old state or the new one.
func (c *checker) complete(volume string, got volumeState) error {
	fromOld := c.same(volume, live, c.before[volume][live], got[live])
	fromNew := c.same(volume, live, c.done[volume][live], got[live])
	if fromOld == "" || fromNew == "" {
		return nil
	}
	return fmt.Errorf("I1: it differs from the old state in\n%s\nand from the new state in\n%s", fromOld, fromNew)
}

// cleanComplete checks that a CLEAN that is there is whole.
func (c *checker) cleanComplete(volume string, got volumeState) error {
	clean, ok := got[c.plan.Clean]
	if !ok {
		return nil // whether it has to be there is history's business
	}
	if diff := c.same(volume, c.plan.Clean, c.done[volume][c.plan.Clean], clean); diff != "" {
		return fmt.Errorf("it is not what it should be: %s", diff)
	}
	return nil
}

// oldReachable checks I3: the old state is there under a name that it may have.
func (c *checker) oldReachable(volume string, got volumeState) error {
	return c.reachable("the old state", volume, c.before[volume][live], got,
		live, reset.NameNext, reset.NamePrevious, reset.NameReplaced)
}

func (c *checker) reachable(what, volume string, want subvolume, got volumeState, names ...string) error {
	var diffs []string
	for _, name := range names {
		sub, ok := got[name]
		if !ok {
			continue
		}
		diff := c.same(volume, name, want, sub)
		if diff == "" {
			return nil
		}
		diffs = append(diffs, diff)
	}
	return fmt.Errorf("I3: %s is not there as any of %s: it differs from\n%s",
		what, strings.Join(names, ", "), strings.Join(diffs, "\n"))
}

// historyReachable checks that the earlier snapshots are there, and that they
// have not moved while the live volume is still the old one.
func (c *checker) historyReachable(volume string, got volumeState) error {
	aged := slices.DeleteFunc(slices.Collect(maps.Keys(got)), func(name string) bool { return !reset.IsAged(name) })
	swapped := c.before[volume][live].uuid != got[live].uuid
	var errs []error
	for name, want := range c.before[volume] {
		var names []string
		switch {
		case name == live, name == reset.NameNext, reset.IsAged(name):
			continue // of the run before, or waiting for the cleanup
		case name == reset.NameCurrent:
			continue // can be made again
		case name == c.plan.Clean, !swapped && c.moves(volume):
			names = []string{name}
		case name == reset.NamePrevious:
			names = []string{reset.NamePrevious, reset.NamePenultimate}
		default:
			names = append([]string{name}, aged...)
		}
		errs = append(errs, c.reachable("the earlier "+name, volume, want, got, names...))
	}
	return errors.Join(errs...)
}

// moves reports whether the program exchanges the live volume at all.
func (c *checker) moves(volume string) bool {
	return c.before[volume][live].uuid != c.done[volume][live].uuid
}

// movedComplete checks that each nested subvolume that moves is there, whole,
// in the old place or in the new one.
func (c *checker) movedComplete(volume string, got volumeState) error {
	var errs []error
	for path := range c.moved[volume] {
		if err := c.movedSubvolume(volume, path, got); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *checker) movedSubvolume(volume, path string, got volumeState) error {
	want := below(c.before[volume][live].tree, path)
	diff := "it is nowhere"
	for _, name := range []string{live, reset.NameNext, reset.NamePrevious, reset.NameReplaced} {
		part := below(got[name].tree, path)
		e, ok := part[path]
		if !ok || !e.Subvolume {
			continue
		}
		// One that is read-only or immutable has to be open to changes while it moves.
		e.ReadOnly, e.Flags = want[path].ReadOnly, want[path].Flags
		part[path] = e
		if diff = model.Diff(want, part); diff == "" {
			return nil
		}
		diff = "in " + name + " it differs from what it was:\n" + diff
	}
	return fmt.Errorf("nested subvolume %q: %s", path, diff)
}
