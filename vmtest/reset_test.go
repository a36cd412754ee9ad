package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/history"
	"nixos-go/pkg/testx/model"
	"nixos-go/vmtest/gobuild"
	"nixos-go/vmtest/guest/minimal"
	"nixos-go/vmtest/machine"
)

// The disk, /dev/vda in the guest, is one btrfs file system:
//
//	@root, @home                  random trees, changed at random between boots
//	@snapshots/@root/CLEAN, …     as they were at first
//
// Between two boots it is mounted by the host, which also computes, by the slow
// model of the rules, what the reset in the guest's kernel must have made of it.
const resetDiskSize = 512 << 20

// resetMachine is a machine that runs the real initrd-reset at each boot.
type resetMachine struct {
	t      *testing.T
	m      *machine.Machine
	plan   *reset.PlanFile
	random *history.Generator
}

// TestVM_ResetAMD64 boots a PC's kernel and resets, restores and snapshots.
func TestVM_ResetAMD64(t *testing.T) {
	r := newResetMachine(t, machine.AMD64, 11)
	r.resets("full")
	r.resets("changed-only")
	r.restores()
	r.snapshotsOnly()
}

// TestVM_ResetARM64 boots an aarch64 kernel: the same disk, another binary.
func TestVM_ResetARM64(t *testing.T) {
	r := newResetMachine(t, machine.ARM64, 12)
	r.resets("full")
	r.resets("changed-only")
}

func newResetMachine(t *testing.T, arch machine.Arch, seed uint64) *resetMachine {
	t.Helper()
	r := &resetMachine{t: t, random: history.New(history.NewSource(seed))}
	image := r.install()
	plan, err := json.Marshal(r.plan)
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(Dir(t), "initrd-reset")
	if err := gobuild.Build(Context(t), string(arch), "nixos-go/initrd-reset", binary); err != nil {
		t.Fatal(err)
	}
	guest := Minimal(t, minimal.Options{Arch: arch, Files: []minimal.File{
		{Path: "/bin/initrd-reset", Source: binary, Mode: 0o755},
		{Path: "/etc/initrd-release", Content: []byte("ID=test\n"), Mode: 0o644}, // so it is a boot
		{Path: "/etc/immutability/plan.json", Content: plan, Mode: 0o644},
	}})
	spec := guest.Spec("reset-" + string(arch))
	spec.Disks = []machine.Disk{{ID: "root", Base: image}}
	r.m = New(t, spec)
	return r
}

// install makes the disk and the plan.
func (r *resetMachine) install() (image string) {
	r.t.Helper()
	r.plan = &reset.PlanFile{
		Version: reset.PlanFileVersion, Device: "/dev/vda", Snapshots: reset.DefaultSnapshots, Clean: reset.NameClean,
		Mode: reset.ModeReset, Revision: 1,
		Volumes: []reset.PlanFileVolume{{Name: "@root", MountPoint: "/"}, {Name: "@home", MountPoint: "/home"}},
	}
	fs := testx.NewFilesystem(r.t, resetDiskSize)
	top := r.open(fs.Mount)
	r.must(btrfs.Create(top, reset.DefaultSnapshots))
	for i := range r.plan.Volumes {
		v := &r.plan.Volumes[i]
		live := filepath.Join(fs.Mount, v.Name)
		r.must(btrfs.Create(top, v.Name))
		r.log(r.random.Populate(live, 60))
		snapshots := filepath.Join(fs.Mount, reset.DefaultSnapshots, v.Name)
		r.must(os.Mkdir(snapshots, 0o700))
		source, target := r.open(live), r.open(snapshots)
		r.must(btrfs.Snapshot(source, target, reset.NameClean, true))
		r.must(source.Close())
		r.must(target.Close())
		r.log(r.random.Mutate(live, 20))
		var err error
		v.Keep, v.Exclude, err = r.random.Rules(live)
		r.must(err)
	}
	r.must(top.Close())
	fs.Unmount()
	fs.Detach(0)
	return fs.Image
}

func (r *resetMachine) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *resetMachine) log(ops []history.Op, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, history.Format(ops))
	}
}

func (r *resetMachine) open(path string) *os.File {
	r.t.Helper()
	f, err := os.Open(path)
	r.must(err)
	return f
}

// onHost mounts the disk of the stopped machine here and lets work look at it,
// and change it if it says so.
func (r *resetMachine) onHost(changes bool, work func(top string)) {
	r.t.Helper()
	image := filepath.Join(Dir(r.t), "disk.raw")
	r.must(r.m.ExportDisk(Context(r.t), "root", image))
	device, err := testx.AttachLoop(image, 0)
	r.must(err)
	detached := false
	defer func() {
		if !detached {
			r.must(device.Detach())
		}
	}()
	top, err := btrfs.Mount(device.Path, btrfs.MountOptions{})
	r.must(err)
	func() {
		defer func() { r.must(top.Close()) }()
		work(filepath.Join("/proc/self/fd", fdName(top)))
	}()
	r.must(device.Detach())
	detached = true
	if changes {
		r.must(r.m.ImportDisk(Context(r.t), "root", image))
	}
	r.must(os.Remove(image))
}

// volumeTrees are a volume's states; nil where there is none.
type volumeTrees struct{ live, clean, previous model.Tree }

func (r *resetMachine) trees(top string) map[string]volumeTrees {
	r.t.Helper()
	all := map[string]volumeTrees{}
	for _, v := range r.plan.Volumes {
		read := func(name ...string) model.Tree {
			path := filepath.Join(append([]string{top}, name...)...)
			if _, err := os.Lstat(path); os.IsNotExist(err) {
				return nil
			}
			tree, err := model.Read(path)
			r.must(err)
			return tree
		}
		all[v.Name] = volumeTrees{
			live:     read(v.Name),
			clean:    read(reset.DefaultSnapshots, v.Name, reset.NameClean),
			previous: read(reset.DefaultSnapshots, v.Name, reset.NamePrevious),
		}
	}
	return all
}

// day lets a day's work happen to both volumes, and reads what there is then.
func (r *resetMachine) day() (before map[string]volumeTrees) {
	r.t.Helper()
	r.onHost(true, func(top string) {
		for _, v := range r.plan.Volumes {
			r.log(r.random.Mutate(filepath.Join(top, v.Name), 25))
		}
		before = r.trees(top)
	})
	return before
}

// boot boots the machine with further words on its kernel's command line, runs
// the reset as the initrd does, and switches it off.
func (r *resetMachine) boot(words ...string) reset.Report {
	r.t.Helper()
	cmdline := r.m.Spec.Cmdline
	r.m.Spec.Cmdline = append(slices.Clone(cmdline), words...)
	defer func() { r.m.Spec.Cmdline = cmdline }()
	r.must(r.m.Start(Context(r.t)))
	_, err := r.m.Ready(Context(r.t))
	r.must(err)
	result, err := r.m.Run(Context(r.t), "/bin/initrd-reset")
	r.must(err)
	r.t.Logf("in %v:\n%s", result.Duration, result.Stderr)
	kernelLog := shell(r.t, r.m, "dmesg | grep -c initrd-reset: || true")
	if kernelLog == "0" {
		r.t.Error("nothing of the reset is in the kernel's log")
	}
	var report reset.Report
	b, err := r.m.Agent().GetBytes(Context(r.t), "/run/initrd-reset/report.json")
	r.must(err)
	r.must(json.Unmarshal(b, &report))
	// A second call finds the report of this boot.
	again, err := r.m.Run(Context(r.t), "/bin/initrd-reset")
	if err != nil || !strings.Contains(string(again.Stderr), "nothing to do") {
		r.t.Errorf("the second call = %v, %s", err, again.Stderr)
	}
	r.must(r.m.PowerOff(Context(r.t)))
	return report
}

// resets is a day, a boot, and a look at what that made of it.
func (r *resetMachine) resets(way string) {
	r.t.Helper()
	before := r.day()
	report := r.boot()
	for i, v := range r.plan.Volumes {
		if got := report.Volumes[i]; got.Outcome != reset.OutcomeReset || string(got.Way) != way {
			r.t.Errorf("%s: outcome %s, way %s, want a reset, %s", v.Name, got.Outcome, got.Way, way)
		}
	}
	r.compare(func(v reset.PlanFileVolume) (live, previous model.Tree) {
		old, rules := before[v.Name], model.Rules{Keep: v.Keep, Exclude: v.Exclude}
		return model.Expect(old.live, old.clean, v.Keep, v.Exclude), model.ExpectPrevious(old.live, rules)
	})
}

// compare holds what is on the disk against what is expected of a volume.
func (r *resetMachine) compare(want func(reset.PlanFileVolume) (live, previous model.Tree)) {
	r.t.Helper()
	r.onHost(false, func(top string) {
		for name, got := range r.trees(top) {
			v := r.plan.Volumes[slices.IndexFunc(r.plan.Volumes, func(v reset.PlanFileVolume) bool { return v.Name == name })]
			live, previous := want(v)
			if diff := model.Diff(live, got.live); diff != "" {
				r.t.Errorf("%s: keep %q exclude %q\n%s", name, v.Keep, v.Exclude, diff)
			}
			if diff := model.Diff(previous, got.previous); diff != "" {
				r.t.Errorf("%s: PREVIOUS\n%s", name, diff)
			}
		}
	})
}

// restores goes back by the kernel's command line: outside of nested subvolumes
// that are kept and move along, live is what PREVIOUS was.
func (r *resetMachine) restores() {
	r.t.Helper()
	before := r.day()
	report := r.boot("immutability.mode=restore-previous")
	if report.ModeFrom != "the kernel command line" {
		r.t.Errorf("the mode is from %s", report.ModeFrom)
	}
	for i, v := range r.plan.Volumes {
		if got := report.Volumes[i].Outcome; got != reset.OutcomeRestored {
			r.t.Errorf("%s: outcome %s, want restored", v.Name, got)
		}
	}
	r.onHost(false, func(top string) {
		for name, got := range r.trees(top) {
			if diff := model.Diff(plain(before[name].previous), plain(got.live)); diff != "" {
				r.t.Errorf("%s: after restore-previous\n%s", name, diff)
			}
		}
	})
}

// snapshotsOnly leaves the live state alone.
func (r *resetMachine) snapshotsOnly() {
	r.t.Helper()
	before := r.day()
	r.boot("immutability.mode=snapshot-only")
	r.onHost(false, func(top string) {
		for name, got := range r.trees(top) {
			if diff := model.Diff(before[name].live, got.live); diff != "" {
				r.t.Errorf("%s: after snapshot-only\n%s", name, diff)
			}
			if diff := model.Diff(plain(before[name].live), plain(got.previous)); diff != "" {
				r.t.Errorf("%s: PREVIOUS after snapshot-only\n%s", name, diff)
			}
		}
	})
}

// plain is a tree without nested subvolumes and what a snapshot shows for them.
func plain(tree model.Tree) model.Tree {
	nested := func(path string) bool {
		for at := path; at != ""; at = at[:max(0, strings.LastIndexByte(at, '/'))] {
			if tree[at].Subvolume || tree[at].Stub {
				return true
			}
		}
		return false
	}
	left := model.Tree{}
	for path, e := range tree {
		if !nested(path) {
			left[path] = e
		}
	}
	return left
}

// fdName is an open file's number.
func fdName(f *os.File) string { return strconv.Itoa(int(f.Fd())) }
