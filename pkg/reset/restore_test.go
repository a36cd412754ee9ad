package reset

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx/history"
	"nixos-go/pkg/testx/model"
)

// planRestore plans a restore from a snapshot below the top level.
func (m *machine) planRestore(volume, snapshot string, paths ...string) (*Restore, error) {
	m.t.Helper()
	live, source := m.hold(m.path(volume)), m.hold(m.path(snapshot))
	m.t.Cleanup(func() {
		live.Close()
		source.Close()
	})
	return PlanRestore(live, source, paths)
}

// restore restores paths of @home from PREVIOUS.
func (m *machine) restore(force bool, paths ...string) *Restore {
	m.t.Helper()
	r, err := m.planRestore("@home", previousHome, paths...)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := r.Apply(m.t.Context(), RestoreOptions{Force: force}); err != nil {
		m.t.Fatal(err)
	}
	return r
}

func toldItems(r *Restore) []string {
	out := make([]string, 0, len(r.Items))
	for i := range r.Items {
		item := &r.Items[i]
		line := string(item.Action) + " " + item.Path
		if item.Fields != 0 {
			line += " " + item.Fields.String()
		}
		if item.OnTheWay {
			line += " on the way"
		}
		out = append(out, line)
	}
	return out
}

// restoreMachine has a volume, and in PREVIOUS what a reset took from it.
func restoreMachine(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, newDisk(t, 256<<20), PlanFileVolume{Name: "@home", MountPoint: "/home", Keep: []string{"/*/Documents", "/*/vm"}})
	m.sh("@home", `mkdir -p alice/Documents; echo rc > alice/.bashrc; chown -R 1000:1000 alice`)
	m.takeClean()
	m.sh("@home", `mkdir -p alice/src/deep/er alice/src/empty; cd alice/src
		dd if=/dev/urandom of=big bs=64K count=4 status=none; truncate -s 1M sparse; echo end >> sparse
		ln big deep/big2; ln -s ../big deep/link; mkfifo deep/fifo; mknod deep/null c 1 3; echo '#!' > run; chmod 4755 run
		setfattr -n user.x -v 1 big; setfacl -m u:7:rwx deep; setfacl -d -m u:8:rx deep; setfacl -m g:9:r run
		touch nocow; chattr +C nocow; echo data > nocow; echo fixed > fixed; ln fixed fixed2; mkdir locked; echo l > locked/l
		touch -d @1000000000.123456789 deep/er deep empty run .; chattr +i fixed locked; chattr +c deep/er
		setcap cap_net_raw+ep run 2>/dev/null || true
		printf 'x' > $'deep/er/caf\xe9'; printf y > $'new\nline'
		echo rc2 > ../.bashrc; mkdir ../.cache; echo c > ../.cache/c; echo kept > ../Documents/kept
		btrfs -q subvolume create ../images; echo i > ../images/i; btrfs -q subvolume create ../images/inner; echo n > ../images/inner/n
		btrfs property set ../images/inner ro true; btrfs -q subvolume create ../vm; echo v > ../vm/v`)
	m.syncTop()
	m.run(Options{})
	m.cleanup()
	return m
}

const previousHome = DefaultSnapshots + "/@home/" + NamePrevious

// Everything that a path has comes back, with the directories on the way.
func TestRestoreExact(t *testing.T) {
	m := restoreMachine(t)
	live, previous := m.read("@home"), m.read(previousHome)
	r := m.restore(false, "/alice/src", "/alice/.cache/c")
	want := []string{"create /alice/.cache on the way", "create /alice/src"}
	if diff := cmp.Diff(want, toldItems(r)); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	got := m.read("@home")
	if diff := model.Diff(model.ExpectRestore(live, previous, []string{"alice/src", "alice/.cache/c"}, false), got); diff != "" {
		t.Fatalf("after the restore:\n%s", diff)
	}
	if e := got["alice/src/deep/big2"]; e.Inode == "" || e.Inode != got["alice/src/big"].Inode {
		t.Error("linked names are not linked")
	}
	m.sharesExtents("@home/alice/src/big", previousHome+"/alice/src/big")
	if exists(m.path("@home", TrashName)) {
		t.Error("the trash folder is left")
	}
	// Again: nothing to do, and nothing written.
	m.syncTop()
	generation := m.info("@home").Generation
	r, err := m.planRestore("@home", previousHome, "/alice/src", "/alice/.cache")
	if err != nil || len(r.Items) > 0 || r.Same == 0 || r.Conflicts() {
		t.Errorf("plan of what is there = %v, %q, %d the same", err, toldItems(r), r.Same)
	}
	if err := r.Apply(t.Context(), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	m.syncTop()
	if now := m.info("@home").Generation; now != generation {
		t.Errorf("a restore of what is there wrote: generation %d, want %d", now, generation)
	}
}

// sharesExtents checks that two files share their data.
func (m *machine) sharesExtents(a, b string) {
	m.t.Helper()
	x, y := m.hold(m.path(a)), m.hold(m.path(b))
	defer x.Close()
	defer y.Close()
	var stX, stY unix.Stat_t
	if err := errors.Join(unix.Fstat(int(x.Fd()), &stX), unix.Fstat(int(y.Fd()), &stY)); err != nil {
		m.t.Fatal(err)
	}
	m.syncTop()
	treeX, treeY := newTree(x, 0), newTree(y, 0)
	_, differ, err := firstDifference(treeX, stX.Ino, treeY, stY.Ino)
	if err != nil || differ {
		m.t.Errorf("%s and %s do not share their extents (%v)", a, b, err)
	}
}

// A nested subvolume comes back as one, with those in it; a kept one has moved along
// and is not in PREVIOUS.
func TestRestoreNested(t *testing.T) {
	m := restoreMachine(t)
	previous := m.read(previousHome)
	m.restore(false, "/alice/images")
	got := m.read("@home")
	for _, path := range []string{"alice/images", "alice/images/i", "alice/images/inner", "alice/images/inner/n"} {
		want := previous[path]
		want.UUID = ""
		if diff := model.Diff(model.Tree{path: want}, model.Tree{path: got[path]}); diff != "" {
			t.Errorf("%s", diff)
		}
	}
	if e := got["alice/images/inner"]; !e.Subvolume || !e.ReadOnly {
		t.Errorf("alice/images/inner = %+v, want a read-only subvolume", e)
	}
	_, err := m.planRestore("@home", previousHome, "/alice/vm")
	if !errors.As(err, new(*NotInSnapshotError)) {
		t.Errorf("restore of a kept subvolume = %v, want that it is not in the snapshot", err)
	}
	// One file out of it, where there is no such subvolume in live.
	m.sh("@home", "btrfs -q property set alice/images/inner ro false; btrfs -q subvolume delete alice/images/inner alice/images")
	m.restore(false, "/alice/images/inner/n")
	if e := m.read("@home")["alice/images/inner/n"]; e.Size != 2 {
		t.Errorf("alice/images/inner/n = %+v", e)
	}
}

// What a nested subvolume of live holds is restored inside of it.
func TestRestoreIntoNested(t *testing.T) {
	m := newMachine(t, newDisk(t, 256<<20), PlanFileVolume{Name: "@home", MountPoint: "/home", Keep: []string{"/*/Documents"}})
	m.takeClean()
	m.sh("@home", `btrfs -q subvolume create alice; mkdir alice/Documents alice/src; echo d > alice/Documents/d; echo 1 > alice/src/a; ln alice/src/a alice/src/b`)
	m.syncTop()
	m.run(Options{})
	live, previous := m.read("@home"), m.read(previousHome)
	if !live["alice"].Subvolume {
		t.Fatal("alice is no subvolume")
	}
	m.restore(false, "/alice/src")
	if diff := model.Diff(model.ExpectRestore(live, previous, []string{"alice/src"}, false), m.read("@home")); diff != "" {
		t.Errorf("after the restore:\n%s", diff)
	}
}

// What is there is overwritten by force alone, and what only live has stays.
func TestRestoreConflicts(t *testing.T) {
	m := restoreMachine(t)
	m.sh("@home", `cd alice; mkdir -p src/deep src/locked; echo mine > src/run; echo new > src/new; mkdir src/big; echo l > src/locked/l; mkdir src/sparse`)
	r, err := m.planRestore("@home", previousHome, "/alice/src", "/alice/.bashrc")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"replace /alice/.bashrc content,size,mtime",
		"metadata /alice/src mtime",
		"replace /alice/src/big type",
		"metadata /alice/src/deep mode,mtime,xattrs",
		"create /alice/src/deep/big2", "create /alice/src/deep/er", "create /alice/src/deep/fifo",
		"create /alice/src/deep/link", "create /alice/src/deep/null",
		"create /alice/src/empty", "create /alice/src/fixed", "create /alice/src/fixed2",
		"metadata /alice/src/locked mtime,flags",
		"replace /alice/src/locked/l mtime",
		"create /alice/src/new\nline", "create /alice/src/nocow",
		"replace /alice/src/run content,size,mode,mtime,xattrs",
		"replace /alice/src/sparse type",
	}
	if diff := cmp.Diff(want, toldItems(r)); diff != "" || !r.Conflicts() {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/alice/src/new"}, r.LiveOnly); diff != "" {
		t.Errorf("only in live (-want +got):\n%s", diff)
	}
	before := m.read("@home")
	if err := r.Apply(t.Context(), RestoreOptions{}); !errors.Is(err, ErrConflict) {
		t.Errorf("Apply without force = %v, want %v", err, ErrConflict)
	}
	if diff := model.Diff(before, m.read("@home")); diff != "" {
		t.Errorf("a refused restore changed:\n%s", diff)
	}
	m.restore(true, "/alice/src", "/alice/.bashrc")
	expected := model.ExpectRestore(before, m.read(previousHome), []string{"alice/src", "alice/.bashrc"}, true)
	if diff := model.Diff(expected, m.read("@home")); diff != "" {
		t.Errorf("after the restore by force:\n%s", diff)
	}
}

// What no force is for.
func TestRestoreRefusals(t *testing.T) {
	m := restoreMachine(t)
	m.sh("@home", `cd alice; ln -s / escape; mkdir -p bob mnt fix lock; echo x > bob/x; chattr +i lock; echo f > fix/f; chattr +i fix/f
		mount -t tmpfs none mnt; mkdir -p mnt/in`)
	defer m.sh("@home", "umount alice/mnt; chattr -i alice/lock alice/fix/f")
	// A snapshot with things where live has others.
	m.snapshot("@home", "other", false)
	m.sh("other", `cd alice; rm escape; mkdir escape; echo e > escape/e; rm -r bob; echo file > bob; mkdir -p mnt/in; echo m > mnt/in/m
		chattr -i fix/f lock; echo other > fix/f; echo l > lock/l; ln -s bob link`)
	m.syncTop()
	before := m.read("@home")
	for path, want := range map[string]string{
		"":                       "a whole volume is restored at boot",
		"/":                      "a whole volume is restored at boot",
		"/" + ReadyName:          "is the toolkit's own",
		"/" + TrashName + "/x":   "is the toolkit's own",
		"/alice/nothing":         `"/alice/nothing" is not in the snapshot`,
		"/alice/nothing/below":   `"/alice/nothing/below" is not in the snapshot`,
		"/alice/link/x":          `"/alice/link" is a symlink in the snapshot`,
		"/alice/bob/x":           `"/alice/bob" is a file in the snapshot`,
		"/alice/vm/v":            `"/alice/vm" was a nested subvolume, which the snapshot does not hold`,
		"/alice/escape/e":        `"/alice/escape" is a symlink, where a directory was`,
		"/alice/bob":             `"/alice/bob" is a directory that is not empty, where a file was`,
		"/alice/mnt/in/m":        `"/alice/mnt" lies on another file system`,
		"/alice/fix/f":           "run `chattr -i -a` on it first",
		"/alice/lock/l":          "run `chattr -i -a` on it first",
		"/alice/../alice/escape": `"/alice/../alice/escape" is not in the snapshot`,
	} {
		r, err := m.planRestore("@home", "other", path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("PlanRestore(%q) = %v, want %q", path, err, want)
		}
		if err == nil {
			t.Logf("%q", toldItems(r))
		}
	}
	if diff := model.Diff(before, m.read("@home")); diff != "" {
		t.Errorf("planning changed:\n%s", diff)
	}
}

// What changes between plan and apply is not overwritten, and a directory with
// something in it never deleted.
func TestRestoreRaces(t *testing.T) {
	m := restoreMachine(t)
	m.sh("@home", "mkdir -p alice/src; mkdir alice/src/run")
	r, err := m.planRestore("@home", previousHome, "/alice/src/run", "/alice/src/big", "/alice/.cache")
	if err != nil {
		t.Fatal(err)
	}
	m.sh("@home", "echo mine > alice/src/run/mine; mkdir alice/.cache; echo mine > alice/.cache/mine")
	err = r.Apply(t.Context(), RestoreOptions{Force: true})
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("Apply where something appeared = %v, want %v", err, unix.EEXIST)
	}
	m.sh("@home", "rm -r alice/.cache")
	if err := r.Apply(t.Context(), RestoreOptions{Force: true}); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("Apply where a directory was filled = %v, want %v", err, unix.ENOTEMPTY)
	}
	if text, err := os.ReadFile(m.path("@home/alice/src/run/mine")); string(text) != "mine\n" {
		t.Errorf("alice/src/run/mine = %q, %v", text, err)
	}
	if exists(m.path("@home", TrashName)) {
		t.Error("the trash folder is left")
	}
}

// TestRandomRestores restores random paths between random states of a volume, and
// holds the result against the model. NIXOS_GO_SEED runs one seed,
// NIXOS_GO_HISTORIES more of them.
func TestRandomRestores(t *testing.T) {
	top := newDisk(t, 1<<30)
	list := seeds(t, 20)
	done := 0
	for _, seed := range list {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) { done += randomRestores(t, top, seed) })
	}
	if len(list) > 1 && done < len(list) {
		t.Errorf("%d restores were refused or had nothing to do, and only %d had", 5*len(list)-done, done)
	}
}

func randomRestores(t *testing.T, top string, seed uint64) (done int) {
	t.Helper()
	random := history.NewSource(seed)
	gen := history.New(random)
	v := PlanFileVolume{Name: "@r" + strconv.FormatUint(seed, 10), MountPoint: "/", KeepNothing: true}
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
	change(gen.Populate(m.path(v.Name), 60))
	snapshot := filepath.Join(DefaultSnapshots, v.Name, NamePrevious)
	m.snapshot(v.Name, snapshot, true)
	old := m.read(snapshot)
	for round := range 5 {
		change(gen.Mutate(m.path(v.Name), 12))
		m.syncTop()
		live := m.read(v.Name)
		names := slices.Sorted(maps.Keys(old))
		paths := make([]string, 1+random.IntN(3))
		rooted := make([]string, len(paths))
		for i := range paths {
			paths[i] = names[1+random.IntN(len(names)-1)]
			rooted[i] = "/" + paths[i]
		}
		r, err := m.planRestore(v.Name, snapshot, rooted...)
		if errors.As(err, new(*BlockedError)) || errors.As(err, new(*NotInSnapshotError)) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		force := r.Conflicts() || random.IntN(2) == 0
		if err := r.Apply(t.Context(), RestoreOptions{Force: force}); err != nil {
			t.Fatalf("round %d: restore %q by force %v: %v\n%q", round, rooted, force, err, toldItems(r))
		}
		if diff := model.Diff(model.ExpectRestore(live, old, paths, force), m.read(v.Name)); diff != "" {
			t.Fatalf("round %d: restore %q by force %v:\n%s\n%q", round, rooted, force, diff, toldItems(r))
		}
		again, err := m.planRestore(v.Name, snapshot, rooted...)
		if err != nil {
			t.Fatal(err)
		}
		for i := range again.Items {
			item := &again.Items[i]
			if item.Action != RestoreSkip && (force || item.Action != RestoreMetadata || item.Conflict()) {
				t.Errorf("round %d: restore %q by force %v again: %q", round, rooted, force, toldItems(again))
			}
		}
		if len(r.Items) > 0 {
			done++
		}
	}
	return done
}
