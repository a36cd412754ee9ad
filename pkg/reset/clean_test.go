package reset

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/testx/history"
	"nixos-go/pkg/testx/model"
)

// newCleans makes new CLEANs and puts them in place.
func (m *machine) newCleans(options CleanOptions) []*NewClean {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	names := make([]string, 0, len(m.plan.Volumes))
	for _, v := range m.plan.Volumes {
		names = append(names, v.Name)
	}
	c, err := PrepareCleans(m.t.Context(), top, m.plan, names, options)
	if err != nil {
		m.t.Fatal(err)
	}
	done := c.Volumes
	if !options.DryRun {
		if err := c.PutInPlace(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		m.t.Fatal(err)
	}
	return done
}

func (m *machine) clean(volume string) model.Tree {
	m.t.Helper()
	return m.read(filepath.Join(DefaultSnapshots, volume, NameClean))
}

// told is what is shown of changes.
func told(changes []Change) []string {
	out := make([]string, 0, len(changes))
	for i := range changes {
		if c := &changes[i]; c.Path != "/" {
			out = append(out, string(c.Kind)+" "+c.Path)
		}
	}
	return out
}

func TestTakeCleanLeavesOutWhatIsKept(t *testing.T) {
	v := PlanFileVolume{
		Name: "@root", MountPoint: "/",
		Keep:    []string{"/etc/ssh", "/etc/shadow", "/var/lib/docker", "/srv/*/keep"},
		Exclude: []string{"/etc/ssh/moduli", "/var/lib/docker/cache"},
	}
	m := newMachine(t, newDisk(t, 256<<20), v)
	m.sh("@root", `mkdir -p etc/ssh var/lib/docker srv tmp; echo key > etc/ssh/key; echo m > etc/ssh/moduli; echo hash > etc/shadow
		chmod 1777 tmp; echo h > etc/hostname; ln etc/hostname etc/other; ln etc/hostname etc/ssh/hostname; chattr +i etc/other
		echo junk > tmp/junk; touch -d @1000000000 etc etc/ssh var/lib .; setfacl -m u:7:rx etc; mkdir .immutability-trash; echo > .boot-ready
		btrfs -q subvolume create var/lib/machines; btrfs -q subvolume create srv/web; mkdir srv/web/keep; chown 1000:1000 srv/web`)
	live := m.read("@root")
	top := m.hold(m.top)
	defer top.Close()
	if err := TakeClean(t.Context(), top, m.plan, "@root", CleanupOptions{}); err != nil {
		t.Fatal(err)
	}
	clean := m.clean("@root")
	if diff := model.Diff(model.ExpectFirstClean(live, v.Keep, v.Exclude, nil), clean); diff != "" {
		t.Errorf("CLEAN:\n%s", diff)
	}
	for _, path := range []string{"etc/ssh/key", "etc/shadow", "var/lib/docker", ReadyName, TrashName} {
		if exists(m.path(snapshotOf("@root", NameClean), path)) {
			t.Errorf("%q is in CLEAN", path)
		}
	}
	if !exists(m.path(snapshotOf("@root", NameClean), "etc/ssh/moduli")) {
		t.Error("what is excluded below a kept path is not in CLEAN")
	}
	if !m.info(snapshotOf("@root", NameClean)).ReadOnly {
		t.Error("CLEAN is not read-only")
	}
	if err := TakeClean(t.Context(), top, m.plan, "@root", CleanupOptions{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("TakeClean where there is one = %v, want %v", err, os.ErrExist)
	}
	m.onlyCleanIsThere("@root")
	// What was live when CLEAN was taken is what a reset makes.
	r := m.checkReset(v)
	want := []string{"modified /etc/hostname", "modified /etc/other", "type /var/lib/machines"} // the kept link is no longer one
	if got := told(r.Volumes[0].Changes); !cmp.Equal(got, want) {
		t.Errorf("the first reset changes %q, want %q", got, want)
	}
	// Again, from live alone.
	m.sh("@root", "echo > new; echo key2 > etc/ssh/key")
	again := m.newCleans(CleanOptions{First: true, Again: true, LeaveOut: map[string][]string{"@root": {"/tmp/*"}}})[0]
	if diff := model.Diff(model.ExpectFirstClean(m.read("@root"), v.Keep, v.Exclude, []string{"/tmp/*"}), m.clean("@root")); diff != "" {
		t.Errorf("CLEAN again:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"deleted /tmp/junk"}, told(again.LeftOut)); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	if !again.Replaces || !exists(m.path(snapshotOf("@root", again.Old))) {
		t.Errorf("the CLEAN before is gone: %+v", again)
	}
}

// onlyCleanIsThere checks that nothing is left of the making.
func (m *machine) onlyCleanIsThere(volume string) {
	m.t.Helper()
	names, err := os.ReadDir(m.path(DefaultSnapshots, volume))
	if err != nil || len(names) != 1 || names[0].Name() != NameClean {
		m.t.Errorf("in the folder of %s: %v, %v; want %s alone", volume, names, err, NameClean)
	}
}

// TakeClean makes the snapshots subvolume where there is none.
func TestTakeCleanOnBareMachine(t *testing.T) {
	m := newMachine(t, newDisk(t, 256<<20))
	m.sh("", "btrfs -q subvolume delete @snapshots; btrfs -q subvolume create @root; echo x > @root/x")
	m.plan.Volumes = []PlanFileVolume{{Name: "@root", MountPoint: "/", Keep: []string{"/etc"}}}
	// A dry run makes nothing.
	r := m.newCleans(CleanOptions{First: true, DryRun: true})
	if got := told(r[0].Changes); !cmp.Equal(got, []string{"deleted /x"}) || exists(m.path("@snapshots")) {
		t.Errorf("dry run: %q, @snapshots exists: %v; want /x to come, and nothing made", got, exists(m.path("@snapshots")))
	}
	m.newCleans(CleanOptions{First: true})
	info, err := os.Stat(m.path("@snapshots"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("@snapshots: %v, %v; want mode 0700", info, err)
	}
	m.onlyCleanIsThere("@root")
}

func TestCleanRefusals(t *testing.T) {
	m := newMachine(t, newDisk(t, 256<<20), PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/etc"}})
	m.sh("", "mkdir plain; mkdir @snapshots/plain; echo > @snapshots/@root/CLEAN")
	top := m.hold(m.top)
	defer top.Close()
	for _, test := range []struct {
		name, before string
		first        bool
		want         string
	}{
		{"@home", "", true, `the plan has no volume "@home"`},
		{"@root", "", true, "not a directory"},
		{"@root", "rm @snapshots/@root/CLEAN; mkdir @snapshots/@root/CLEAN", true, "there is a CLEAN already"},
		{"@root", "rmdir @snapshots/@root/CLEAN", false, "there is no CLEAN, take the first with `nixos-snapshot init`"},
		{"@root", "rmdir @snapshots/@root", false, "take the first with `nixos-snapshot init`"},
		{"@root", "chattr +i @root", true, "run `chattr -i -a` on it"},
		{"@root", "chattr -i @root; mv @root @r; mkdir @root", true, "is a plain directory, not a subvolume"},
		{"@root", "rmdir @root", true, `there is no subvolume "@root" below the top level`},
	} {
		m.sh("", test.before)
		c, err := PrepareCleans(t.Context(), top, m.plan, []string{test.name}, CleanOptions{First: test.first})
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("PrepareCleans(%s) after %q = %v, want %q", test.name, test.before, err, test.want)
		}
	}
	lock := m.hold(m.path("@snapshots"))
	defer lock.Close()
	first, err := openSnapshots(top, "@snapshots")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = PrepareCleans(m.t.Context(), top, m.plan, []string{"@root"}, CleanOptions{})
	if err == nil || !strings.Contains(err.Error(), "another run is at work") {
		t.Errorf("PrepareCleans beside another run = %v", err)
	}
}

// A new CLEAN holds the changes that are not kept and not left out, the old one stays
// until a reset to the new one, and the way back is one step.
func TestRebase(t *testing.T) {
	v := PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/etc/ssh"}}
	m := newMachine(t, newDisk(t, 256<<20), v)
	m.sh("@root", `mkdir -p etc/ssh var/cache/old; echo key > etc/ssh/key; echo 1 > etc/motd; echo c > var/cache/old/c`)
	m.takeClean() // with what is kept in it, as an older CLEAN may have
	m.run(Options{})
	m.sh("@root", `echo 2 > etc/motd; echo new > etc/new; rm -r var/cache/old; mkdir var/cache/new; echo k2 > etc/ssh/key
		mkdir -p srv/app/cache srv/app/data; echo c > srv/app/cache/c; echo d > srv/app/data/d`)
	options := CleanOptions{LeaveOut: map[string][]string{"@root": {"/var/cache/*", "/srv/*/cache"}}}
	before, live := m.clean("@root"), m.read("@root")
	oldUUID := m.info(snapshotOf("@root", NameClean)).UUID.String()

	planned := m.newCleansDry(options)
	done := m.newCleans(options)[0]
	wantChanges := []string{"metadata /etc", "modified /etc/motd", "deleted /etc/new", "deleted /srv", "metadata /var/cache"}
	for what, n := range map[string]*NewClean{"dry run": planned, "rebase": done} {
		if diff := cmp.Diff(wantChanges, told(n.Changes)); diff != "" {
			t.Errorf("%s: changes (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff([]string{"deleted /srv/app/cache", "deleted /var/cache/new", "added /var/cache/old"}, told(n.LeftOut)); diff != "" {
			t.Errorf("%s: left out (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff([]string{"/etc/ssh"}, n.Kept); diff != "" {
			t.Errorf("%s: kept (-want +got):\n%s", what, diff)
		}
	}
	if diff := model.Diff(model.ExpectClean(before, live, v.Keep, nil, options.LeaveOut["@root"]), m.clean("@root")); diff != "" {
		t.Errorf("CLEAN:\n%s", diff)
	}
	info := m.info(snapshotOf("@root", NameClean))
	if info.UUID.String() != done.UUID || !info.ReadOnly || done.Old != agedPrefix+done.UUID {
		t.Errorf("CLEAN is %+v, reported %q, before %q", info, done.UUID, done.Old)
	}
	if got := m.info(snapshotOf("@root", done.Old)).UUID.String(); got != oldUUID {
		t.Errorf("%s is %s, want the old CLEAN %s", done.Old, got, oldUUID)
	}
	// No boot has reset to it: the cleanup leaves the old one alone, also behind another.
	m.cleanup()
	m.sh("@root", "echo 3 > etc/motd")
	second := m.newCleans(options)[0]
	m.cleanup()
	for _, name := range []string{done.Old, second.Old} {
		if !exists(m.path(snapshotOf("@root", name))) {
			t.Errorf("%s is gone before a boot has reset to the new CLEAN", name)
		}
	}
	m.undo("@root", info.UUID.String())
	m.undo("@root", oldUUID)
	if diff := model.Diff(before, m.clean("@root")); diff != "" {
		t.Errorf("CLEAN after going back:\n%s", diff)
	}
	top := m.hold(m.top)
	defer top.Close()
	if _, err := UndoCleans(top, m.plan, []string{"@root"}, CleanOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("UndoCleans with nothing to go back to = %v, want %v", err, os.ErrNotExist)
	}
	m.cleanup() // the new ones were given up
	if left := m.aged("@root"); len(left) > 0 {
		t.Errorf("left after going back: %q", left)
	}
	// And now a boot that resets to the new one.
	third := m.newCleans(options)[0]
	m.checkReset(v)
	if got := m.read("@root")["etc/new"]; got.Size != 4 {
		t.Errorf("etc/new after the reset = %+v, want CLEAN's", got)
	}
	m.cleanup()
	if exists(m.path(snapshotOf("@root", third.Old))) {
		t.Errorf("%s is there after a reset to the new CLEAN and a cleanup", third.Old)
	}
	if _, err := UndoCleans(top, m.plan, []string{"@root"}, CleanOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("UndoCleans after the cleanup = %v, want %v", err, os.ErrNotExist)
	}
}

// newCleansDry plans, and checks that nothing was written.
func (m *machine) newCleansDry(options CleanOptions) *NewClean {
	m.t.Helper()
	options.DryRun = true
	m.syncTop()
	generations := func() []uint64 {
		out := make([]uint64, 0, 4)
		for _, path := range []string{"", DefaultSnapshots, snapshotOf("@root", NameClean), "@root"} {
			out = append(out, m.info(path).Generation)
		}
		return out
	}
	before := generations()
	n := m.newCleans(options)[0]
	m.syncTop()
	if after := generations(); !slices.Equal(before, after) {
		m.t.Errorf("a dry run wrote: generations %v, want %v", after, before)
	}
	return n
}

func (m *machine) undo(volume, want string) {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	for _, dryRun := range []bool{true, false} {
		got, err := UndoCleans(top, m.plan, []string{volume}, CleanOptions{DryRun: dryRun})
		if err != nil || got[volume] != want {
			m.t.Fatalf("UndoCleans (dry run: %v) = %v, %v; want %s", dryRun, got, err, want)
		}
	}
	if got := m.info(snapshotOf(volume, NameClean)).UUID.String(); got != want {
		m.t.Fatalf("CLEAN after UndoCleans is %s, want %s", got, want)
	}
}

func (m *machine) aged(volume string) []string {
	m.t.Helper()
	dir := m.hold(m.path(DefaultSnapshots, volume))
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		m.t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(name string) bool { return !IsAged(name) })
}

// TestRandomCleans makes CLEANs of random volumes under random rules, and holds them
// against the model, and the dry run against what happens. NIXOS_GO_SEED runs one
// seed, NIXOS_GO_HISTORIES more of them.
func TestRandomCleans(t *testing.T) {
	top := newDisk(t, 1<<30)
	for _, seed := range seeds(t, 12) {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) { randomCleans(t, top, seed) })
	}
}

func randomCleans(t *testing.T, top string, seed uint64) {
	t.Helper()
	gen := history.New(history.NewSource(seed))
	v := PlanFileVolume{Name: "@c" + strconv.FormatUint(seed, 10), MountPoint: "/", KeepNothing: true}
	m := newMachineIn(t, top, v)
	defer m.destroy()
	change := func(ops []history.Op, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, history.Format(ops))
		}
		if testing.Verbose() {
			t.Log("\n" + history.Format(ops))
		}
	}
	live := m.path(v.Name)
	change(gen.Populate(live, 50))
	var before model.Tree
	for round := range 4 {
		keep, exclude, err := gen.Rules(live)
		if err != nil {
			t.Fatal(err)
		}
		leaveOut, _, err := gen.Rules(live)
		if err != nil {
			t.Fatal(err)
		}
		v.Keep, v.Exclude = keep, exclude
		m.plan.Volumes[0] = v
		t.Logf("keep %q exclude %q leave out %q", keep, exclude, leaveOut)
		// A root that cannot be renamed is refused.
		m.sh(v.Name, "chattr -i -a .")
		m.syncTop()
		now := m.read(v.Name)
		options := CleanOptions{First: round == 0, LeaveOut: map[string][]string{v.Name: leaveOut}, DryRun: true}
		planned := m.newCleans(options)[0]
		options.DryRun = false
		done := m.newCleans(options)[0]
		want := model.ExpectFirstClean(now, keep, exclude, leaveOut)
		if round > 0 {
			want = model.ExpectClean(before, now, keep, exclude, leaveOut)
		}
		before = m.clean(v.Name)
		if diff := model.Diff(want, before); diff != "" {
			t.Fatalf("round %d: CLEAN:\n%s\nkeep %q exclude %q leave out %q\nchanges %q", round, diff, keep, exclude, leaveOut, told(done.Changes))
		}
		// Where kept paths go from CLEAN, the directories above may differ.
		if len(done.Kept) == 0 {
			if diff := cmp.Diff(told(done.Changes), told(planned.Changes)); diff != "" {
				t.Errorf("round %d: what happened (-) and the dry run (+):\n%s", round, diff)
			}
		}
		if diff := model.Diff(now, m.read(v.Name)); diff != "" {
			t.Fatalf("round %d: live changed:\n%s", round, diff)
		}
		m.checkReset(v)
		if round%2 == 0 {
			m.cleanup()
		}
		change(gen.Mutate(live, 30))
	}
}
