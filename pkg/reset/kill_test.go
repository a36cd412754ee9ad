package reset

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

// A run is cut off by the end of its process, right before or right after each step
// that changes the disk. The process is this test binary, called again.
const cutEnv = "NIXOS_GO_CUT"

func TestMain(m *testing.M) {
	if text := os.Getenv(cutEnv); text != "" {
		os.Exit(cutRun(text))
	}
	os.Exit(m.Run())
}

const (
	exitCut      = 42
	killDiskSize = 256 << 20
)

// cutRun runs on a device in a mode and ends at the given step; -1 prints the steps.
func cutRun(text string) int {
	part := strings.Split(text, "|")
	device, mode := part[0], Mode(part[1])
	at, err := strconv.Atoi(part[2])
	if err != nil {
		return 2
	}
	top, err := btrfs.Mount(device, btrfs.MountOptions{})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	var mu sync.Mutex
	count := 0
	trace := func(s Step) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("step %s %s %v\n", s.Volume, s.Name, s.Done)
		if count == at {
			os.Exit(exitCut)
		}
		count++
	}
	if work := cutWork(string(mode)); work != nil {
		if err := work(top, trace); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	}
	report, err := Run(top, killPlan(), Options{Mode: mode, Trace: trace})
	if err != nil || report.Failed() {
		fmt.Println(err, describe(report))
		return 1
	}
	return 0
}

func killPlan() *PlanFile {
	return &PlanFile{Version: 1, Snapshots: DefaultSnapshots, Clean: NameClean, Mode: ModeReset, Revision: 1, Volumes: []PlanFileVolume{
		{Name: "@root", MountPoint: "/", Keep: []string{"/etc/ssh", "/var/lib/docker", "/srv/*/keep"}},
		{Name: "@home", MountPoint: "/home", Keep: []string{"/*/Documents"}, Exclude: []string{"/*/Documents/tmp"}},
	}}
}

// image is a disk image, attached and mounted anew for each look at it.
type image struct {
	t    testing.TB
	path string
}

// use attaches the image and hands out the device.
func (i image) use(work func(device string)) {
	i.t.Helper()
	dev := testx.NewLoopDevice(i.t, i.path, killDiskSize)
	defer func() {
		if err := dev.Detach(); err != nil {
			i.t.Error(err)
		}
	}()
	work(dev.Path)
}

func (i image) copy() image {
	i.t.Helper()
	to := filepath.Join(i.t.TempDir(), "disk")
	if out, err := exec.Command("cp", "--sparse=always", i.path, to).CombinedOutput(); err != nil {
		i.t.Fatalf("%v: %s", err, out)
	}
	return image{i.t, to}
}

// run runs the engine in a process of its own, cut off at a step, and gives its
// output and exit status.
func (i image) run(mode string, at int) (string, int) {
	i.t.Helper()
	var out []byte
	var cmd *exec.Cmd
	i.use(func(device string) {
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), cutEnv+"="+strings.Join([]string{device, mode, strconv.Itoa(at)}, "|"))
		out, _ = cmd.CombinedOutput() // the status is looked at
	})
	return string(out), cmd.ProcessState.ExitCode()
}

// state is every volume and snapshot of a disk.
type state map[string]model.Tree

func (i image) state() state {
	i.t.Helper()
	s := state{}
	i.use(func(device string) {
		top, err := btrfs.Mount(device, btrfs.MountOptions{})
		if err != nil {
			i.t.Fatal(err)
		}
		defer top.Close()
		base := "/proc/self/fd/" + strconv.Itoa(int(top.Fd()))
		for _, v := range killPlan().Volumes {
			names := []string{v.Name}
			entries, err := os.ReadDir(base + "/" + DefaultSnapshots + "/" + v.Name)
			if err != nil {
				i.t.Fatal(err)
			}
			for _, e := range entries {
				names = append(names, DefaultSnapshots+"/"+v.Name+"/"+e.Name())
			}
			for _, name := range names {
				tree, err := model.Read(base + "/" + name)
				if err != nil {
					i.t.Fatal(err)
				}
				s[name] = tree
			}
		}
	})
	return s
}

func snapshotOf(volume, name string) string { return DefaultSnapshots + "/" + volume + "/" + name }

// withoutNested leaves out nested subvolumes and stubs, and the times of what holds
// them: they follow the exchange.
func withoutNested(t model.Tree) model.Tree {
	out := model.Tree{}
	var cut []string
	for path, e := range t {
		if path != "" && (e.Subvolume || e.Stub) {
			cut = append(cut, path)
		}
	}
next:
	for path, e := range t {
		for _, c := range cut {
			if path == c || strings.HasPrefix(path, c+"/") {
				continue next
			}
		}
		out[path] = e
	}
	for _, c := range cut {
		parent := strings.TrimPrefix(filepath.Dir("/"+c), "/")
		if e, found := out[parent]; found {
			e.AnyMTime = true
			out[parent] = e
		}
	}
	return out
}

// anyUUID lets a tree stand for one with other subvolumes of the same content.
func anyUUID(t model.Tree) model.Tree {
	out := model.Tree{}
	for path, e := range t {
		e.UUID = ""
		out[path] = e
	}
	return out
}

// killDisk is a machine after some boots, with a day of work on top.
func killDisk(tb testing.TB, boots int) image {
	tb.Helper()
	fs := testx.NewFilesystem(tb, killDiskSize)
	fs.Remount("noatime")
	m := newMachine(tb, fs.Mount, killPlan().Volumes...)
	m.sh("@root", `mkdir -p etc/ssh var/lib srv usr; echo 1 > etc/a; echo 2 > etc/b; ln etc/a etc/c; echo k > etc/ssh/key; chattr +i etc/b`)
	m.sh("@home", `mkdir -p alice; echo rc > alice/.bashrc; chown -R 1000:1000 alice`)
	m.takeClean()
	day := func(n int) {
		m.sh("@root", fmt.Sprintf(`n=%d; echo $n > etc/ssh/n$n; echo $n > etc/new$n; chattr -i etc/b; rm -f etc/b; mkdir -p tmp/$n/x; echo > tmp/$n/x/y
			mkdir -p var/lib/docker; btrfs -q subvolume create var/lib/docker/v$n; echo $n > var/lib/docker/v$n/f
			[ $n = 0 ] && { btrfs -q subvolume create srv/web; mkdir srv/web/keep; echo > srv/web/keep/k; btrfs -q subvolume create srv/web/keep/inner; }
			btrfs -q subvolume create var/lib/machines; echo wiped > srv/web/junk; btrfs property set var/lib/docker/v$n ro true`, n))
		m.sh("@home", fmt.Sprintf(`n=%d; mkdir -p alice/Documents/tmp alice/.cache; echo $n > alice/Documents/d$n; echo $n > alice/Documents/tmp/t; echo $n > alice/.cache/c; echo x >> alice/.bashrc`, n))
	}
	for n := range boots {
		day(n)
		m.run(Options{})
		m.cleanup()
	}
	day(boots)
	m.syncTop()
	fs.Unmount()
	fs.Forget()
	return image{tb, fs.Image}
}

func TestKillAtEveryStep(t *testing.T) {
	testx.NeedBtrfs(t)
	for _, boots := range []int{0, 2} {
		base := killDisk(t, boots)
		modes := []Mode{ModeReset, ModeSnapshotOnly}
		if boots > 0 {
			modes = append(modes, ModeRestorePrevious, ModeRestorePenultimate)
		}
		for _, mode := range modes {
			t.Run(fmt.Sprintf("%s after %d boots", mode, boots), func(t *testing.T) {
				killMode(t, image{t, base.path}, mode)
			})
		}
	}
}

func killMode(t *testing.T, base image, mode Mode) {
	t.Helper()
	before := base.state()
	whole := base.copy()
	out, status := whole.run(string(mode), -1)
	if status != 0 {
		t.Fatalf("uncut run: status %d\n%s", status, out)
	}
	after := whole.state()
	steps := strings.Count(out, "step ")
	if steps < 10 {
		t.Fatalf("only %d steps:\n%s", steps, out)
	}
	checkWhole(t, mode, before, after)
	random := rand.New(rand.NewPCG(1, uint64(steps)))
	for at := range steps {
		i := base.copy()
		if out, status := i.run(string(mode), at); status != exitCut {
			t.Fatalf("cut at %d: status %d\n%s", at, status, out)
		}
		checkCut(t, fmt.Sprintf("cut at %d", at), before, after, i.state())
		// The recovery is cut off too, somewhere.
		again := random.IntN(steps)
		second, status := i.run(string(mode), again)
		where := fmt.Sprintf("cut at %d, then at %d (status %d)", at, again, status)
		checkCut(t, where, before, after, i.state())
		for round := range 2 {
			if out, status := i.run(string(mode), -1); status != 0 {
				t.Fatalf("%s: run %d afterwards: status %d\n%s", where, round, status, out)
			}
			checkSame(t, fmt.Sprintf("%s, run %d afterwards", where, round), after, i.state())
		}
		if t.Failed() {
			t.Fatalf("steps of the uncut run:\n%s\nof the second:\n%s", out, second)
		}
	}
}

// checkWhole holds the uncut run against the model.
func checkWhole(t *testing.T, mode Mode, before, after state) {
	t.Helper()
	for _, v := range killPlan().Volumes {
		old, clean := before[v.Name], before[snapshotOf(v.Name, NameClean)]
		switch mode {
		case ModeReset:
			if diff := model.Diff(model.Expect(old, clean, v.Keep, v.Exclude), after[v.Name]); diff != "" {
				t.Fatalf("%s after the reset:\n%s", v.Name, diff)
			}
			want := model.ExpectPrevious(old, model.Rules{Keep: v.Keep, Exclude: v.Exclude})
			if diff := model.Diff(want, after[snapshotOf(v.Name, NamePrevious)]); diff != "" {
				t.Fatalf("PREVIOUS of %s:\n%s", v.Name, diff)
			}
		case ModeSnapshotOnly:
			if diff := model.Diff(old, after[v.Name]); diff != "" {
				t.Fatalf("%s changed:\n%s", v.Name, diff)
			}
			if diff := model.Diff(withoutNested(old), withoutNested(after[snapshotOf(v.Name, NamePrevious)])); diff != "" {
				t.Fatalf("PREVIOUS of %s:\n%s", v.Name, diff)
			}
		case ModeRestorePrevious, ModeRestorePenultimate, ModeDisabled:
			want := withoutNested(before[snapshotOf(v.Name, mode.restoreSource())])
			if diff := model.Diff(want, withoutNested(after[v.Name])); diff != "" {
				t.Fatalf("%s restored:\n%s", v.Name, diff)
			}
			if diff := model.Diff(withoutNested(old), withoutNested(after[snapshotOf(v.Name, NameReplaced)])); diff != "" {
				t.Fatalf("REPLACED of %s:\n%s", v.Name, diff)
			}
			for path, e := range old {
				if e.Subvolume && path != "" && strings.HasPrefix(path, "var/lib/docker/") {
					if got := after[v.Name][path]; got.UUID != e.UUID || got.ReadOnly != e.ReadOnly {
						t.Fatalf("nested subvolume %q did not move along", path)
					}
				}
			}
		}
		if mode == ModeReset || mode == ModeSnapshotOnly {
			want, found := before[snapshotOf(v.Name, NamePrevious)]
			if !found {
				want = clean
			}
			if diff := model.Diff(anyUUID(want), after[snapshotOf(v.Name, NamePenultimate)]); diff != "" {
				t.Fatalf("PENULTIMATE of %s:\n%s", v.Name, diff)
			}
		}
	}
}

// checkCut holds a disk on which a run was cut off against I1 and I3: live is OLD or
// the new state, and OLD is there.
func checkCut(t *testing.T, where string, before, after, now state) {
	t.Helper()
	for _, v := range killPlan().Volumes {
		live := withoutNested(now[v.Name])
		asOld := model.Diff(withoutNested(before[v.Name]), live)
		asNew := model.Diff(withoutNested(after[v.Name]), live)
		if asOld != "" && asNew != "" {
			t.Errorf("%s: %s is neither old:\n%s\nnor new:\n%s", where, v.Name, asOld, asNew)
		}
		reachable := false
		for _, name := range []string{v.Name, snapshotOf(v.Name, NameNext), snapshotOf(v.Name, NamePrevious), snapshotOf(v.Name, NameReplaced)} {
			tree, found := now[name]
			reachable = reachable || found && model.Diff(withoutNested(before[v.Name]), withoutNested(tree)) == ""
		}
		if !reachable {
			t.Errorf("%s: the old state of %s is gone", where, v.Name)
		}
	}
}

// checkSame compares all that the names of section 3 mean, not what waits for the
// cleanup.
func checkSame(t *testing.T, where string, want, got state) {
	t.Helper()
	for name, tree := range want {
		if IsAged(filepath.Base(name)) {
			continue
		}
		other, found := got[name]
		if !found {
			t.Errorf("%s: %s is missing", where, name)
			continue
		}
		if diff := model.Diff(anyUUID(tree), other); diff != "" {
			t.Errorf("%s: %s differs:\n%s", where, name, diff)
		}
	}
	for name := range got {
		if _, found := want[name]; !found && !IsAged(filepath.Base(name)) {
			t.Errorf("%s: %s is left over", where, name)
		}
	}
}

func TestKillCleanup(t *testing.T) {
	testx.NeedBtrfs(t)
	base := killDisk(t, 2)
	for _, mode := range []Mode{ModeReset, ModeReset, ModeRestorePrevious} {
		if out, status := base.run(string(mode), -1); status != 0 {
			t.Fatalf("%s: status %d\n%s", mode, status, out)
		}
	}
	whole := base.copy()
	out, status := whole.run("cleanup", -1)
	if status != 0 {
		t.Fatalf("status %d\n%s", status, out)
	}
	after := whole.state()
	for name := range after {
		if IsAged(filepath.Base(name)) {
			t.Errorf("%s is left", name)
		}
	}
	for at := range strings.Count(out, "step ") {
		i := base.copy()
		if out, status := i.run("cleanup", at); status != exitCut {
			t.Fatalf("cut at %d: status %d\n%s", at, status, out)
		}
		if out, status := i.run("cleanup", -1); status != 0 {
			t.Fatalf("after a cut at %d: status %d\n%s", at, status, out)
		}
		checkSame(t, fmt.Sprintf("cut at %d", at), after, i.state())
	}
}
