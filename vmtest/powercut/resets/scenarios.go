package resets

import (
	"slices"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/vmtest/powercut"
)

// Tools are the programs that the scenarios run.
type Tools struct {
	Run         run.Runner
	InitrdReset string // path of the binary
	Snapshot    string // path of nixos-snapshot
	Helper      string // path of a program that calls Helper first; mostly this one
}

// installed makes a freshly installed machine.
func (t Tools) installed() program {
	return inOrder(mounted(install), t.takeClean(plan(reset.ModeReset)))
}

// used makes a machine that was used for days, with a boot and a cleanup between
// any two of them.
func (t Tools) used(days int) program {
	programs := []program{t.installed(), mounted(func(mount string) error { return day(mount, 1) })}
	p := plan(reset.ModeReset)
	for n := 2; n <= days; n++ {
		programs = append(programs, t.boot(p), t.cleanup(p),
			mounted(func(mount string) error { return day(mount, n) }))
	}
	return inOrder(programs...)
}

// Scenarios is the table.
func (t Tools) Scenarios() []*powercut.Scenario {
	return slices.Concat(t.resets(), t.fullDisks(), t.snapshots(), t.restores(), t.disabled(), t.cleanups(), t.cleans(), t.snapshotTool())
}

// both makes two scenarios of one: with the commits of the program alone, and with
// one after each change.
func (t Tools) both(s powercut.Scenario, c call) []*powercut.Scenario {
	calm, restless := s, s
	calm.Run = t.quiet(c)
	restless.Name += "-restless"
	restless.Dense = true
	restless.Run = restlessly(c)
	if s.Again == nil {
		calm.Again, restless.Again = calm.Run, calm.Run
	}
	return []*powercut.Scenario{&calm, &restless}
}

func (t Tools) resets() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	s := powercut.Scenario{
		Mode: string(p.Mode), CutTwice: true,
		Checker: func() powercut.Checker { return newChecker(p, verifyReset(p)) },
	}
	first, tenth := s, s
	first.Name, first.Prepare = "reset-first-boot", t.used(1)
	tenth.Name, tenth.Prepare = "reset-tenth-boot", t.used(10)
	return slices.Concat(t.both(first, t.initrdReset(p)), t.both(tenth, t.initrdReset(p)))
}

func (t Tools) fullDisks() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	s := powercut.Scenario{
		Mode: string(p.Mode),
		Checker: func() powercut.Checker {
			c := newChecker(p, verifyResetOrNothing(p))
			c.mayFail = true
			return c
		},
	}
	data, metadata := s, s
	data.Name, data.Prepare = "reset-full-of-data", inOrder(t.used(3), mounted(fillDisk))
	metadata.Name, metadata.Prepare = "reset-full-of-metadata", inOrder(data.Prepare, mounted(fillMore))
	all := slices.Concat(t.both(data, t.initrdReset(p)), t.both(metadata, t.initrdReset(p)))
	for _, s := range all {
		s.Run, s.Again = mayFail(s.Run), mayFail(s.Again)
	}
	return all
}

func (t Tools) snapshots() []*powercut.Scenario {
	p := plan(reset.ModeSnapshotOnly)
	return t.both(powercut.Scenario{
		Name: "snapshot-only", Mode: string(p.Mode), Prepare: t.used(3), CutTwice: true,
		Checker: func() powercut.Checker { return newChecker(p, verifySnapshot(p)) },
	}, t.initrdReset(p))
}

func (t Tools) restores() []*powercut.Scenario {
	return slices.Concat(
		t.restore(reset.ModeRestorePrevious, reset.NamePrevious),
		t.restore(reset.ModeRestorePenultimate, reset.NamePenultimate),
	)
}

func (t Tools) restore(mode reset.Mode, source string) []*powercut.Scenario {
	p := plan(mode)
	s := powercut.Scenario{
		Name: string(mode), Mode: string(mode), Prepare: t.used(3), CutTwice: true,
		Checker: func() powercut.Checker { return newChecker(p, verifyRestore(p, source)) },
	}
	// The owner takes the mode back after the boot that was cut off.
	back := s
	back.Name, back.CutTwice = s.Name+"-then-reset", false
	back.Again = t.boot(plan(reset.ModeReset))
	return slices.Concat(t.both(s, t.initrdReset(p)), t.both(back, t.initrdReset(p)))
}

func (t Tools) disabled() []*powercut.Scenario {
	p := plan(reset.ModeDisabled)
	return []*powercut.Scenario{{
		Name: string(p.Mode), Mode: string(p.Mode), Prepare: t.used(3), Run: t.boot(p),
		Checker: func() powercut.Checker { return newChecker(p, verifyUntouched(p)) },
	}}
}

func (t Tools) cleanups() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	return t.both(powercut.Scenario{
		Name: "cleanup", Mode: cleanupName, Prepare: inOrder(t.used(4), t.boot(p)),
		// After a cut comes a boot, and only then another cleanup.
		Again: inOrder(t.boot(p), t.cleanup(p)),
		Checker: func() powercut.Checker {
			c := newChecker(p, verifyCleanup(p))
			c.inUse = true
			return c
		},
	}, t.helper(cleanupName, p))
}

func (t Tools) cleans() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	return t.both(powercut.Scenario{
		Name: takeCleanName, Mode: takeCleanName, Prepare: mounted(install), CutTwice: true,
		Checker: func() powercut.Checker { return newChecker(p, verifyClean(p)) },
	}, t.helper(takeCleanName, p))
}
