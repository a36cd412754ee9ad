package reset

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

// A refusal is something wrong with @home. It has to stay as it is, with all of its
// snapshots, while @root is reset. The cure that the message names has to cure it.
type refusal struct {
	name  string
	mode  Mode
	spoil func(b *box)
	want  []string // in the message
	cure  func(b *box)
}

func (r refusal) run(t *testing.T) {
	b := newBox(t)
	r.spoil(b)
	before := b.everything()
	wantRoot := b.expect("@root")
	report, err := b.try(Options{Mode: r.mode})
	if err != nil || !report.Failed() || report.Error != "" {
		t.Fatalf("Run() = %v, report %+v, want a failed volume alone", err, report)
	}
	home, root := b.result(report, "@home"), b.result(report, "@root")
	if home.Outcome != OutcomeFailed {
		t.Errorf("outcome of @home = %q, want %q", home.Outcome, OutcomeFailed)
	}
	for _, want := range r.want {
		if !strings.Contains(home.Error, want) {
			t.Errorf("message %q does not contain %q", home.Error, want)
		}
	}
	ignore := []string{"@root", "@snapshots/@root"}
	want, got := without(before, ignore...), without(b.everything(), ignore...)
	// The exchange of @root changes the directory that holds it.
	top := want[""]
	top.AnyMTime = true
	want[""] = top
	b.same("everything but @root", want, got)
	if root.Outcome == OutcomeFailed || root.Error != "" {
		t.Fatalf("outcome of @root = %q, error %q, want it done", root.Outcome, root.Error)
	}
	if root.Outcome == OutcomeReset {
		b.same("@root", wantRoot, b.read("@root"))
	}
	if r.cure == nil {
		return
	}
	r.cure(b)
	wantHome := b.expect("@home")
	report = b.run(Options{Mode: r.mode})
	if home := b.result(report, "@home"); home.Outcome == OutcomeReset {
		b.same("@home, cured", wantHome, b.read("@home"))
	}
}

func runRefusals(t *testing.T, refusals []refusal) {
	t.Helper()
	for _, r := range refusals {
		t.Run(r.name, r.run)
	}
}

// standsThere puts something else in the place of a subvolume, and gives what puts
// it back.
func standsThere(path, script string) (spoil, cure func(b *box)) {
	saved := filepath.Join(filepath.Dir(path), "saved")
	spoil = func(b *box) {
		b.mv(path, saved)
		b.sh("", strings.ReplaceAll(script, "THERE", path))
	}
	cure = func(b *box) {
		b.mv(path, filepath.Join(filepath.Dir(path), "moved-away"))
		b.mv(saved, path)
	}
	return spoil, cure
}

func missing(name string, mode Mode, path string, want ...string) refusal {
	spoil, cure := standsThere(path, "")
	return refusal{name: name, mode: mode, spoil: spoil, cure: cure, want: want}
}

const plainDirectory = `mkdir -p THERE/alice/Documents; echo precious > THERE/alice/Documents/file`

func TestRefuseWhatIsNoSnapshot(t *testing.T) {
	var refusals []refusal
	add := func(name, kind, script string) {
		spoil, cure := standsThere(snapshotOf("@home", name), script)
		refusals = append(refusals, refusal{
			name: name + " is " + kind, spoil: spoil, cure: cure,
			want: []string{`"` + name + `" is`, "not a subvolume", "move it away"},
		})
	}
	for _, name := range []string{NameClean, NamePrevious, NamePenultimate, NameCurrent, NameNext, NameReplaced, agedPrefix + "x"} {
		add(name, "a directory", plainDirectory)
	}
	for _, name := range []string{NamePrevious, NameNext, agedPrefix + "x"} {
		add(name, "a file", `echo > THERE`)
		add(name, "a fifo", `mkfifo THERE`)
		add(name, "a symlink to a subvolume", `ln -s ../../@other THERE`)
	}
	runRefusals(t, refusals)
}

func TestRefuseWhatIsNoVolume(t *testing.T) {
	dir, cureDir := standsThere("@home", plainDirectory)
	file, cureFile := standsThere("@home", `echo > THERE`)
	link, cureLink := standsThere("@home", `ln -s @other THERE`)
	folder, cureFolder := standsThere("@snapshots/@home", `ln -s @root THERE`)
	runRefusals(t, []refusal{
		{name: "directory", spoil: dir, cure: cureDir, want: []string{`"@home" is a plain directory`, "btrfs subvolume"}},
		{name: "file", spoil: file, cure: cureFile, want: []string{"@home", "not a directory"}},
		{name: "symlink to a subvolume", spoil: link, cure: cureLink, want: []string{"@home", "not a"}},
		missing("volume missing", ModeReset, "@home", "@home", "no such file"),
		{name: "folder of snapshots is a symlink", spoil: folder, cure: cureFolder, want: []string{"@snapshots/@home"}},
		missing("folder of snapshots missing", ModeReset, "@snapshots/@home", "nixos-snapshot init"),
		missing("CLEAN missing", ModeReset, "@snapshots/@home/CLEAN", "no CLEAN", "nixos-snapshot init"),
		missing("nothing to restore", ModeRestorePrevious, "@snapshots/@home/PREVIOUS", "no PREVIOUS to restore"),
		missing("nothing older to restore", ModeRestorePenultimate, "@snapshots/@home/PENULTIMATE", "no PENULTIMATE to restore"),
	})
}

func TestRefuseRules(t *testing.T) {
	runRefusals(t, []refusal{
		{
			name: "nothing kept", spoil: func(b *box) { b.spec("@home").Keep = nil },
			cure: func(b *box) { b.spec("@home").KeepNothing = true }, want: []string{"keep nothing", `"keepNothing": true`},
		},
		{
			name: "invalid", spoil: func(b *box) { b.spec("@home").Keep = []string{"/a/../b"} },
			cure: func(b *box) { b.spec("@home").Keep = []string{"/b"} }, want: []string{"/a/../b"},
		},
	})
}

func TestRefuseLockedRoots(t *testing.T) {
	var refusals []refusal
	for _, flag := range []struct {
		name string
		bits uint32
	}{{"immutable", btrfs.FlagImmutable}, {"append-only", btrfs.FlagAppend}} {
		for _, path := range []string{"@home", snapshotOf("@home", NameClean), snapshotOf("@home", NamePrevious)} {
			for _, mode := range []Mode{ModeReset, ModeSnapshotOnly, ModeRestorePrevious} {
				set := func(flags uint32) func(b *box) {
					return func(b *box) {
						readOnly := b.info(path).ReadOnly
						b.setReadOnly(path, false)
						b.setFlags(path, flags)
						b.setReadOnly(path, readOnly)
					}
				}
				refusals = append(refusals, refusal{
					name: fmt.Sprintf("%s is %s, %s", path, flag.name, mode), mode: mode, spoil: set(flag.bits), cure: set(0),
					want: []string{filepath.Base(path), "immutable or append-only", "chattr -i -a"},
				})
			}
		}
	}
	runRefusals(t, refusals)
}

func TestRefuseReadOnlyVolume(t *testing.T) {
	runRefusals(t, []refusal{{
		name:  "read-only",
		spoil: func(b *box) { b.setReadOnly("@home", true) },
		cure:  func(b *box) { b.setReadOnly("@home", false) },
		want:  []string{"read-only", "btrfs property set"},
	}})
}

func TestRefuseDefaultSubvolume(t *testing.T) {
	set := func(path string) func(b *box) {
		return func(b *box) {
			top := b.hold(b.top)
			defer top.Close()
			if err := btrfs.SetDefault(top, b.info(path).ID); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	runRefusals(t, []refusal{{
		name: "live", spoil: set("@home"), cure: set(""), want: []string{"default subvolume", "btrfs subvolume set-default 5"},
	}})
}

func TestRefuseSwapFile(t *testing.T) {
	on := func(b *box) {
		swap := b.path("@home/alice/Documents/swap")
		b.sh("@home", `touch alice/Documents/swap; chattr +C alice/Documents/swap; fallocate -l 2M alice/Documents/swap; chmod 600 alice/Documents/swap; mkswap -q alice/Documents/swap`)
		b.syncTop()
		out, err := exec.Command("swapon", swap).CombinedOutput()
		if err != nil {
			testx.Unavailable(b.t, fmt.Sprintf("swapon: %v: %s", err, out))
		}
		b.t.Cleanup(func() { _ = exec.Command("swapoff", swap).Run() }) // the cure has done it
	}
	off := func(b *box) { command(b.t, "swapoff", b.path("@home/alice/Documents/swap")) }
	for _, mode := range []Mode{ModeReset, ModeSnapshotOnly} {
		runRefusals(t, []refusal{{
			name: string(mode), mode: mode, spoil: on, cure: off, want: []string{"swap file", "swapoff"},
		}})
	}
}

func TestRefuseMountedVolume(t *testing.T) {
	var point, hidden string
	unmount := func(b *box) {
		for _, p := range []string{hidden, point} {
			if p != "" {
				b.unmount(p)
			}
		}
		hidden = ""
	}
	runRefusals(t, []refusal{
		{name: "whole", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home")
		}},
		{name: "read-only", mode: ModeRestorePrevious, want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME|unix.MS_RDONLY, fmt.Sprintf("subvolid=%d", b.info("@home").ID))
		}},
		{name: "a part of it", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.path("@home/alice"), "", unix.MS_BIND, "")
		}},
		{name: "a file of it", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = filepath.Join(b.t.TempDir(), "file")
			if err := os.WriteFile(point, nil, 0o600); err != nil {
				b.t.Fatal(err)
			}
			if err := unix.Mount(b.path("@home/alice/.bashrc"), point, "", unix.MS_BIND, ""); err != nil {
				b.t.Fatal(err)
			}
			b.t.Cleanup(func() { b.unmount(point) })
		}},
		{name: "below another mount", want: []string{"mounted at"}, cure: unmount, spoil: func(b *box) {
			point = b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home")
			if err := unix.Mount("tmpfs", point, "tmpfs", 0, ""); err != nil {
				b.t.Fatal(err)
			}
			hidden = point
		}},
		{name: "at a name with a space", want: []string{"mounted at", "with space"}, cure: unmount, spoil: func(b *box) {
			point = filepath.Join(b.t.TempDir(), "with space")
			if err := os.Mkdir(point, 0o700); err != nil {
				b.t.Fatal(err)
			}
			if err := unix.Mount(b.fs.Device, point, "btrfs", unix.MS_NOATIME, "subvol=@home"); err != nil {
				b.t.Fatal(err)
			}
			b.t.Cleanup(func() { b.unmount(point) })
		}},
	})
}

// What is mounted in another namespace, of which one has the list of mounts, is in
// use as well; a directory of that name here is none of its business.
func TestRefuseVolumeMountedElsewhere(t *testing.T) {
	b := newBox(t)
	list := filepath.Join(t.TempDir(), "mountinfo")
	point := t.TempDir()
	command(t, "unshare", "--mount", "--propagation", "private", "sh", "-euc",
		fmt.Sprintf("mount -o noatime,subvol=@home %s %s; cat /proc/self/mountinfo > %s", b.fs.Device, point, list))
	before := b.everything()
	report, err := b.try(Options{MountInfo: list})
	if home := b.result(report, "@home"); err != nil || home.Outcome != OutcomeFailed || !strings.Contains(home.Error, point) {
		t.Errorf("Run() = %v, @home %+v, want it refused as mounted at %s", err, home, point)
	}
	b.same("@home", only(before, "@home", "@snapshots/@home"), only(b.everything(), "@home", "@snapshots/@home"))
}

// Not in the way: other file systems with subvolumes of that name, the top level,
// other volumes, names that only begin alike.
func TestMountsThatAreInNobodysWay(t *testing.T) {
	b := newBox(t)
	b.create("@home2")
	b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home2")
	b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@other")
	b.mount(b.fs.Device, "btrfs", unix.MS_NOATIME, "subvolid=5")
	backup := newBox(t)
	backup.mount(backup.fs.Device, "btrfs", unix.MS_NOATIME, "subvol=@home")
	want := b.expect("@home")
	b.run(Options{})
	b.same("@home", want, b.read("@home"))
}

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
