package reset

import (
	"errors"
	"fmt"
	"os"
	"time"

	"nixos-go/pkg/btrfs"
)

// Options says how a run goes about its work.
type Options struct {
	// Mode overrides the plan's; ModeFrom says where it comes from, for the report.
	Mode     Mode
	ModeFrom string
	// DryRun plans, and writes nothing.
	DryRun bool
	// Trace is called right before and after each change to the disk, from
	// several goroutines. Tests cut a run off in it.
	Trace func(Step)
	// MountInfo is the file that lists the mounts; /proc/self/mountinfo if empty.
	MountInfo string
}

// Run does what the mode says to the volumes of a plan. top is the open top level
// (subvolid=5) of their file system. Volumes are independent: what fails in one is
// in its Result and leaves it as it was. The error, which wraps ErrCheck, is of what
// stops all of them before anything is written; the report is never nil.
func Run(top *os.File, plan *PlanFile, options Options) (*Report, error) {
	r := &run{top: top, plan: plan, options: options}
	r.report = Report{Version: ReportVersion, Mode: options.Mode, ModeFrom: options.ModeFrom, DryRun: options.DryRun, Started: time.Now()}
	if r.report.Mode == "" {
		r.report.Mode, r.report.ModeFrom = plan.Mode, "the plan"
	}
	if r.report.Mode == "" {
		r.report.Mode, r.report.ModeFrom = ModeReset, "the default"
	}
	err := r.do()
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrCheck, err)
		r.report.Error = err.Error()
	}
	r.finishReport()
	return &r.report, err
}

// run is one call of Run.
type run struct {
	top       *os.File
	plan      *PlanFile
	options   Options
	snapshots *os.File
	clock     stopwatch
	volumes   []*volume
	report    Report
}

func (r *run) do() error {
	if r.report.Mode == ModeDisabled {
		for _, spec := range r.plan.Volumes {
			r.volumes = append(r.volumes, &volume{spec: spec, clock: &stopwatch{}, result: Result{Outcome: OutcomeDisabled}})
		}
		return nil
	}
	if err := r.begin(r.plan.Volumes); err != nil {
		return err
	}
	defer r.close()
	if r.options.DryRun {
		r.each(pending, func(v *volume) error { return v.preview(r.report.Mode) })
		return nil
	}
	r.work()
	return nil
}

// begin opens what the run works on and checks it. A dry run writes nothing, so it
// takes no lock, and the volumes may be mounted.
func (r *run) begin(volumes []PlanFileVolume) error {
	if err := checkFilesystem(r.top, r.options.DryRun); err != nil {
		return err
	}
	open := openSnapshots
	var mountInfo []byte
	if r.options.DryRun {
		open = openSnapshotsUnlocked
	} else {
		var err error
		if mountInfo, err = os.ReadFile(r.mountInfo()); err != nil {
			return err
		}
	}
	var err error
	if r.snapshots, err = open(r.top, r.plan.Snapshots); err != nil {
		return err
	}
	// What is still in memory has no transaction yet: without this, a volume in
	// use would look as it did at the last commit. Free when nothing is.
	if err := r.clock.measure("settle", func() error { return btrfs.Sync(r.top) }); err != nil {
		r.snapshots.Close()
		return err
	}
	for _, spec := range volumes {
		r.volumes = append(r.volumes, &volume{
			spec: spec, plan: r.plan, top: r.top, trace: r.options.Trace, clock: &stopwatch{},
		})
	}
	r.each(nil, func(v *volume) error {
		return v.clock.measure("check", func() error { return v.begin(r.snapshots, r.report.Mode, r.options.DryRun, mountInfo) })
	})
	return nil
}

func (r *run) mountInfo() string {
	if r.options.MountInfo != "" {
		return r.options.MountInfo
	}
	return "/proc/self/mountinfo"
}

// work takes the volumes that have anything to do through all steps, together.
func (r *run) work() {
	mode := r.report.Mode
	start := newRendezvous(r.count(pending))
	r.each(pending, func(v *volume) error {
		v.start = start
		return v.build(mode)
	})
	if !r.any(pending) {
		return
	}
	if mode != ModeSnapshotOnly { // a snapshot is on disk once it is taken
		err := r.clock.measure("sync", r.sync)
		if err != nil {
			r.each(pending, func(v *volume) error { return errors.Join(err, v.discardNext()) })
			return
		}
	}
	r.each(pending, func(v *volume) error {
		return v.clock.measure("exchange", func() error { return v.exchange(mode) })
	})
	err := r.clock.measure("conclude", func() error { return r.conclude(mode) })
	if err != nil {
		r.report.Warnings = append(r.report.Warnings, fmt.Sprintf("the last sync failed: %v", err))
	}
	r.each(pending, func(v *volume) error {
		v.result.Outcome = map[bool]Outcome{true: OutcomeRestored, false: OutcomeReset}[mode.restores()]
		if mode == ModeSnapshotOnly {
			v.result.Outcome = OutcomeSnapshot
		}
		return nil
	})
}

// conclude brings everything since the exchange to disk: by the snapshots CURRENT,
// which commit, or where there are none by a sync.
func (r *run) conclude(mode Mode) error {
	committed := false
	if mode == ModeReset {
		var tasks []func() error
		start := newRendezvous(0)
		for _, v := range r.volumes {
			if !pending(v) || !v.result.finished {
				continue
			}
			start.expected.Add(1)
			v.start = start
			tasks = append(tasks, func() error {
				err := v.takeCurrent()
				if err != nil {
					v.warnf("no %s, so the next reset compares everything: %v", NameCurrent, explainSpace(err))
				}
				return err
			})
		}
		committed = len(tasks) > 0 && together(tasks...) == nil && len(tasks) == r.count(pending)
	}
	if committed {
		return nil
	}
	return r.sync()
}

func (r *run) sync() error {
	first := r.volumes[0]
	for _, v := range r.volumes {
		if pending(v) {
			first = v
			break
		}
	}
	return first.step("sync", func() error { return btrfs.Sync(r.top) })
}

// pending reports whether a volume has work ahead, or work that went well.
func pending(v *volume) bool { return v.err == nil && v.result.Outcome == "" }

func (r *run) any(which func(*volume) bool) bool { return r.count(which) > 0 }

func (r *run) count(which func(*volume) bool) int {
	n := 0
	for _, v := range r.volumes {
		if which(v) {
			n++
		}
	}
	return n
}

// each does the same to all volumes of a kind at the same time.
func (r *run) each(which func(*volume) bool, work func(*volume) error) {
	var tasks []func() error
	for _, v := range r.volumes {
		if which == nil || which(v) {
			tasks = append(tasks, func() error {
				v.err = explainSpace(work(v))
				return nil
			})
		}
	}
	if len(tasks) > 0 {
		_ = together(tasks...) // each volume has its own error
	}
}

func (r *run) close() {
	r.snapshots.Close()
	for _, v := range r.volumes {
		if v.dir != nil {
			v.dir.Close()
		}
	}
}

func (r *run) finishReport() {
	for _, v := range r.volumes {
		v.result.Name, v.result.MountPoint = v.spec.Name, v.spec.MountPoint
		v.result.Phases = v.clock.phases
		if v.err != nil {
			v.result.Outcome, v.result.Error = OutcomeFailed, v.err.Error()
		}
		if v.planned != nil && v.err == nil {
			v.result.Way, v.result.Changes = v.planned.Way, v.planned.Changes
			v.result.Moved = len(v.planned.Moves)
			v.result.count()
		}
		r.report.Volumes = append(r.report.Volumes, v.result)
	}
	r.report.Phases = r.clock.phases
	r.report.Milliseconds = float64(time.Since(r.report.Started).Microseconds()) / 1000
}
