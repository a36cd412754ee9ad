package reset

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx"
)

// A stop is something wrong with all of the file system: nothing is written.
func checkStops(t *testing.T, b *box, plan *PlanFile, dir string, options Options, want ...string) {
	t.Helper()
	before, generations := b.everything(), b.generations()
	top := b.hold(dir)
	defer top.Close()
	report, err := Run(top, plan, options)
	if !errors.Is(err, ErrCheck) {
		t.Fatalf("Run() = %v, want %v", err, ErrCheck)
	}
	for _, text := range append(want, ErrCheck.Error()) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("message %q does not contain %q", err, text)
		}
	}
	if report.Error != err.Error() || !report.Failed() || report.Version != ReportVersion || report.Started.IsZero() || report.Mode == "" {
		t.Errorf("report = %+v, want the error, the mode, the start and the version in it", report)
	}
	for _, v := range report.Volumes {
		if v.Outcome != "" && v.Outcome != OutcomeFailed {
			t.Errorf("outcome of %s = %q, want none", v.Name, v.Outcome)
		}
	}
	b.same("the disk", before, b.everything())
	for path, generation := range b.generations() {
		if generation != generations[path] {
			t.Errorf("something was written to %q", path)
		}
	}
}

func TestStopAtTheSnapshots(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"directory", `mkdir THERE; cp -a saved/. THERE`, "is not a subvolume"},
		{"symlink", `ln -s saved THERE`, "@snapshots"},
		{"missing", ``, "no such file"},
		{"file", `echo > THERE`, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			spoil, cure := standsThere(DefaultSnapshots, tt.script)
			spoil(b)
			checkStops(t, b, b.plan, b.top, Options{}, DefaultSnapshots, tt.want)
			if tt.name == "directory" {
				b.sh("", "rm -rf @snapshots")
			}
			cure(b)
			b.run(Options{})
		})
	}
}

func TestStopAtTheTop(t *testing.T) {
	b := newBox(t)
	b.sh("", "mkdir folder; btrfs -q subvolume create folder/@snapshots; btrfs -q subvolume create folder/@home")
	checkStops(t, b, b.plan, b.path("@root"), Options{}, "not the top level", "subvolid=5")
	checkStops(t, b, b.plan, b.path("folder"), Options{}, "not the top level", "subvolid=5")
	checkStops(t, b, b.plan, t.TempDir(), Options{}, "not on btrfs")
	checkStops(t, b, b.plan, b.top, Options{MountInfo: filepath.Join(t.TempDir(), "none")}, "no such file")
}

func TestStopWhereReadOnly(t *testing.T) {
	b := newBox(t)
	b.syncTop()
	b.fs.Remount("ro,noatime")
	checkStops(t, b, b.plan, b.top, Options{}, "read-only", "kernel log")
	if report := b.run(Options{DryRun: true}); b.result(report, "@home").Outcome != OutcomePlanned {
		t.Errorf("a dry run on it = %+v, want a plan", report)
	}
	b.fs.Remount("noatime")
	b.run(Options{})
}

func TestStopWhereDegraded(t *testing.T) {
	b := newBox(t, testx.WithDevices(2))
	b.syncTop()
	b.fs.Unmount()
	b.fs.Detach(1)
	b.fs.Remount("degraded,noatime")
	checkStops(t, b, b.plan, b.top, Options{}, "degraded", "device 2", "btrfs replace")
}

func TestStopBesideAnotherRun(t *testing.T) {
	b := newBox(t)
	var second error
	b.run(Options{Trace: func(s Step) {
		if s.Name != "exchange" || s.Done || s.Volume != "@home" {
			return
		}
		top := b.hold(b.top)
		defer top.Close()
		_, second = Run(top, b.plan, Options{})
	}})
	if !errors.Is(second, ErrCheck) || !strings.Contains(second.Error(), "another run") {
		t.Errorf("a second run at the same time = %v, want it refused", second)
	}
	lock := b.hold(b.path(DefaultSnapshots))
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatalf("the lock outlives the run: %v", err)
	}
	checkStops(t, b, b.plan, b.top, Options{}, "another run", "wait for it")
}
