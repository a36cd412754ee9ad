package reset

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

// The speed targets of section 6 of the design, as ratios in one run on one disk.
// scripts/bench runs it and shows the table.

// load is how much a day changes.
type load struct{ kept, wiped, changed int }

func (l load) String() string {
	return fmt.Sprintf("%d kept, %d wiped, %d changed", l.kept, l.wiped, l.changed)
}

// desk is a disk under load.
type desk struct {
	*machine

	fs   *testx.Filesystem
	load load
}

func newDesk(tb testing.TB, l load) *desk {
	tb.Helper()
	fs := testx.NewFilesystem(tb, 6<<30)
	fs.Remount("noatime")
	d := &desk{fs: fs, load: l, machine: newMachine(tb, fs.Mount,
		PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/etc/ssh", "/var/lib"}},
		PlanFileVolume{Name: "@home", MountPoint: "/home", Keep: []string{"/*/Documents"}},
	)}
	d.files("@root/usr/share", 2*max(l.changed, 2000), 40)
	d.files("@root/etc", 400, 40)
	d.files("@home/alice", 50, 50)
	d.syncTop()
	d.takeClean()
	d.files("@root/var/lib/app", l.kept/2, 40)
	d.files("@home/alice/Documents", l.kept/2, 40)
	d.syncTop()
	d.run(Options{})
	d.cleanup()
	return d
}

// files makes small files in folders of a hundred, over folders of a hundred.
func (d *desk) files(dir string, count, size int) {
	d.t.Helper()
	text := []byte(strings.Repeat("x", size))
	for i := range count {
		sub := d.path(dir, strconv.Itoa(i/10000), strconv.Itoa(i/100%100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				d.t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(i)), text, 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
}

// day makes a day of work: wiped files in folders of their own, files of CLEAN
// changed, and as much in the kept folders.
func (d *desk) day() {
	d.t.Helper()
	d.files("@root/tmp/build", d.load.wiped/2, 40)
	d.files("@home/alice/.cache/x", d.load.wiped/2, 40)
	for i := range d.load.changed {
		path := d.path("@root/usr/share", strconv.Itoa(i/10000), strconv.Itoa(i/100%100), strconv.Itoa(i))
		if err := os.WriteFile(path, []byte("changed"), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	d.files("@home/alice/Documents/new"+strconv.FormatInt(time.Now().UnixNano(), 36), 100, 40)
	d.syncTop()
}

// settle waits until nothing is left of the subvolumes that were destroyed: the
// kernel deletes them in the background, which would be measured too.
func (d *desk) settle() {
	d.t.Helper()
	out, err := exec.CommandContext(d.t.Context(), "sh", "-c", `btrfs -q filesystem sync "$1" && btrfs -q subvolume sync "$1"`, "sh", d.top).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	d.syncTop()
}

// cold makes the next reads come from the disk.
func (d *desk) cold() {
	d.t.Helper()
	d.fs.Remount("noatime")
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		d.t.Fatal(err)
	}
}

// floor is the least that any reset by snapshots costs: one of each volume, in
// parallel, and a sync.
func (d *desk) floor() time.Duration {
	d.t.Helper()
	return d.scratch(2, func(s scratch) error { return errors.Join(s.snapshots(false, "floor1", "floor2"), btrfs.Sync(s.top)) })
}

// commits is what the order of a reset costs by itself, in which nothing but a file in
// each volume changes: the snapshots NEXT, a sync of what was made in them, a rename,
// and the snapshots CURRENT.
func (d *desk) commits() time.Duration {
	d.t.Helper()
	return d.scratch(4, func(s scratch) error {
		if err := s.snapshots(false, "floor1", "floor2"); err != nil {
			return err
		}
		for _, name := range []string{"floor1", "floor2"} {
			if err := os.WriteFile(filepath.Join(s.dir.Name(), name, "record"), []byte(name), 0o600); err != nil {
				return err
			}
		}
		if err := btrfs.Sync(s.top); err != nil {
			return err
		}
		at := int(s.dir.Fd())
		if err := unix.Renameat(at, "floor1", at, "floor3"); err != nil {
			return err
		}
		if err := unix.Renameat(at, "floor2", at, "floor4"); err != nil {
			return err
		}
		return s.snapshots(true, "floor1", "floor2")
	})
}

// scratch is where the floor is measured: snapshots of the volumes under other names.
type scratch struct{ top, dir, root, home *os.File }

func (s scratch) snapshots(readOnly bool, root, home string) error {
	return together(
		func() error { return btrfs.Snapshot(s.root, s.dir, root, readOnly) },
		func() error { return btrfs.Snapshot(s.home, s.dir, home, readOnly) },
	)
}

// scratch times work, with the opening of what it is done to, and destroys floor1,
// floor2 and so on.
func (d *desk) scratch(made int, work func(scratch) error) time.Duration {
	d.t.Helper()
	start := time.Now()
	s := scratch{
		top: d.hold(d.top), dir: d.hold(d.path(DefaultSnapshots)),
		root: d.hold(d.path("@root")), home: d.hold(d.path("@home")),
	}
	defer func() {
		for _, f := range []*os.File{s.top, s.dir, s.root, s.home} {
			f.Close()
		}
	}()
	err := work(s)
	took := time.Since(start)
	for n := range made {
		if err == nil {
			err = btrfs.Destroy(s.dir, "floor"+strconv.Itoa(n+1))
		}
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return took
}

// round is one boot: the floor and the reset, each from a cold disk.
type round struct {
	floor, reset   time.Duration
	commits        time.Duration // those of a reset's order, without its work
	wiped, changed int
	phases         map[string]float64
}

func (d *desk) round(cold bool) round {
	d.t.Helper()
	d.day()
	d.settle()
	prepare := func() {
		if cold {
			d.cold()
		}
	}
	prepare()
	r := round{floor: d.floor(), phases: map[string]float64{}}
	d.settle()
	prepare()
	r.commits = d.commits()
	d.settle()
	prepare()
	start := time.Now()
	top := d.hold(d.top)
	defer top.Close()
	report, err := Run(top, d.plan, Options{})
	r.reset = time.Since(start)
	if err != nil || report.Failed() {
		d.t.Fatalf("Run = %v, %+v", err, report)
	}
	for _, p := range report.Phases {
		r.phases[p.Name] = p.Milliseconds
	}
	for _, v := range report.Volumes {
		if v.Outcome != OutcomeReset || v.Way != WayChanged {
			d.t.Fatalf("%s: %s %s, want a reset by the short way", v.Name, v.Outcome, v.Way)
		}
		r.wiped, r.changed = r.wiped+v.Wiped, r.changed+v.ChangedBack
		for _, p := range v.Phases {
			r.phases[p.Name] = max(r.phases[p.Name], p.Milliseconds)
		}
	}
	d.cleanup()
	return r
}

// rounds runs several and gives the medians.
func (d *desk) rounds(n int, cold bool) round {
	d.t.Helper()
	all := make([]round, 0, n)
	for range n {
		all = append(all, d.round(cold))
	}
	median := func(of func(round) time.Duration) time.Duration {
		list := make([]time.Duration, 0, n)
		for _, r := range all {
			list = append(list, of(r))
		}
		slices.Sort(list)
		return list[n/2]
	}
	out := round{
		floor:   median(func(r round) time.Duration { return r.floor }),
		commits: median(func(r round) time.Duration { return r.commits }),
		reset:   median(func(r round) time.Duration { return r.reset }),
		phases:  map[string]float64{},
	}
	for name := range all[0].phases {
		ms := median(func(r round) time.Duration { return time.Duration(r.phases[name] * 1e6) })
		out.phases[name] = float64(ms) / 1e6
	}
	return out
}

// shell runs a baseline: the same reset as a script with btrfs and cp.
func (d *desk) shell(script string) time.Duration {
	d.t.Helper()
	d.day()
	d.cold()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = d.top
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command("bash", "-c", "btrfs -q subvolume delete @snapshots/N-* 2>&1")
	cmd.Dir = d.top
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	d.syncTop()
	return took
}

// fromClean snapshots CLEAN and brings the kept paths back.
const fromClean = `
for v in @root @home; do btrfs -q subvolume snapshot @snapshots/$v/CLEAN @snapshots/N-$v; done
mkdir -p @snapshots/N-@root/var @snapshots/N-@home/alice
cp -a --reflink=always @root/var/lib @snapshots/N-@root/var/
cp -a --reflink=always @home/alice/Documents @snapshots/N-@home/alice/
sync -f .`

// fromLive snapshots live, and deletes and copies back each entry that differs.
const fromLive = `
for v in @root @home; do btrfs -q subvolume snapshot $v @snapshots/N-$v; done
rm -rf @snapshots/N-@root/tmp @snapshots/N-@home/alice/.cache
cd @snapshots/@root/CLEAN/usr/share
find . -type f | sort -t/ -k4 -n | while read -r f; do
  cmp -s "$f" ../../../../../@root/usr/share/"$f" || echo "$f"
done > /dev/shm/nixos-go-changed
while read -r f; do
  rm "../../../../N-@root/usr/share/$f"; cp -a --reflink=always "$f" "../../../../N-@root/usr/share/$f"
done < /dev/shm/nixos-go-changed
rm /dev/shm/nixos-go-changed
sync -f .`

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// phases are those of a reset, in order.
func phases() []string {
	return []string{"settle", "check", "plan", "snapshot", "apply", "sync", "exchange", "conclude"}
}

func BenchmarkReset(b *testing.B) {
	testx.NeedBtrfs(b)
	rounds := 9
	typical := load{kept: 72_000, wiped: 2_000, changed: 200}
	for range b.N {
		d := newDesk(b, typical)
		warm := d.rounds(rounds, false)
		cold := d.rounds(rounds, true)
		fmt.Printf("\n| %v | floor ms | reset ms | ratio |\n|---|---|---|---|\n", typical)
		for i, r := range []round{cold, warm} {
			disk := []string{"cold", "warm"}[i]
			fmt.Printf("| reset, %s | %.1f | %.1f | %.1f |\n", disk, ms(r.floor), ms(r.reset), ms(r.reset)/ms(r.floor))
			fmt.Printf("| its commits alone, %s | %.1f | %.1f | %.1f |\n", disk, ms(r.floor), ms(r.commits), ms(r.commits)/ms(r.floor))
		}
		b.ReportMetric(ms(warm.reset)/ms(warm.floor), "warm/floor")
		b.ReportMetric(ms(cold.reset)/ms(cold.floor), "cold/floor")
		for _, shell := range []struct{ name, script string }{
			{"snapshot CLEAN, cp kept", fromClean}, {"snapshot live, rm and cp", fromLive},
		} {
			took := d.shell(shell.script)
			fmt.Printf("| shell: %s, cold | %.1f | %.1f | %.1f |\n", shell.name, ms(cold.floor), ms(took), ms(took)/ms(cold.floor))
		}
		fmt.Printf("\n| phase | warm ms | cold ms |\n|---|---|---|\n")
		for _, name := range phases() {
			fmt.Printf("| %s | %.1f | %.1f |\n", name, warm.phases[name], cold.phases[name])
		}
	}
}

// BenchmarkScale measures how the time above the floor grows.
func BenchmarkScale(b *testing.B) {
	testx.NeedBtrfs(b)
	series := []struct {
		name  string
		loads []load
		limit float64
	}{
		{"wiped files", []load{{72_000, 100, 200}, {72_000, 100_000, 200}}, 1.3},
		{"kept files", []load{{10_000, 2000, 200}, {1_000_000, 2000, 200}}, 1.5},
	}
	for range b.N {
		fmt.Printf("\n| series | load | floor ms | reset ms | above the floor | of the first |\n|---|---|---|---|---|---|\n")
		for _, s := range series {
			var first float64
			for i, l := range s.loads {
				r := newDesk(b, l).rounds(15, false)
				above := ms(r.reset) - ms(r.floor)
				if i == 0 {
					first = above
				}
				fmt.Printf("| %s | %v | %.1f | %.1f | %.1f | %.2f (at most %.1f) |\n",
					s.name, l, ms(r.floor), ms(r.reset), above, above/first, s.limit)
				b.ReportMetric(above/first, strings.ReplaceAll(s.name, " ", "-")+"/first")
			}
		}
	}
}
