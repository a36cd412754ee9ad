package reset

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

// cutWork is what else than a reset is cut off by the end of its process.
func cutWork(name string) func(top *os.File, trace func(Step)) error {
	cleans := func(first bool) func(*os.File, func(Step)) error {
		return func(top *os.File, trace func(Step)) error {
			names := []string{"@root", "@home"}
			c, err := PrepareCleans(context.Background(), top, killPlan(), names, CleanOptions{
				First: first, Trace: trace, LeaveOut: map[string][]string{"@root": {"/tmp/*"}},
			})
			if err != nil {
				return err
			}
			return errors.Join(c.PutInPlace(context.Background()), c.Close())
		}
	}
	switch name {
	case "cleanup":
		return func(top *os.File, trace func(Step)) error {
			return Cleanup(context.Background(), top, killPlan(), CleanupOptions{Trace: trace})
		}
	case "init":
		return cleans(true)
	case "rebase":
		return cleans(false)
	case "restore":
		return cutRestore
	}
	return nil
}

// restorePaths are restored from PREVIOUS, by force.
func restorePaths() map[string][]string {
	return map[string][]string{
		"@root": {"/etc/gone", "/etc/a", "/etc/linked", "/tmp", "/srv/web/junk", "/var/lib/machines"},
		"@home": {"/alice/.bashrc", "/alice/.cache", "/alice/src"},
	}
}

func cutRestore(top *os.File, trace func(Step)) error {
	lock, err := Lock(top, killPlan())
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, volume := range []string{"@root", "@home"} {
		live, err := openDir(top, volume)
		if err != nil {
			return err
		}
		defer live.Close()
		source, err := OpenSnapshot(top, killPlan(), volume, NamePrevious)
		if err != nil {
			return err
		}
		defer source.Close()
		r, err := PlanRestore(live, source, restorePaths()[volume])
		if err != nil {
			return err
		}
		if err := r.Apply(context.Background(), RestoreOptions{Force: true, Volume: volume, Trace: trace}); err != nil {
			return err
		}
	}
	return nil
}

// cutEverywhere cuts work off at each step, then its second run somewhere, lets it
// run twice more, and checks each state on the way.
func cutEverywhere(t *testing.T, base image, work string, least int, cut func(where string, now state), done func(where string, i image)) {
	t.Helper()
	out, status := base.copy().run(work, -1)
	if status != 0 {
		t.Fatalf("uncut %s: status %d\n%s", work, status, out)
	}
	steps := strings.Count(out, "step ")
	if steps < least {
		t.Fatalf("%s has only %d steps:\n%s", work, steps, out)
	}
	random := rand.New(rand.NewPCG(2, uint64(steps)))
	for at := range steps {
		i := base.copy()
		if out, status := i.run(work, at); status != exitCut {
			t.Fatalf("cut at %d: status %d\n%s", at, status, out)
		}
		where := fmt.Sprintf("%s cut at %d", work, at)
		cut(where, i.state())
		again := random.IntN(steps)
		_, status := i.run(work, again)
		where += fmt.Sprintf(", then at %d (status %d)", again, status)
		cut(where, i.state())
		for round := range 2 {
			out, status := i.run(work, -1)
			// A first CLEAN is refused where there is one.
			if status != 0 && (work != "init" || !strings.Contains(out, "there is a CLEAN already")) {
				t.Fatalf("%s, run %d afterwards: status %d\n%s", where, round, status, out)
			}
			done(fmt.Sprintf("%s, run %d afterwards", where, round), i)
		}
		if t.Failed() {
			t.Fatalf("steps:\n%s", out)
		}
	}
}

// TestKillInit: CLEAN is there whole, or not at all, and nothing else changes.
func TestKillInit(t *testing.T) {
	testx.NeedBtrfs(t)
	base := killDisk(t, 0)
	base.sh(`for v in @root @home; do btrfs -q subvolume delete @snapshots/$v/CLEAN; done`)
	before := base.state()
	want := state{}
	for _, v := range killPlan().Volumes {
		var leaveOut []string
		if v.Name == "@root" {
			leaveOut = []string{"/tmp/*"}
		}
		want[v.Name] = model.ExpectFirstClean(before[v.Name], v.Keep, v.Exclude, leaveOut)
	}
	complete := func(where string, now state) {
		for name, tree := range want {
			if got, there := now[snapshotOf(name, NameClean)]; there {
				if diff := model.Diff(tree, got); diff != "" {
					t.Errorf("%s: CLEAN of %s:\n%s", where, name, diff)
				}
			}
			if diff := model.Diff(before[name], now[name]); diff != "" {
				t.Errorf("%s: %s changed:\n%s", where, name, diff)
			}
		}
	}
	cutEverywhere(t, base, "init", 20, complete, func(where string, i image) {
		now := i.state()
		complete(where, now)
		// One volume may have had its CLEAN when the other was cut off: then init
		// refuses the one, and is called for the other alone.
		for name := range want {
			if _, there := now[snapshotOf(name, NameClean)]; !there {
				i.take(name)
			}
		}
		if out, status := i.run("cleanup", -1); status != 0 {
			t.Fatalf("%s: cleanup: %s", where, out)
		}
		now = i.state()
		for name := range now {
			if base := filepath.Base(name); strings.HasPrefix(name, DefaultSnapshots) && base != NameClean {
				t.Errorf("%s: %s is left after the cleanup", where, name)
			}
		}
	})
}

// sh runs a script in the top level of the image.
func (i image) sh(script string) {
	i.t.Helper()
	i.use(func(device string) {
		m := mountDevice(i.t, device)
		defer m.unmount()
		m.sh("", script)
		m.syncTop()
	})
}

// mountedDevice is a machine on a device that is mounted for a moment.
type mountedDevice struct {
	machine

	unmount func()
}

func mountDevice(tb testing.TB, device string) *mountedDevice {
	tb.Helper()
	dir := tb.TempDir()
	if err := unix.Mount(device, dir, "btrfs", unix.MS_NOATIME, "subvolid=5"); err != nil {
		tb.Fatal(err)
	}
	return &mountedDevice{
		machine: machine{t: tb, top: dir, plan: killPlan()},
		unmount: func() {
			if err := unix.Unmount(dir, 0); err != nil {
				tb.Error(err)
			}
		},
	}
}

// take takes the first CLEAN of one volume.
func (i image) take(volume string) {
	i.t.Helper()
	i.use(func(device string) {
		top, err := btrfs.Mount(device, btrfs.MountOptions{})
		if err != nil {
			i.t.Fatal(err)
		}
		defer top.Close()
		if err := TakeClean(i.t.Context(), top, killPlan(), volume, CleanupOptions{}); err != nil {
			i.t.Error(err)
		}
	})
}

// TestKillRebase: CLEAN is the old one or the new one, the old one is there until a
// boot has reset to the new one, and nothing else changes.
func TestKillRebase(t *testing.T) {
	testx.NeedBtrfs(t)
	base := killDisk(t, 1)
	base.sh(`chattr -i @root/etc/b 2>/dev/null || true; echo new > @root/etc/clean; mkdir -p @root/tmp; echo junk > @root/tmp/junk`)
	before := base.state()
	fresh := state{}
	for _, v := range killPlan().Volumes {
		var leaveOut []string
		if v.Name == "@root" {
			leaveOut = []string{"/tmp/*"}
		}
		fresh[v.Name] = model.ExpectClean(before[snapshotOf(v.Name, NameClean)], before[v.Name], v.Keep, v.Exclude, leaveOut)
	}
	cut := func(where string, now state) {
		for _, v := range killPlan().Volumes {
			clean := snapshotOf(v.Name, NameClean)
			isOld, isNew := model.Diff(before[clean], now[clean]), model.Diff(fresh[v.Name], now[clean])
			if isOld != "" && isNew != "" {
				t.Errorf("%s: CLEAN of %s is neither old:\n%s\nnor new:\n%s", where, v.Name, isOld, isNew)
			}
			if isOld != "" && !hasAged(now, v.Name, before[clean]) {
				t.Errorf("%s: the old CLEAN of %s is gone", where, v.Name)
			}
			for _, name := range []string{v.Name, snapshotOf(v.Name, NamePrevious), snapshotOf(v.Name, NamePenultimate), snapshotOf(v.Name, NameCurrent)} {
				if diff := model.Diff(before[name], now[name]); diff != "" {
					t.Errorf("%s: %s changed:\n%s", where, name, diff)
				}
			}
		}
	}
	cutEverywhere(t, base, "rebase", 30, cut, func(where string, i image) {
		if out, status := i.run("cleanup", -1); status != 0 {
			t.Fatalf("%s: cleanup: %s", where, out)
		}
		now := i.state()
		cut(where+" and a cleanup", now)
		for _, v := range killPlan().Volumes {
			if diff := model.Diff(fresh[v.Name], now[snapshotOf(v.Name, NameClean)]); diff != "" {
				t.Errorf("%s: CLEAN of %s:\n%s", where, v.Name, diff)
			}
		}
	})
	// A boot resets to it, and then the old one goes.
	if out, status := base.run("rebase", -1); status != 0 {
		t.Fatal(out)
	}
	for _, work := range []string{"cleanup", string(ModeReset), "cleanup"} {
		if out, status := base.run(work, -1); status != 0 {
			t.Fatalf("%s: %s", work, out)
		}
	}
	after := base.state()
	for _, v := range killPlan().Volumes {
		want := model.Expect(before[v.Name], fresh[v.Name], v.Keep, v.Exclude)
		if diff := model.Diff(want, after[v.Name]); diff != "" {
			t.Errorf("%s after the reset to the new CLEAN:\n%s", v.Name, diff)
		}
	}
	for name := range after {
		if IsAged(filepath.Base(name)) {
			t.Errorf("%s is left", name)
		}
	}
}

// hasAged reports whether a tree waits under the name of an aged snapshot.
func hasAged(s state, volume string, tree model.Tree) bool {
	for name, got := range s {
		if IsAged(filepath.Base(name)) && strings.HasPrefix(name, snapshotOf(volume, "")) && model.Diff(tree, got) == "" {
			return true
		}
	}
	return false
}

// restoreDisk is a machine after a reset that took all kinds of things.
func restoreDisk(tb testing.TB) image {
	tb.Helper()
	base := killDisk(tb, 1)
	base.sh(`echo 1 > @root/etc/gone; ln -f @root/etc/gone @root/etc/linked; echo changed > @root/etc/a; chattr +i @root/etc/gone
		mkdir -p @home/alice/src/deep; echo s > @home/alice/src/deep/s; ln @home/alice/src/deep/s @home/alice/src/s; chattr +i @home/alice/src/deep`)
	for _, work := range []string{string(ModeReset), "cleanup"} {
		if out, status := base.run(work, -1); status != 0 {
			tb.Fatalf("%s: %s", work, out)
		}
	}
	return base
}

// TestKillRestore: no name is ever half of what it should be, what is kept stays, and
// the same restore finishes it.
func TestKillRestore(t *testing.T) {
	testx.NeedBtrfs(t)
	base := restoreDisk(t)
	before := base.state()
	whole := base.copy()
	if out, status := whole.run("restore", -1); status != 0 {
		t.Fatalf("status %d\n%s", status, out)
	}
	after := whole.state()
	expected := state{}
	for name, paths := range restorePaths() {
		var relative []string
		for _, path := range paths {
			relative = append(relative, path[1:])
		}
		tree := model.ExpectRestore(before[name], before[snapshotOf(name, NamePrevious)], relative, true)
		for path, e := range tree { // subvolumes come back as others
			if e.Subvolume && before[name][path].UUID == "" {
				e.UUID = ""
				tree[path] = e
			}
		}
		expected[name] = tree
		if diff := model.Diff(tree, after[name]); diff != "" {
			t.Fatalf("%s after the restore:\n%s", name, diff)
		}
	}
	cut := func(where string, now state) {
		for name := range restorePaths() {
			for path, e := range now[name] {
				if !isStage(path) && !sameEntry(e, before[name][path]) && !sameEntry(e, after[name][path]) {
					t.Errorf("%s: %q in %s is neither what was nor what is to be: %+v", where, path, name, e)
				}
			}
			for path := range before[name] {
				if _, there := now[name][path]; !there {
					t.Errorf("%s: %q in %s is gone", where, path, name)
				}
			}
			for _, snapshot := range []string{NameClean, NamePrevious, NamePenultimate, NameCurrent} {
				if diff := model.Diff(before[snapshotOf(name, snapshot)], now[snapshotOf(name, snapshot)]); diff != "" {
					t.Errorf("%s: %s of %s changed:\n%s", where, snapshot, name, diff)
				}
			}
		}
	}
	cutEverywhere(t, base, "restore", 40, cut, func(where string, i image) {
		now := i.state()
		for name, tree := range expected {
			if diff := model.Diff(tree, now[name]); diff != "" {
				t.Errorf("%s: %s:\n%s", where, name, diff)
			}
		}
		i.use(func(device string) {
			m := mountDevice(t, device)
			defer m.unmount()
			for name := range expected {
				if exists(m.path(name, TrashName)) {
					t.Errorf("%s: the trash folder of %s is left", where, name)
				}
			}
		})
	})
}

// isStage reports whether a path is a stage in a nested subvolume, or lies in one.
func isStage(path string) bool {
	return slices.ContainsFunc(strings.Split(path, "/"), func(name string) bool { return strings.HasPrefix(name, TrashName+".") })
}

// sameEntry compares two entries but for flags that are set last, what they are linked
// with, which subvolume it is, and times of directories.
func sameEntry(a, b model.Entry) bool {
	for _, e := range []*model.Entry{&a, &b} {
		e.Inode, e.UUID = "", ""
		e.Flags &^= lockFlags
		if e.IsDir() {
			e.MTime = 0
		}
	}
	return model.Diff(model.Tree{"": a}, model.Tree{"": b}) == ""
}
