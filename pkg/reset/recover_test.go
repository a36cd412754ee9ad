package reset

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx/model"
)

// States that a power cut leaves between two system calls of one step, which the
// powercut scenarios found. Here they are made by hand, from a run that was not cut
// off.

// snapshotName is a snapshot of the only volume below the top level.
func snapshotName(name string) string { return filepath.Join(DefaultSnapshots, "@root", name) }

// newCutMachine is a machine with a nested subvolume that moves, after day one.
func newCutMachine(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, newDisk(t, 256<<20), PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/var/lib"}})
	m.sh("@root", "mkdir -p etc var/lib; echo clean > etc/hosts")
	m.takeClean()
	m.create("@root/var/lib/vm")
	m.sh("@root", "echo day one > etc/hosts; echo guest > var/lib/vm/disk; echo state > var/lib/state")
	return m
}

func (m *machine) rename(from, to string) {
	m.t.Helper()
	if err := os.Rename(m.path(from), m.path(to)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) destroySnapshot(path string) {
	m.t.Helper()
	dir := m.hold(filepath.Dir(m.path(path)))
	defer dir.Close()
	if err := btrfs.Destroy(dir, filepath.Base(path)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) sync() {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	if err := btrfs.Sync(top); err != nil {
		m.t.Fatal(err)
	}
}

// cutMove leaves what a move leaves that is cut off after its rename: the times of
// the two directories are not put back, and the note of them is there.
//
// locked says that the cut came when the directories were not, or no longer, open to
// changes: before their flags were lifted, or after they were set again.
func (m *machine) cutMove(locked bool) {
	m.t.Helper()
	m.sync()
	live, old := m.hold(m.path("@root")), m.hold(m.path(snapshotName(NameNext)))
	defer live.Close()
	defer old.Close()
	from, to := m.hold(m.path(snapshotName(NameNext), "var/lib")), m.hold(m.path("@root/var/lib"))
	defer from.Close()
	defer to.Close()
	cut := &mover{old: old, new: live}
	parent := []byte("/var/lib")
	_, err := cut.hold(heldDir{dir: from, Path: parent}, heldDir{dir: to, New: true, Path: parent})
	if err != nil {
		m.t.Fatal(err)
	}
	m.sync()
	now := time.Now()
	for _, dir := range []*os.File{from, to} {
		if err := os.Chtimes(dir.Name(), now, now); err != nil {
			m.t.Fatal(err)
		}
		if locked {
			if err := btrfs.SetFlags(dir, btrfs.FlagImmutable); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	m.sync()
}

// wantUUIDs checks which subvolume stands under which name; "" wants none.
func (m *machine) wantUUIDs(want map[string]string) {
	m.t.Helper()
	for name, uuid := range want {
		got := ""
		if exists(m.path(name)) {
			got = m.info(name).UUID.String()
		}
		if got != uuid {
			m.t.Errorf("%s is %q, want %q", name, got, uuid)
		}
	}
}

func TestResetCutOffInAMoveIsNotRepeated(t *testing.T) {
	for _, tt := range []struct {
		name   string
		flags  uint32 // of the directories
		locked bool
	}{
		{"plain directory", 0, false},
		{"immutable directory, lifted", btrfs.FlagImmutable, false},
		{"immutable directory", btrfs.FlagImmutable, true},
	} {
		t.Run(tt.name, func(t *testing.T) { testCutOffInAMove(t, tt.flags, tt.locked) })
	}
}

func testCutOffInAMove(t *testing.T, flags uint32, locked bool) {
	t.Helper()
	m := newCutMachine(t)
	dir := m.hold(m.path("@root/var/lib"))
	if err := errors.Join(btrfs.SetFlags(dir, flags), dir.Close()); err != nil {
		t.Fatal(err)
	}
	old := m.info("@root").UUID.String()
	m.run(Options{})
	live := m.info("@root").UUID.String()
	liveTree, oldTree := m.read("@root"), m.read(snapshotName(NamePrevious))

	m.rename(snapshotName(NamePrevious), snapshotName(NameNext))
	m.destroySnapshot(snapshotName(NamePenultimate))
	m.destroySnapshot(snapshotName(NameCurrent))
	m.cutMove(locked)
	for range 2 {
		m.run(Options{})
		m.wantUUIDs(map[string]string{"@root": live, snapshotName(NamePrevious): old, snapshotName(NameNext): ""})
	}
	if diff := model.Diff(liveTree, m.read("@root")); diff != "" {
		t.Errorf("live is not what it was:\n%s", diff)
	}
	if diff := model.Diff(oldTree, m.read(snapshotName(NamePrevious))); diff != "" {
		t.Errorf("%s is not what it was:\n%s", NamePrevious, diff)
	}
	if got := m.info(snapshotName(NamePenultimate)).ParentUUID; got != m.info(snapshotName(NameClean)).UUID {
		t.Errorf("%s is a snapshot of %v, want one of %s", NamePenultimate, got, NameClean)
	}
}

// What a boot in between changed outside kept paths is wiped all the same.
func TestResetCutOffInAMoveAndUsed(t *testing.T) {
	m := newCutMachine(t)
	m.run(Options{})
	m.rename(snapshotName(NamePrevious), snapshotName(NameNext))
	m.destroySnapshot(snapshotName(NameCurrent))
	m.destroySnapshot(snapshotName(NamePenultimate))
	m.cutMove(false)
	m.sh("@root", "echo used > etc/hosts")
	used := m.info("@root").UUID.String()
	m.run(Options{})
	m.wantUUIDs(map[string]string{snapshotName(NamePrevious): used, snapshotName(NameNext): ""})
	if text, err := os.ReadFile(m.path("@root/etc/hosts")); err != nil || string(text) != "clean\n" {
		t.Errorf("etc/hosts = %q, %v, want what CLEAN has", text, err)
	}
}

func TestRestoreCutOffInAMoveIsNotRepeated(t *testing.T) {
	m := newCutMachine(t)
	m.run(Options{})
	m.sh("@root", "echo day two > etc/hosts")
	displaced := m.info("@root").UUID.String()
	m.run(Options{Mode: ModeRestorePrevious})
	live := m.info("@root").UUID.String()

	m.rename(snapshotName(NameReplaced), snapshotName(NameNext))
	m.cutMove(false)
	for range 2 {
		m.run(Options{Mode: ModeRestorePrevious})
		m.wantUUIDs(map[string]string{"@root": live, snapshotName(NameReplaced): displaced, snapshotName(NameNext): ""})
	}
}

func TestHalfMadeRestoreIsDropped(t *testing.T) {
	m := newCutMachine(t)
	m.run(Options{})
	live := m.info("@root").UUID.String()
	m.snapshot(snapshotName(NamePrevious), snapshotName(NameNext), false)
	m.sh(snapshotName(NameNext), "rm -f .boot-ready; echo half > made")
	m.sync()
	m.run(Options{})
	m.wantUUIDs(map[string]string{"@root": live, snapshotName(NameNext): "", snapshotName(NameReplaced): ""})
}
