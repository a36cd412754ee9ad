package resets

import (
	"errors"
	"fmt"
	"slices"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx/model"
)

// verifyReset holds a reset that was not cut off against the model.
func verifyReset(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, verifyResetOf)
}

func verifyResetOf(v reset.PlanFileVolume, before, after volumeState) error {
	rules := model.Rules{Keep: v.Keep, Exclude: v.Exclude}
	old, clean := before[live].tree, before[reset.NameClean].tree
	current := after[reset.NameCurrent]
	if !current.ready || !current.readOnly {
		return fmt.Errorf("%s: ready %v, read-only %v, want both", reset.NameCurrent, current.ready, current.readOnly)
	}
	penultimate := before[reset.NamePrevious].tree
	if penultimate == nil { // the first boot: CLEAN stands in
		penultimate = clean
	}
	want := model.Expect(old, clean, v.Keep, v.Exclude)
	return errors.Join(
		wantTree(live, want, after[live].tree),
		wantTree(reset.NamePrevious, model.ExpectPrevious(old, rules), after[reset.NamePrevious].tree),
		wantTree(reset.NamePenultimate, penultimate, after[reset.NamePenultimate].tree),
		wantTree(reset.NameCurrent, asSnapshot(after[live].tree), current.tree),
		wantNone(after, reset.NameNext),
	)
}

// verifyResetOrNothing holds a run that may have found no space against both that it
// may do: reset a volume, or leave it as it was.
func verifyResetOrNothing(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, func(v reset.PlanFileVolume, before, after volumeState) error {
		return verifyOutcome(p, v.Name, before, after)
	})
}

func verifyOutcome(p *reset.PlanFile, volume string, before, after volumeState) error {
	diff := diffVolume(before, after)
	if diff == "" {
		return nil
	}
	i := slices.IndexFunc(p.Volumes, func(v reset.PlanFileVolume) bool { return v.Name == volume })
	if err := verifyResetOf(p.Volumes[i], before, after); err != nil {
		return fmt.Errorf("it was neither left as it was:\n%s\nnor reset: %w", diff, err)
	}
	return nil
}

// verifySnapshot holds a run in mode snapshot-only against what it has to do.
func verifySnapshot(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, func(_ reset.PlanFileVolume, before, after volumeState) error {
		return errors.Join(
			wantSame(before, after, live),
			wantTree(reset.NamePrevious, asSnapshot(before[live].tree), after[reset.NamePrevious].tree),
			wantTree(reset.NamePenultimate, before[reset.NamePrevious].tree, after[reset.NamePenultimate].tree),
			wantSame(before, after, reset.NameCurrent),
			wantNone(after, reset.NameNext),
		)
	})
}

// verifyRestore holds a restore of the snapshot source against what it has to do:
// live is that snapshot, with the nested subvolumes that moved; what was live is
// REPLACED; the history stays.
func verifyRestore(p *reset.PlanFile, source string) func(before, after state) error {
	return eachVolume(p, func(v reset.PlanFileVolume, before, after volumeState) error {
		rules := model.Rules{Keep: v.Keep, Exclude: v.Exclude}
		return errors.Join(
			wantTree(live, restored(before[live].tree, before[source].tree, rules), after[live].tree),
			wantTree(reset.NameReplaced, model.ExpectPrevious(before[live].tree, rules), after[reset.NameReplaced].tree),
			wantSame(before, after, reset.NamePrevious),
			wantSame(before, after, reset.NamePenultimate),
			wantSame(before, after, reset.NameCurrent),
			wantNone(after, reset.NameNext),
		)
	})
}

// verifyUntouched holds a run that must leave everything alone against that.
func verifyUntouched(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, func(_ reset.PlanFileVolume, before, after volumeState) error {
		if diff := diffVolume(before, after); diff != "" {
			return fmt.Errorf("it was touched:\n%s", diff)
		}
		return nil
	})
}

// verifyCleanup holds a cleanup against what it has to do: nothing to what is kept
// or wanted, away with the rest, and everything but live read-only.
func verifyCleanup(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, func(_ reset.PlanFileVolume, before, after volumeState) error {
		var errs []error
		if after[live].trash {
			errs = append(errs, fmt.Errorf("%s: %s is left", live, reset.TrashName))
		}
		for name := range before {
			if reset.IsAged(name) {
				errs = append(errs, wantNone(after, name))
				continue
			}
			errs = append(errs, wantSame(before, after, name))
			if name != live && !after[name].readOnly {
				errs = append(errs, fmt.Errorf("%s can be written to", name))
			}
		}
		return errors.Join(errs...)
	})
}

// verifyClean holds the taking of CLEAN against what it has to be.
func verifyClean(p *reset.PlanFile) func(before, after state) error {
	return eachVolume(p, func(v reset.PlanFileVolume, before, after volumeState) error {
		clean := after[p.Clean]
		if !clean.readOnly {
			return fmt.Errorf("%s: not there, or can be written to", p.Clean)
		}
		return errors.Join(wantSame(before, after, live), wantTree(p.Clean, model.ExpectFirstClean(before[live].tree, v.Keep, v.Exclude, nil), clean.tree))
	})
}

// restored is the tree of a restored snapshot: the snapshot's, in which the
// stubs are gone, with the nested subvolumes of the old live state that moved.
func restored(old, source model.Tree, rules model.Rules) model.Tree {
	want := model.Tree{}
	for path, e := range source {
		if !e.Stub {
			e.UUID, e.ReadOnly = "", false // of a nested one a new snapshot is made
			want[path] = e
		}
	}
	previous := model.ExpectPrevious(old, rules)
	for path, e := range old {
		if _, stays := previous[path]; !stays {
			want[path] = e
		}
	}
	return want
}

// asSnapshot is how a snapshot shows a tree: stubs in the place of nested
// subvolumes.
func asSnapshot(t model.Tree) model.Tree {
	nested := map[string]bool{}
	for path, e := range t {
		if e.Subvolume {
			nested[path] = true
		}
	}
	return without(t, nested)
}

// withoutStubs leaves out the stubs, whose times and modes the kernel makes up.
func withoutStubs(t model.Tree) model.Tree {
	left := model.Tree{}
	for path, e := range t {
		if !e.Stub {
			left[path] = e
		}
	}
	return left
}

func wantTree(name string, want, got model.Tree) error {
	if diff := model.Diff(withoutStubs(want), withoutStubs(got)); diff != "" {
		return fmt.Errorf("%s is not what the model wants:\n%s", name, diff)
	}
	return nil
}

func wantSame(before, after volumeState, name string) error {
	b, inBefore := before[name]
	a, inAfter := after[name]
	if inBefore != inAfter {
		return fmt.Errorf("%s: there before %v, after %v", name, inBefore, inAfter)
	}
	return wantTree(name, b.tree, a.tree)
}

func wantNone(after volumeState, name string) error {
	if _, ok := after[name]; ok {
		return fmt.Errorf("%s is left", name)
	}
	return nil
}

func eachVolume(p *reset.PlanFile, verify func(v reset.PlanFileVolume, before, after volumeState) error) func(before, after state) error {
	return func(before, after state) error {
		var errs []error
		for _, v := range p.Volumes {
			if err := verify(v, before[v.Name], after[v.Name]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", v.Name, err))
			}
		}
		return errors.Join(errs...)
	}
}
