package reset

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
	"nixos-go/pkg/testx/history"
	"nixos-go/pkg/testx/model"
)

// TestRandomHistories lets random things happen to a volume between boots and holds
// each reset against the model, and the two ways of planning against each other.
func TestRandomHistories(t *testing.T) {
	top := newDisk(t, 1<<30)
	for _, seed := range seeds(t, 40) {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) { randomHistory(t, top, seed) })
	}
}

// seeds are those of random histories: so many, or what the environment says.
// NIXOS_GO_SEED runs one seed, NIXOS_GO_HISTORIES more of them.
func seeds(t *testing.T, count uint64) []uint64 {
	t.Helper()
	first := uint64(1)
	if text := os.Getenv("NIXOS_GO_HISTORIES"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		count = n
	}
	if text := os.Getenv("NIXOS_GO_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, count = n, 1
	}
	list := make([]uint64, 0, count)
	for seed := first; seed < first+count; seed++ {
		list = append(list, seed)
	}
	return list
}

func randomHistory(t *testing.T, top string, seed uint64) {
	t.Helper()
	source := history.NewSource(seed)
	gen := history.New(source)
	v := PlanFileVolume{Name: "@v" + strconv.FormatUint(seed, 10), MountPoint: "/", KeepNothing: true}
	m := newMachineIn(t, top, v)
	defer m.destroy()
	log := func(ops []history.Op, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, history.Format(ops))
		}
		if testing.Verbose() {
			t.Log("\n" + history.Format(ops))
		}
	}
	live := m.path(v.Name)
	log(gen.Populate(live, 30+source.IntN(40)))
	m.takeClean()
	log(gen.Mutate(live, 10))
	newRules := func() {
		var err error
		if v.Keep, v.Exclude, err = gen.Rules(live); err != nil {
			t.Fatal(err)
		}
		m.plan.Volumes[0] = v
		m.plan.Revision++
		t.Logf("keep %q exclude %q", v.Keep, v.Exclude)
	}
	newRules()
	for boot := range 4 {
		log(gen.Mutate(live, 5+source.IntN(40)))
		if source.IntN(5) == 0 {
			newRules()
		}
		m.syncTop()
		m.comparePlans(v)
		old := m.read(v.Name)
		clean := m.read(filepath.Join(DefaultSnapshots, v.Name, NameClean))
		report := m.run(Options{})
		if diff := model.Diff(model.Expect(old, clean, v.Keep, v.Exclude), m.read(v.Name)); diff != "" {
			t.Fatalf("boot %d: state after the reset:\n%s\nkeep %q exclude %q\n%s", boot, diff, v.Keep, v.Exclude, describe(report))
		}
		if source.IntN(2) == 0 {
			m.cleanup()
			if diff := model.Diff(model.Expect(old, clean, v.Keep, v.Exclude), m.read(v.Name)); diff != "" {
				t.Fatalf("boot %d: state after the cleanup:\n%s", boot, diff)
			}
		}
		if report.Volumes[0].Outcome == OutcomeReset {
			want := model.ExpectPrevious(old, model.Rules{Keep: v.Keep, Exclude: v.Exclude})
			if diff := model.Diff(want, m.read(filepath.Join(DefaultSnapshots, v.Name, NamePrevious))); diff != "" {
				t.Fatalf("boot %d: PREVIOUS:\n%s", boot, diff)
			}
		}
	}
}

// newMachineIn is newMachine on a disk that other machines use too.
func newMachineIn(tb testing.TB, top string, v PlanFileVolume) *machine {
	tb.Helper()
	m := &machine{t: tb, top: top, plan: &PlanFile{
		Version: 1, Snapshots: DefaultSnapshots, Clean: NameClean, Mode: ModeReset, Revision: 1, Volumes: []PlanFileVolume{v},
	}}
	if !exists(m.path(DefaultSnapshots)) {
		m.create(DefaultSnapshots)
	}
	m.create(v.Name)
	if err := os.Mkdir(m.path(DefaultSnapshots, v.Name), 0o700); err != nil {
		tb.Fatal(err)
	}
	return m
}

// destroy makes room on the disk.
func (m *machine) destroy() {
	top := m.hold(m.top)
	defer top.Close()
	for _, v := range m.plan.Volumes {
		dir := m.hold(m.path(DefaultSnapshots, v.Name))
		names, err := dir.Readdirnames(-1)
		for _, name := range names {
			err = errors.Join(err, destroyTree(dir, name))
		}
		dir.Close()
		if err := errors.Join(err, destroyTree(top, v.Name)); err != nil {
			m.t.Error(err)
		}
	}
}

func (m *machine) syncTop() {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	if err := btrfs.Sync(top); err != nil {
		m.t.Fatal(err)
	}
}

// comparePlans makes the plan both ways, where CURRENT proves the short one.
func (m *machine) comparePlans(v PlanFileVolume) {
	m.t.Helper()
	rules, err := v.Rules()
	if err != nil {
		m.t.Fatal(err)
	}
	live, clean := m.hold(m.path(v.Name)), m.hold(m.path(DefaultSnapshots, v.Name, NameClean))
	defer live.Close()
	defer clean.Close()
	dir := m.hold(m.path(DefaultSnapshots, v.Name))
	defer dir.Close()
	l, err := readLineage(dir, m.info(v.Name), m.info(filepath.Join(DefaultSnapshots, v.Name, NameClean)), []RuleSet{ruleSet(rules)})
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.close()
	if l.current == nil || !l.sameState {
		return
	}
	matcher := keep.NewMatcher(rules)
	short, err := MakePlan(l.sources(live, clean), matcher)
	if err != nil {
		m.t.Fatal(err)
	}
	full, err := MakePlan(Sources{Live: live, Clean: clean}, matcher)
	if err != nil {
		m.t.Fatal(err)
	}
	if short.Way != WayChanged || full.Way != WayFull {
		m.t.Fatalf("ways are %s and %s", short.Way, full.Way)
	}
	ignore := cmp.FilterPath(func(p cmp.Path) bool {
		name := p.Last().String()
		return name == ".Way" || name == ".outside" || name == ".matcher"
	}, cmp.Ignore())
	if diff := cmp.Diff(full, short, ignore, cmp.AllowUnexported(Plan{}, Change{}, contentChange{}), cmp.Transformer("nilEmpty", func(s []string) []string {
		return append([]string{}, s...)
	})); diff != "" {
		m.t.Fatalf("the full plan (-) and the short one (+) differ:\n%s", diff)
	}
}
