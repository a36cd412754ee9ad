package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"nixos-go/pkg/reset"
)

func main() {
	// The heap stays far below the limit, so the collector need not run before.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(50 << 20)
	os.Exit(run(os.Args, machine{
		stdout: os.Stdout, stderr: os.Stderr,
		plan: "/etc/immutability/plan.json", report: "/run/initrd-reset/report.json",
		commandLine: "/proc/cmdline", mountInfo: "/proc/self/mountinfo",
		initrdRelease: "/etc/initrd-release", kernelLog: "/dev/kmsg",
		hibernateLocation: "/sys/firmware/efi/efivars/HibernateLocation-8cf2644b-4b0b-428f-9387-6d876050dc67",
		devices:           "/dev",
	}))
}

// machine is everything outside of the program that it looks at or writes to, so
// that a test can have one of its own.
type machine struct {
	stdout, stderr io.Writer

	plan, report           string // defaults of the flags
	commandLine, mountInfo string
	initrdRelease          string // exists in an initrd alone (os-release(5))
	kernelLog              string
	hibernateLocation      string // systemd's EFI variable (systemd-hibernate-resume.service(8))
	devices                string // /dev
}

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the program: it returns the exit status.
func run(args []string, m machine) int {
	flags, err := parseFlags(args, m)
	if errors.Is(err, errHelp) {
		return exitDone
	}
	p := newPrinter(m)
	defer p.close()
	if err != nil {
		p.failf("%v (see %s -h)", err, flags.name)
		return exitUsage
	}
	if p.booting && fileExists(flags.report) {
		p.sayf("the report of this boot is there already: nothing to do")
		return exitDone
	}
	report, status := work(flags, m)
	p.tell(report)
	switch {
	case flags.dryRun:
	case keepsReport(flags, m, p.booting, report):
		p.sayf("the report in %s stays: this run changed nothing", flags.report)
	default:
		if err := writeReport(flags.report, report); err != nil {
			p.failf("%v", err)
			status = max(status, exitFailed)
		}
	}
	if flags.json {
		if err := printJSON(m.stdout, report); err != nil {
			p.failf("%v", err)
			status = max(status, exitFailed)
		}
	}
	return status
}

// keepsReport reports whether the report of the boot stays where it is: someone who
// runs the program by hand, and is refused, must not lose the list of what the boot
// wiped.
func keepsReport(f flags, m machine, booting bool, r *reset.Report) bool {
	if booting || f.report != m.report || !fileExists(f.report) {
		return false
	}
	for i := range r.Volumes {
		o := r.Volumes[i].Outcome
		if o == reset.OutcomeReset || o == reset.OutcomeRestored || o == reset.OutcomeSnapshot {
			return false
		}
	}
	return true
}

// work runs the reset and gives the report, with an error in it where it could not
// begin.
func work(flags flags, m machine) (*reset.Report, int) {
	report := &reset.Report{
		Version: reset.ReportVersion, Mode: flags.mode, ModeFrom: flags.modeFrom, DryRun: flags.dryRun, Started: time.Now(),
		Phases: []reset.Phase{}, Volumes: []reset.Result{},
	}
	fail := func(err error, status int) (*reset.Report, int) {
		report.Error = err.Error()
		report.Milliseconds = float64(time.Since(report.Started).Microseconds()) / 1000
		return report, status
	}
	mode, from, err := chooseMode(flags, m)
	if err != nil {
		return fail(err, exitUsage)
	}
	report.Mode, report.ModeFrom = mode, from
	plan, err := readPlan(flags.plan)
	if err != nil && mode != reset.ModeDisabled {
		return fail(err, exitUsage)
	}
	if mode == "" {
		mode, from = planMode(plan)
		report.Mode, report.ModeFrom = mode, from
	}
	if mode == reset.ModeDisabled {
		return disabled(report, plan), exitDone
	}
	if err := checkHibernation(m); err != nil {
		return fail(fmt.Errorf("%w: %w", reset.ErrCheck, err), exitFailed)
	}
	device := flags.device
	if device == "" {
		device = plan.Device
	}
	if device == "" {
		return fail(errors.New("no device: name one in the plan, or with --device"), exitUsage)
	}
	top, err := reset.OpenTop(device, flags.dryRun)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", reset.ErrCheck, err), exitFailed)
	}
	defer top.Close()
	report, err = reset.Run(top, plan, reset.Options{
		Mode: mode, ModeFrom: from, DryRun: flags.dryRun, MountInfo: m.mountInfo,
	})
	if err != nil || report.Failed() {
		return report, exitFailed
	}
	return report, exitDone
}

// planMode gives the mode that nothing has overruled.
func planMode(plan *reset.PlanFile) (reset.Mode, string) {
	if plan.Mode == "" {
		return reset.ModeReset, "the default"
	}
	return plan.Mode, "the plan"
}

// disabled completes the report of a run that touches nothing, not even the device.
// That the plan cannot be read does not matter then.
func disabled(report *reset.Report, plan *reset.PlanFile) *reset.Report {
	if plan == nil {
		return report
	}
	for _, v := range plan.Volumes {
		report.Volumes = append(report.Volumes, reset.Result{Name: v.Name, MountPoint: v.MountPoint, Outcome: reset.OutcomeDisabled})
	}
	return report
}

// readPlan reads the plan file. That there is none never means "keep nothing".
func readPlan(path string) (*reset.PlanFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", reset.ErrPlanFile, err)
	}
	defer f.Close()
	plan, err := reset.ParsePlanFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return plan, nil
}

func fileExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
