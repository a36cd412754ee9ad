package resets

import (
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
	p := plan(reset.ModeReset)
	return []*powercut.Scenario{
		{
			Name: "reset-first-boot", Mode: string(reset.ModeReset),
			Prepare: t.used(1), Run: t.boot(p), CutTwice: true,
			Checker: func() powercut.Checker { return newChecker(p, verifyReset(p)) },
		},
		{
			Name: "reset-first-boot-restless", Mode: string(reset.ModeReset),
			Prepare: t.used(1), Run: t.restlessBoot(p), Again: t.boot(p),
			Checker: func() powercut.Checker { return newChecker(p, verifyReset(p)) },
		},
		{
			Name: "reset-tenth-boot", Mode: string(reset.ModeReset),
			Prepare: t.used(10), Run: t.boot(p),
			Checker: func() powercut.Checker { return newChecker(p, verifyReset(p)) },
		},
		{
			Name: "reset-tenth-boot-restless", Mode: string(reset.ModeReset),
			Prepare: t.used(10), Run: t.restlessBoot(p), Again: t.boot(p),
			Checker: func() powercut.Checker { return newChecker(p, verifyReset(p)) },
		},
	}
}
