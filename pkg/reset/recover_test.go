package reset

import (
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

// cutMove leaves what a move leaves that is cut off right after its rename: the times
// of the two directories are those of the rename.
func (m *machine) cutMove() {
	m.t.Helper()
	m.sync()
	now := time.Now()
	for _, root := range []string{"@root", snapshotName(NameNext)} {
		if err := os.Chtimes(m.path(root, "var/lib"), now, now); err != nil {
			m.t.Fatal(err)
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
	m := newCutMachine(t)
	old := m.info("@root").UUID.String()
	m.run(Options{})
	live := m.info("@root").UUID.String()
	liveTree, oldTree := m.read("@root"), m.read(snapshotName(NamePrevious))

	m.rename(snapshotName(NamePrevious), snapshotName(NameNext))
	m.destroySnapshot(snapshotName(NamePenultimate))
	m.destroySnapshot(snapshotName(NameCurrent))
	m.cutMove()
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
	m.cutMove()
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
	m.cutMove()
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
