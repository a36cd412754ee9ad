package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx/model"
)

// A boot resets both volumes and writes down what it did.
func TestBoot(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	b.boots()
	start := time.Now()
	b.want(exitDone, "initrd-reset: @root: reset: 2 wiped, 2 changed back, 1 brought back, 1 nested subvolume moved (full)",
		"initrd-reset", "--device", d.top)
	if b.stdout.Len() > 0 {
		t.Errorf("standard output = %q, want nothing without --json", b.stdout.String())
	}
	d.exists(true, "@root/etc/motd", "@root/var/lib/db", "@root/var/lib/machines/m", "@home/alice/Documents/report",
		"@snapshots/@root/PREVIOUS/etc/new", "@snapshots/@home/CURRENT/.boot-ready")
	d.exists(false, "@root/tmp", "@root/etc/new", "@home/alice/Documents/tmp", "@home/alice/caf\xe9", "@snapshots/@root/NEXT")

	got := b.readReport()
	if got.Started.Before(start.Add(-time.Second)) || got.Started.After(time.Now()) || got.Milliseconds <= 0 {
		t.Errorf("started %v, took %v ms, want the time of this run", got.Started, got.Milliseconds)
	}
	checkPhases(t, "the run", got.Phases, "settle", "sync", "conclude")
	for _, v := range got.Volumes {
		checkPhases(t, v.Name, v.Phases, "check", "plan", "snapshot", "apply", "exchange")
	}
	want := reportFile{
		Version: 1, Mode: "reset", ModeFrom: "the plan",
		Volumes: []volumeReport{
			{Name: "@root", MountPoint: "/", Outcome: "reset", Way: "full", Wiped: 2, ChangedBack: 2, BroughtBack: 1, Moved: 1},
			{Name: "@home", MountPoint: "/home", Outcome: "reset", Way: "full", Wiped: 2},
		},
	}
	ignore := cmp.Options{
		cmpopts.IgnoreFields(reportFile{}, "Started", "Milliseconds", "Phases"),
		cmpopts.IgnoreFields(volumeReport{}, "Phases"),
	}
	if diff := cmp.Diff(want, got, ignore); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	b.checkWiped([]change{
		{Volume: "@root", Path: "/etc/hostname", Kind: "modified", Type: "file", Fields: []string{"content", "size", "mtime"}, Size: 6},
		{Volume: "@root", Path: "/etc/new", Kind: "added", Type: "file", Size: 4},
		{Volume: "@root", Path: "/tmp", Kind: "added", Type: "directory"},
		{Volume: "@root", Path: "/usr/bin/program", Kind: "metadata", Type: "file", Fields: []string{"mode"}, Size: 8},
		{Volume: "@home", Path: "/alice/Documents/tmp", Kind: "added", Type: "directory"},
		{Volume: "@home", PathBase64: base64.StdEncoding.EncodeToString([]byte("/alice/caf\xe9")), Kind: "added", Type: "file", Size: 1},
	})
	b.checkModes()
}

func checkPhases(t *testing.T, of string, phases []phase, want ...string) {
	t.Helper()
	names := make([]string, 0, len(phases))
	for _, p := range phases {
		names = append(names, p.Name)
		if p.Milliseconds < 0 {
			t.Errorf("phase %s of %s took %v ms", p.Name, of, p.Milliseconds)
		}
	}
	sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if diff := cmp.Diff(want, names, sorted); diff != "" {
		t.Errorf("phases of %s (-want +got):\n%s", of, diff)
	}
}

// checkWiped compares wiped.jsonl, of which each line is a document.
func (b *box) checkWiped(want []change) {
	b.t.Helper()
	var got []change
	for line := range strings.Lines(b.read(b.wipedPath())) {
		got = append(got, decode[change](b.t, line))
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		b.t.Errorf("wiped.jsonl (-want +got):\n%s", diff)
	}
}

// checkModes: the report names people's files.
func (b *box) checkModes() {
	b.t.Helper()
	for path, want := range map[string]os.FileMode{
		filepath.Dir(b.report): 0o700 | os.ModeDir, b.report: 0o600, b.wipedPath(): 0o600,
	} {
		info, err := os.Lstat(path)
		if err != nil {
			b.t.Fatal(err)
		}
		if info.Mode() != want {
			b.t.Errorf("mode of %s = %v, want %v", path, info.Mode(), want)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(b.report))
	if err != nil || len(entries) != 2 {
		b.t.Errorf("beside the report lie %v, %v, want it and wiped.jsonl alone", entries, err)
	}
}

// Once there is a report of this boot, a second call in the initrd does nothing.
func TestBootOnce(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	b.boots()
	b.want(exitDone, "@home: reset:", "initrd-reset", "--device", d.top)
	first := b.read(b.report)
	d.sh(`echo later > @root/etc/later`)
	before := d.look()
	b.want(exitDone, "the report of this boot is there already: nothing to do", "initrd-reset", "--device", d.top)
	d.same(before)
	if got := b.read(b.report); got != first {
		t.Errorf("the report changed from\n%s\nto\n%s", first, got)
	}
	// After the boot it is a run like any other.
	if err := os.Remove(b.initrdRelease); err != nil {
		t.Fatal(err)
	}
	b.want(exitDone, "@root: reset: 1 wiped, 0 changed back, 0 brought back, 1 nested subvolume moved (changed-only)",
		"initrd-reset", "--device", d.top)
	d.exists(false, "@root/etc/later")
	b.want(exitDone, "@root: nothing changed since the last run", "initrd-reset", "--device", d.top)
}

// A run by hand that changes nothing leaves the report of the boot alone: it is the
// list of what the boot wiped.
func TestReportOfTheBootStays(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	b.boots()
	b.want(exitDone, "@root: reset:", "initrd-reset", "--device", d.top)
	if err := os.Remove(b.initrdRelease); err != nil {
		t.Fatal(err)
	}
	report, wiped := b.read(b.report), b.read(b.wipedPath())
	for _, args := range [][]string{
		{"initrd-disabled"},
		{"initrd-reset", "--device", d.top}, // nothing to do
		{"initrd-reset", "--device", b.plan},
		{"initrd-reset", "--plan", "/nonexistent"},
		{"initrd-reset", "--device", d.top, "--dry-run"},
	} {
		b.run(args...)
		if b.read(b.report) != report || b.read(b.wipedPath()) != wiped {
			t.Errorf("%q replaced the report of the boot", args)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "report.json")
	b.want(exitDone, "@root: nothing changed", "initrd-reset", "--device", d.top, "--report", elsewhere)
	if got := decode[reportFile](t, b.read(elsewhere)); len(got.Volumes) != 2 || got.Volumes[0].Outcome != "unchanged" {
		t.Errorf("report of the second run = %+v, want two unchanged volumes", got)
	}
}

// Called by a name, the program restores, takes snapshots or leaves all alone.
func TestNames(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	yesterday := d.tree("@root")
	b.want(exitDone, "@root: reset:", "initrd-reset", "--device", d.top)

	d.sh(`echo draft > @root/etc/draft`)
	before := d.look()
	b.want(exitDone, "mode disabled, from the name initrd-disabled\ninitrd-reset: nothing is touched\n", "/sbin/initrd-disabled", "--device", d.top)
	d.same(before)

	b.want(exitDone, "@root: snapshot taken, the volume left alone", "initrd-snapshot-only", "--device", d.top)
	d.exists(true, "@root/etc/draft", "@snapshots/@root/PREVIOUS/etc/draft", "@snapshots/@root/PENULTIMATE/etc/new")

	b.want(exitDone, "@root: restored; what was there is REPLACED now", "initrd-restore-penultimate", "--device", d.top)
	d.exists(true, "@snapshots/@root/REPLACED/etc/draft")
	if diff := model.Diff(yesterday, d.tree("@root")); diff != "" {
		t.Errorf("@root after restore-penultimate:\n%s", diff)
	}
	if !strings.Contains(b.stderr.String(), "warning: @root: mode restore-penultimate restores at every boot") {
		t.Errorf("restore-penultimate says\n%s\nwant a warning that it stays on", b.stderr.String())
	}
	b.want(exitDone, "@root: restored", "initrd-restore-previous", "--device", d.top)
	d.exists(true, "@root/etc/draft")
	if got := b.readReport(); got.Mode != "restore-previous" || got.ModeFrom != "the name initrd-restore-previous" {
		t.Errorf("report = %s from %q, want restore-previous from its name", got.Mode, got.ModeFrom)
	}
}

// A volume that cannot be reset stays as it was, the other is reset, and the status
// says that not all went well.
func TestOneVolumeFails(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	d.sh(`mv @home home; mkdir @home; cp -a home/. @home/`)
	home := d.tree("@home")
	b.boots()
	b.want(exitFailed, `error: @home: left as it was: "@home" is a plain directory, not a subvolume`, "initrd-reset", "--device", d.top)
	d.exists(false, "@root/etc/new")
	if len(d.tree("@home")) != len(home) {
		t.Error("@home changed, want it as it was")
	}
	got := b.readReport()
	if got.Error != "" || len(got.Volumes) != 2 || got.Volumes[0].Outcome != "reset" ||
		got.Volumes[1].Outcome != "failed" || !strings.Contains(got.Volumes[1].Error, "plain directory") {
		t.Errorf("report = %+v, want @root reset and @home failed", got)
	}
}

func TestAnotherRunAtWork(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	lock, err := os.Open(filepath.Join(d.top, "@snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before := d.look()
	b.want(exitFailed, "nothing was touched: lock \"@snapshots\": another run is at work on this file system", "initrd-reset", "--device", d.top)
	d.same(before)
}

// The plan's own device, which is mounted where nobody sees it, and gone at the end.
func TestBlockDevice(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	mounts := strings.Count(b.read("/proc/self/mountinfo"), d.device+" ")
	b.want(exitDone, "@root: reset: 2 wiped", "initrd-reset")
	d.exists(false, "@root/etc/new")
	if got := strings.Count(b.read("/proc/self/mountinfo"), d.device+" "); got != mounts {
		t.Errorf("%d mounts of %s, want the %d of before", got, d.device, mounts)
	}
	d.sh(`echo again > @root/etc/again`)
	b.write(b.plan, strings.Replace(b.read(b.plan), d.device, "/dev/nonexistent", 1))
	b.want(exitFailed, "nothing was touched: stat /dev/nonexistent: no such file or directory", "initrd-reset")
	b.want(exitDone, "@root: reset: 1 wiped", "initrd-reset", "--device", d.device)
	b.want(exitFailed, "block device required", "initrd-reset", "--device", b.plan)
	b.want(exitFailed, "is not on btrfs", "initrd-reset", "--device", "/proc")
	b.want(exitFailed, "not the top level: mount it with subvolid=5", "initrd-reset", "--device", filepath.Join(d.top, "@root"))
}
