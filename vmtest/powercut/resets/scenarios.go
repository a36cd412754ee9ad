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
}

// installed makes a freshly installed machine.
func (t Tools) installed() program {
	return inOrder(mounted(install), takeClean(plan(reset.ModeReset), quiet))
}

// used makes a machine that was used for days, with a boot and a cleanup between
// any two of them.
func (t Tools) used(days int) program {
	programs := []program{t.installed(), mounted(func(mount string) error { return day(mount, 1) })}
	p := plan(reset.ModeReset)
	for n := 2; n <= days; n++ {
		programs = append(programs, t.boot(p), cleanup(p, quiet),
			mounted(func(mount string) error { return day(mount, n) }))
	}
	return inOrder(programs...)
}

// Scenarios is the table.
func (t Tools) Scenarios() []*powercut.Scenario {
	return slices.Concat(t.resets(), t.snapshots(), t.restores(), t.others())
}

// twice makes two scenarios of one: with the commits of the program alone, and
// with one after each change.
func (t Tools) twice(s powercut.Scenario, p *reset.PlanFile) []*powercut.Scenario {
	calm, restless := s, s
	calm.Run = t.boot(p)
	if calm.Again == nil {
		calm.Again = t.boot(p)
	}
	restless.Name += "-restless"
	restless.Run, restless.Again = t.restlessBoot(p), calm.Again
	return []*powercut.Scenario{&calm, &restless}
}

func (t Tools) resets() []*powercut.Scenario {
	p := plan(reset.ModeReset)
	checker := func() powercut.Checker { return newChecker(p, verifyReset(p)) }
	mode := string(reset.ModeReset)
	return slices.Concat(
		t.twice(powercut.Scenario{
			Name: "reset-first-boot", Mode: mode, Prepare: t.used(1), Checker: checker, CutTwice: true,
		}, p),
		t.twice(powercut.Scenario{
			Name: "reset-tenth-boot", Mode: mode, Prepare: t.used(10), Checker: checker, CutTwice: true,
		}, p),
	)
}

func (t Tools) snapshots() []*powercut.Scenario {
	p := plan(reset.ModeSnapshotOnly)
	checker := func() powercut.Checker { return newChecker(p, verifySnapshot(p)) }
	return t.twice(powercut.Scenario{
		Name: "snapshot-only", Mode: string(p.Mode), Prepare: t.used(3), Checker: checker, CutTwice: true,
	}, p)
}

func (t Tools) restores() []*powercut.Scenario {
	var all []*powercut.Scenario
	for mode, source := range map[reset.Mode]string{
		reset.ModeRestorePrevious:    reset.NamePrevious,
		reset.ModeRestorePenultimate: reset.NamePenultimate,
	} {
		p := plan(mode)
		s := powercut.Scenario{
			Name: string(mode), Mode: string(mode), Prepare: t.used(3), CutTwice: true,
			Checker: func() powercut.Checker { return newChecker(p, verifyRestore(p, source)) },
		}
		all = append(all, t.twice(s, p)...)
		// The owner takes the mode back after the boot that was cut off.
		s.Name, s.CutTwice = s.Name+"-then-reset", false
		s.Again = t.boot(plan(reset.ModeReset))
		all = append(all, t.twice(s, p)...)
	}
	return all
}

func (t Tools) others() []*powercut.Scenario {
	disabled := plan(reset.ModeDisabled)
	all := []*powercut.Scenario{{
		Name: "disabled", Mode: string(disabled.Mode), Prepare: t.used(3), Run: t.boot(disabled),
		Checker: func() powercut.Checker { return newChecker(disabled, verifyUntouched(disabled)) },
	}}
	return all
}
