package reset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

const ballast = "@other/ballast"

// fill fills the disk to the brim, data and metadata.
func (b *box) fill() {
	b.t.Helper()
	must(b.t, os.MkdirAll(b.path(ballast), 0o700))
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * i >> 3)
	}
	made := 0
	// What a commit frees is filled again, until hardly anything goes in any more.
	for pass := 0; pass == 0 || made > 10 && pass < 20; pass++ {
		made = 0
		for _, f := range []struct {
			kind  string
			data  []byte
			xattr []byte
		}{{"data", chunk, nil}, {"page", chunk[:8<<10], nil}, {"meta", nil, chunk[:12<<10]}, {"none", nil, nil}} {
			for {
				path := b.path(ballast, fmt.Sprintf("%s-%d-%06d", f.kind, pass, made))
				err := os.WriteFile(path, f.data, 0o600)
				if err == nil && f.xattr != nil {
					err = unix.Setxattr(path, "user.ballast", f.xattr, 0)
				}
				if errors.Is(err, unix.ENOSPC) {
					break
				}
				must(b.t, err)
				made++
			}
		}
		b.syncTop()
	}
}

// drain deletes some files of the ballast that hold data, of a megabyte each, and
// some that hold metadata, of twelve kilobytes.
func (b *box) drain(data, metadata int) {
	b.t.Helper()
	for kind, count := range map[string]int{"data": data, "page": 16 * data, "meta": metadata, "none": 8 * metadata} {
		names, err := filepath.Glob(b.path(ballast, kind+"-*"))
		must(b.t, err)
		for _, name := range names[:min(count, len(names))] {
			must(b.t, os.Remove(name))
		}
	}
	b.syncTop()
}

// fullBox has some hundred things to wipe, change back and bring back, so that a
// reset wants room.
func fullBox(t *testing.T) *box {
	t.Helper()
	b := bareBox(t)
	b.sh("@root", `mkdir -p etc/ssh; echo host > etc/hostname`)
	b.sh("@home", `mkdir -p alice/back bob; for i in $(seq 100); do echo $i > alice/$i; echo back > alice/back/$i; done
		touch alice/nocow; chattr +C alice/nocow; head -c 3M /dev/urandom > alice/nocow; chown -R 1000:1000 alice`)
	b.takeClean()
	day := func(word string) {
		b.work(word)
		b.sh("@home", `for i in $(seq 100); do echo `+word+` > alice/$i; mkdir alice/d$i; echo `+word+` > alice/d$i/f; done; rm -rf alice/back; head -c 1M /dev/urandom > alice/nocow`)
	}
	for _, word := range []string{"one", "two"} {
		day(word)
		b.run(Options{})
		b.cleanup()
	}
	day("three")
	b.create("@home/alice/Documents/nested")
	b.sh("@home", `echo kept > alice/Documents/nested/file`)
	b.syncTop()
	return b
}

func TestFullDisk(t *testing.T) {
	base := fullBox(t)
	base.fill()
	base.fs.Unmount()
	base.fs.Forget()
	both := func(step int) (data, metadata int) { return 8 << step / 2, 16 << step }
	for _, tt := range []struct {
		name string
		mode Mode
		room func(step int) (data, metadata int) // how many files to delete
	}{
		{"data and metadata", ModeReset, both},
		{"metadata first", ModeReset, func(step int) (int, int) { return 1 << max(step-6, 0) / 2, 16 << step }},
		{"data first", ModeReset, func(step int) (int, int) { return 16 << step, 16 << max(step-2, 0) / 2 }},
		{"data and metadata", ModeSnapshotOnly, both},
		{"data and metadata", ModeRestorePrevious, both},
	} {
		t.Run(fmt.Sprintf("%s, room for %s", tt.mode, tt.name), func(t *testing.T) {
			fillAndDrain(t, base, tt.mode, tt.room)
		})
	}
}

// fillAndDrain tries again and again while the disk gets emptier.
func fillAndDrain(t *testing.T, base *box, mode Mode, room func(step int) (data, metadata int)) {
	t.Helper()
	b := base.copy(t)
	failures := 0
	for step := 0; !b.fullStep(mode, step); step++ {
		if failures++; step > 12 {
			t.Fatal("the disk has much room, and it fails still")
		}
		b.drain(room(step))
	}
	if failures == 0 {
		t.Error("it never failed: the disk was not full")
	}
	b.withRoomAgain()
}

// copy makes a box of a copy of the disk, which is not mounted.
func (b *box) copy(t *testing.T) *box {
	t.Helper()
	hangs(t)
	copied := image{t, b.fs.Image}.copy()
	dev := testx.NewLoopDevice(t, copied.path, killDiskSize)
	c := &box{machine: &machine{t: t, plan: b.plan}}
	c.top = c.mount(dev.Path, "btrfs", unix.MS_NOATIME, "subvolid=5")
	return c
}

// withRoomAgain empties the disk; the next day is as any other.
func (b *box) withRoomAgain() {
	b.t.Helper()
	b.drain(60, 10_000)
	b.run(Options{Mode: ModeSnapshotOnly}) // finishes what is to be finished
	b.cleanup()
	b.work("later")
	want := b.expect("@home")
	b.run(Options{})
	b.same("@home, with room again", want, b.read("@home"))
	for _, name := range []string{NamePrevious, NamePenultimate, NameCurrent} {
		if !exists(b.path(snapshotOf("@home", name))) {
			b.t.Errorf("no %s, with room again", name)
		}
	}
}

// volumeState is what a failed run has to leave as it was. The last transaction that
// changed an inode in a subvolume tells whether anything in it changed.
type volumeState struct {
	live      btrfs.Info
	snapshots map[string]btrfs.Info
}

func (b *box) volumeState(name string) volumeState {
	b.t.Helper()
	forget := func(info btrfs.Info) btrfs.Info {
		info.Generation = 0 // a snapshot of it counts as a change
		return info
	}
	s := volumeState{forget(b.info(name)), map[string]btrfs.Info{}}
	entries, err := os.ReadDir(b.path(DefaultSnapshots, name))
	must(b.t, err)
	for _, e := range entries {
		s.snapshots[e.Name()] = forget(b.info(snapshotOf(name, e.Name())))
	}
	return s
}

// fullStep makes one attempt, and reports whether all volumes are done. Each has to
// be either as it was, or what a run with room makes of it.
func (b *box) fullStep(mode Mode, step int) bool {
	b.t.Helper()
	b.syncTop()
	before, want := map[string]volumeState{}, map[string]model.Tree{}
	for _, v := range b.plan.Volumes {
		before[v.Name] = b.volumeState(v.Name)
		switch {
		case mode == ModeReset:
			want[v.Name] = b.expect(v.Name)
		case mode.restores():
			want[v.Name] = b.read(snapshotOf(v.Name, mode.restoreSource()))
			for path, e := range b.read(v.Name) {
				if strings.HasPrefix(path, "alice/Documents/nested") {
					want[v.Name][path] = e // moves along
				}
			}
		default:
			want[v.Name] = b.read(v.Name)
		}
	}
	report, err := b.try(Options{Mode: mode})
	must(b.t, err)
	b.syncTop()
	done := true
	for _, v := range b.plan.Volumes {
		was, now, r := before[v.Name], b.volumeState(v.Name), b.result(report, v.Name)
		where := fmt.Sprintf("step %d, %s, %s", step, v.Name, r.Outcome)
		if _, left := now.snapshots[NameNext]; left {
			b.t.Errorf("%s: NEXT is left (%s %v)", where, r.Error, r.Warnings)
		}
		if r.Outcome == OutcomeFailed {
			done = false
			b.wantFull(where, r.Error)
			if diff := cmp.Diff(was, now, cmp.AllowUnexported(volumeState{})); diff != "" {
				b.t.Errorf("%s: before (-) and after (+):\n%s", where, diff)
			}
			continue
		}
		b.same(where, want[v.Name], b.read(v.Name))
		displaced := map[Outcome]string{OutcomeReset: NamePrevious, OutcomeRestored: NameReplaced}[r.Outcome]
		if displaced != "" && now.snapshots[displaced].UUID != was.live.UUID {
			b.t.Errorf("%s: %s is not the old state", where, displaced)
		}
		if r.Outcome == OutcomeSnapshot && now.snapshots[NamePrevious].ParentUUID != was.live.UUID {
			b.t.Errorf("%s: PREVIOUS is no snapshot of live", where)
		}
	}
	if b.t.Failed() {
		b.t.FailNow()
	}
	return done
}

// The disk gets full in the middle, where nothing can be taken back any more: what is
// left to do, the next run finishes.
func TestDiskFillsUpAfterTheExchange(t *testing.T) {
	base := fullBox(t)
	base.fill()
	base.drain(30, 1200)
	base.fs.Unmount()
	base.fs.Forget()
	for _, tt := range []struct {
		mode  Mode
		after string
	}{
		{ModeReset, "exchange"},
		{ModeReset, "rename PENULTIMATE to AGED"},
		{ModeReset, "rename NEXT to PREVIOUS"},
		{ModeRestorePrevious, "exchange"},
		{ModeSnapshotOnly, "snapshot NEXT"},
		{ModeSnapshotOnly, "rename PENULTIMATE to AGED"},
	} {
		t.Run(fmt.Sprintf("%s, after %s", tt.mode, tt.after), func(t *testing.T) {
			b := base.copy(t)
			old := b.info("@home").UUID
			want := b.read("@home")
			switch {
			case tt.mode == ModeReset:
				want = b.expect("@home")
			case tt.mode.restores():
				want = b.read(snapshotOf("@home", NamePrevious))
				for _, path := range []string{"alice/Documents/nested", "alice/Documents/nested/file"} {
					want[path] = b.read("@home")[path] // moves along
				}
			}
			b.plan = &PlanFile{Version: 1, Snapshots: DefaultSnapshots, Clean: NameClean, Revision: 1, Volumes: b.plan.Volumes[1:]}
			report, err := b.try(Options{Mode: tt.mode, Trace: func(s Step) {
				if s.Name == tt.after && s.Done {
					b.fill()
				}
			}})
			must(t, err)
			r := b.result(report, "@home")
			t.Logf("%s %s %v", r.Outcome, r.Error, r.Warnings)
			b.same("@home, nested subvolumes apart", withoutNested(want), withoutNested(b.read("@home")))
			b.drain(60, 10_000)
			b.run(Options{Mode: tt.mode})
			b.same("@home, finished", want, b.read("@home"))
			if exists(b.path(snapshotOf("@home", NameNext))) {
				t.Error("NEXT is left")
			}
			switch home := b.info("@home").UUID; {
			case tt.mode == ModeSnapshotOnly && (home != old || b.info(snapshotOf("@home", NamePrevious)).ParentUUID != old),
				tt.mode == ModeReset && b.info(snapshotOf("@home", NamePrevious)).UUID != old,
				tt.mode.restores() && b.info(snapshotOf("@home", NameReplaced)).UUID != old:
				t.Error("the old state is not where it belongs")
			}
			b.withRoomAgain()
		})
	}
}

// wantFull checks that a message says what holds the space.
func (b *box) wantFull(where, message string) {
	b.t.Helper()
	for _, text := range []string{"the disk is full", TrashName, agedPrefix, "cleanup after the boot", "btrfs filesystem usage"} {
		if !strings.Contains(message, text) {
			b.t.Errorf("%s: the message %q does not contain %q", where, message, text)
		}
	}
}

// What holds the space is the history itself: the reset fails, the cleanup after the
// boot frees it although nothing fits on the disk, and the next boot resets.
func TestFullDiskIsFreedByTheCleanup(t *testing.T) {
	b := fullBox(t)
	b.sh("@home", `mkdir big; head -c 30M /dev/urandom > big/data`)
	for i := range 1000 {
		must(t, os.WriteFile(b.path("@home/big", strconv.Itoa(i)), nil, 0o600))
		must(t, unix.Setxattr(b.path("@home/big", strconv.Itoa(i)), "user.ballast", make([]byte, 12<<10), 0))
	}
	for _, word := range []string{"after", "later"} {
		b.run(Options{})
		b.cleanup()
		b.work(word)
	}
	b.run(Options{})
	b.work("latest")
	b.fill()
	failed := !b.fullStep(ModeReset, 0)
	t.Logf("the reset failed: %v", failed)
	top := b.hold(b.top)
	defer top.Close()
	err := Cleanup(t.Context(), top, b.plan, CleanupOptions{Trace: func(s Step) {
		if s.Name == "seal "+NamePrevious && !s.Done && s.Volume == "@home" {
			b.fill() // what the failed reset gave back
		}
	}})
	t.Logf("the cleanup: %v", err)
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	for _, v := range b.plan.Volumes {
		names, err := os.ReadDir(b.path(DefaultSnapshots, v.Name))
		must(t, err)
		for _, e := range names {
			if IsAged(e.Name()) {
				t.Errorf("the cleanup left %s", e.Name())
			}
		}
		if exists(b.path(v.Name, TrashName)) {
			t.Errorf("the cleanup left the trash of %s", v.Name)
		}
	}
	command(t, "btrfs", "filesystem", "sync", b.top) // wakes the cleaner of the kernel
	command(t, "btrfs", "subvolume", "sync", b.top)
	b.work("finally")
	want := b.expect("@home")
	b.run(Options{})
	b.same("@home", want, b.read("@home"))
}
