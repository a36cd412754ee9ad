package reset

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx/model"
)

// A day is one boot of a box, of which @home alone is looked at.
type day struct {
	*box

	rules []model.Rules
}

// newDay is a box before its first boot, with a CLEAN.
func newDay(t testing.TB) *day {
	t.Helper()
	b := bareBox(t)
	b.sh("@root", `mkdir -p etc/ssh; echo host > etc/hostname`)
	b.sh("@home", `mkdir -p alice/Pictures; echo rc > alice/.bashrc; chown -R 1000:1000 alice`)
	b.takeClean()
	return &day{box: b}
}

// history tells which subvolume stands under which name of section 3.
func (m *machine) history(volume string) map[string]btrfs.UUID {
	m.t.Helper()
	out := map[string]btrfs.UUID{"live": m.info(volume).UUID}
	entries, err := os.ReadDir(m.path(DefaultSnapshots, volume))
	must(m.t, err)
	for _, e := range entries {
		if !IsAged(e.Name()) {
			out[e.Name()] = m.info(snapshotOf(volume, e.Name())).UUID
		}
	}
	return out
}

// sameHistory fails the test if any of the names means another subvolume now.
func (d *day) sameHistory(what string, want map[string]btrfs.UUID) {
	d.t.Helper()
	if got := d.history("@home"); !maps.Equal(want, got) {
		d.t.Fatalf("%s: names and subvolumes are %v, want %v", what, got, want)
	}
}

// reset resets by rules of a revision, and holds the result against the model. The
// rules are those in force: the plan's, and for an older generation a newer one's.
func (d *day) reset(what string, revision int64, plan model.Rules, newer ...model.Rules) *Result {
	d.t.Helper()
	d.syncTop()
	sets := append([]model.Rules{plan}, newer...)
	v := d.spec("@home")
	v.Keep, v.Exclude, d.plan.Revision = plan.Keep, plan.Exclude, revision
	before := d.history("@home")
	old, clean := d.read("@home"), d.read(snapshotOf("@home", NameClean))
	r := d.result(d.run(Options{}), "@home")
	d.same(what, model.ExpectUnion(old, clean, sets...), d.read("@home"))
	if r.Outcome != OutcomeReset {
		return r
	}
	d.same(what+", PREVIOUS", model.ExpectPrevious(old, sets...), d.read(snapshotOf("@home", NamePrevious)))
	after := d.history("@home")
	if after[NamePrevious] != before["live"] || before[NamePrevious] != (btrfs.UUID{}) && after[NamePenultimate] != before[NamePrevious] {
		d.t.Errorf("%s: history moved from %v to %v", what, before, after)
	}
	if _, left := after[NameNext]; left || after[NameClean] != before[NameClean] {
		d.t.Errorf("%s: NEXT is left, or CLEAN is another: %v", what, after)
	}
	return r
}

func warns(r *Result, word string) bool {
	return slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, word) })
}

func TestOlderGeneration(t *testing.T) {
	first := model.Rules{Keep: []string{"/alice/Documents", "/alice/Old"}}
	middle := model.Rules{Keep: []string{"/alice/Documents", "/alice/Middle"}}
	newest := model.Rules{Keep: []string{"/alice/Documents", "/alice/New"}, Exclude: []string{"/alice/Documents/tmp"}}
	d := newDay(t)
	write := func() {
		d.sh("@home", `cd alice; mkdir -p Documents/tmp Old Middle New; for x in Documents Documents/tmp Old Middle New; do date +%N > $x/f; done; date +%N >> .bashrc`)
	}
	step := func(what string, revision int64, way Way, older bool, plan model.Rules, newer ...model.Rules) {
		t.Helper()
		write()
		r := d.reset(what, revision, plan, newer...)
		if r.Way != way {
			t.Errorf("%s: way = %s, want %s", what, r.Way, way)
		}
		if warns(r, "older") != older {
			t.Errorf("%s: warnings %q, want one about an older generation: %v", what, r.Warnings, older)
		}
	}
	step("first", 100, WayFull, false, first)
	step("newest", 300, WayFull, false, newest)
	step("newest again", 300, WayChanged, false, newest)
	step("first, after newest", 100, WayFull, true, first, newest)
	step("first again", 100, WayChanged, true, first, newest)
	step("middle, after newest", 200, WayFull, true, middle, newest)
	step("newest, after all", 300, WayFull, false, newest)
	step("newest again", 300, WayChanged, false, newest)
	step("newer still, with rules of the first", 400, WayFull, false, first)
	step("of the same age, with other rules", 400, WayFull, false, middle)
	step("older, with the same rules", 100, WayChanged, false, middle)
	if record := d.recordOf(snapshotOf("@home", NameCurrent)); record == nil || record.Revision != 400 {
		t.Errorf("record = %+v, want the newest revision in it", record)
	}
	// The union does not depend on CURRENT being there.
	d.destroyTree(snapshotOf("@home", NameCurrent))
	step("older, without CURRENT", 100, WayFull, true, first, middle)
}

func TestRulesChange(t *testing.T) {
	d := newDay(t)
	d.sh("@home", `mkdir -p alice/Documents/a alice/Music; echo d > alice/Documents/a/d; echo m > alice/Music/m`)
	d.reset("first", 1, model.Rules{Keep: []string{"/alice/Documents", "/alice/Music"}})
	for i, rules := range []model.Rules{
		{Keep: []string{"/alice/Documents", "/alice/Music", "/alice/Pictures"}},
		{Keep: []string{"/alice/Documents"}},
		{Keep: []string{"/alice/Documents"}, Exclude: []string{"/alice/Documents/a"}},
		{Keep: []string{"/bob"}},
	} {
		what := fmt.Sprintf("%q %q", rules.Keep, rules.Exclude)
		if r := d.reset(what, int64(2+i), rules); r.Outcome != OutcomeReset || r.Way != WayFull {
			t.Errorf("%s: %s by way %s, want a reset by way %s", what, r.Outcome, r.Way, WayFull)
		}
		history := d.history("@home")
		if r := d.reset(what+" again", int64(2+i), rules); r.Outcome != OutcomeUnchanged {
			t.Errorf("%s, again: %s", what, r.Outcome)
		}
		d.sameHistory(what, history)
	}
}

var documents = model.Rules{Keep: []string{"/*/Documents"}}

// What CURRENT or CLEAN prove no more is compared in full, with the right result.
func TestLineageBroken(t *testing.T) {
	current, clean := snapshotOf("@home", NameCurrent), snapshotOf("@home", NameClean)
	for _, tt := range []struct {
		name  string
		spoil func(d *day)
	}{
		{"CURRENT deleted", func(d *day) { d.destroyTree(current) }},
		{"CURRENT made writable", func(d *day) { d.setReadOnly(current, false) }},
		{"CURRENT edited", func(d *day) {
			d.setReadOnly(current, false)
			d.sh(current, "rm -rf alice/.bashrc; echo > alice/new")
			d.setReadOnly(current, true)
		}},
		{"CURRENT taken again, later", func(d *day) {
			d.destroyTree(current)
			d.snapshot("@home", current, true)
		}},
		{"CURRENT of another volume", func(d *day) {
			d.destroyTree(current)
			d.snapshot(snapshotOf("@root", NameCurrent), current, true)
		}},
		{"CURRENT taken of PREVIOUS", func(d *day) {
			d.destroyTree(current)
			d.snapshot(snapshotOf("@home", NamePrevious), current, true)
		}},
		{"CURRENT without a record", func(d *day) {
			d.destroyTree(current)
			d.sh("@home", "rm .boot-ready")
			d.snapshot("@home", current, true)
		}},
		{"live replaced by its own snapshot", func(d *day) {
			d.snapshot("@home", "@copy", false)
			d.mv("@home", "@original")
			d.mv("@copy", "@home")
		}},
		{"CLEAN taken again", func(d *day) {
			d.setReadOnly(clean, false)
			d.mv(clean, "@clean")
			d.sh("@clean", "echo other > alice/.bashrc; echo new > alice/installed")
			d.snapshot("@clean", clean, true)
		}},
		{"CLEAN edited in place", func(d *day) {
			d.setReadOnly(clean, false)
			d.sh(clean, "echo other > alice/.bashrc; rmdir alice/Pictures; echo new > alice/installed")
			d.setReadOnly(clean, true)
		}},
		{"CLEAN copied", func(d *day) {
			d.setReadOnly(clean, false)
			d.mv(clean, "@clean")
			d.snapshot("@clean", clean, true)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDay(t)
			for i := range 3 {
				d.sh("@home", fmt.Sprintf(`mkdir -p alice/Documents; echo %d > alice/Documents/f; echo %d > alice/wiped`, i, i))
				d.reset("before", 1, documents)
			}
			d.sh("@home", `echo work > alice/work; echo changed > alice/.bashrc; rmdir alice/Pictures; echo new > alice/Documents/new`)
			d.syncTop()
			tt.spoil(d)
			d.syncTop()
			if r := d.reset("spoiled", 1, documents); r.Way != WayFull {
				t.Errorf("way = %s, want %s", r.Way, WayFull)
			}
			d.sh("@home", `echo more > alice/work; rmdir alice/Pictures 2>/dev/null || mkdir alice/Pictures`)
			if r := d.reset("afterwards", 1, documents); r.Way != WayChanged {
				t.Errorf("afterwards: way = %s, want %s", r.Way, WayChanged)
			}
		})
	}
}

// Where nothing was written, nothing moves, however often it boots.
func TestNothingChanged(t *testing.T) {
	for _, mode := range []Mode{ModeReset, ModeSnapshotOnly, ModeRestorePrevious, ModeRestorePenultimate} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBox(t)
			d := &day{box: b}
			for _, word := range []string{"wednesday", "thursday", "friday"} {
				d.cleanup()
				d.run(Options{})
				d.cleanup()
				d.work(word)
			}
			d.run(Options{Mode: mode})
			tree, history := d.read("@home"), d.history("@home")
			again := []struct {
				name string
				do   func()
			}{
				{"at once", func() {}},
				{"after the cleanup", d.cleanup},
				{"after a mount", func() { b.fs.Remount("noatime") }},
				{"after a dry run", func() { d.run(Options{Mode: mode, DryRun: true}) }},
				{"after a look at everything", func() { d.everything() }},
			}
			for _, a := range again {
				a.do()
				if a.name == "after the cleanup" && !mode.restores() {
					// It deletes the trash from live: a change, once.
					d.run(Options{Mode: mode})
					history = d.history("@home")
				}
				if r := d.result(d.run(Options{Mode: mode}), "@home"); r.Outcome != OutcomeUnchanged {
					t.Errorf("%s: outcome = %s, want %s", a.name, r.Outcome, OutcomeUnchanged)
				}
				d.sameHistory(a.name, history)
				d.same(a.name, tree, d.read("@home"))
			}
		})
	}
}

func TestSnapshotOnly(t *testing.T) {
	d := newDay(t)
	d.sh("@home", `echo one > alice/one`)
	d.syncTop()
	before := d.history("@home")
	tree := d.read("@home")
	d.run(Options{Mode: ModeSnapshotOnly})
	after := d.history("@home")
	if after["live"] != before["live"] || len(after) != 4 {
		t.Errorf("names and subvolumes are %v, want live as it was, PREVIOUS and PENULTIMATE", after)
	}
	d.same("live", tree, d.read("@home"))
	d.same("PREVIOUS", tree, d.read(snapshotOf("@home", NamePrevious)))
	d.same("PENULTIMATE", d.read(snapshotOf("@home", NameClean)), d.read(snapshotOf("@home", NamePenultimate)))

	d.run(Options{Mode: ModeSnapshotOnly})
	d.sameHistory("nothing new", after)
	d.sh("@home", `echo two > alice/two`)
	d.run(Options{Mode: ModeSnapshotOnly})
	third := d.history("@home")
	if third[NamePenultimate] != after[NamePrevious] || third[NamePrevious] == after[NamePrevious] || third["live"] != before["live"] {
		t.Errorf("names and subvolumes are %v, want PREVIOUS moved on from %v", third, after)
	}
	d.reset("reset after it", 1, documents)
	d.sh("@home", `mkdir -p alice/Documents; echo kept > alice/Documents/f`)
	d.reset("kept alone", 1, documents)
	fourth := d.history("@home")
	d.run(Options{Mode: ModeSnapshotOnly})
	d.sameHistory("nothing new since the reset", fourth)
}

func TestRestore(t *testing.T) {
	d := newDay(t)
	write := func(word string) {
		d.sh("@home", `mkdir -p alice/Documents; for f in alice/Documents/f alice/work alice/.bashrc; do echo `+word+` > $f; done`)
		d.syncTop()
	}
	write("monday")
	d.reset("monday", 1, documents)
	first := d.history("@home")
	penultimate := d.read(snapshotOf("@home", NamePenultimate))
	d.same("PENULTIMATE of a first boot", d.read(snapshotOf("@home", NameClean)), penultimate)

	restore := func(what string, mode Mode) *Result {
		t.Helper()
		before := d.history("@home")
		live, source := d.read("@home"), d.read(snapshotOf("@home", mode.restoreSource()))
		r := d.result(d.run(Options{Mode: mode}), "@home")
		after := d.history("@home")
		if r.Outcome != OutcomeRestored || !warns(r, "restores at every boot") || !warns(r, "set the mode back") {
			t.Fatalf("%s: outcome %s, warnings %q, want a restore and a warning", what, r.Outcome, r.Warnings)
		}
		d.same(what, source, d.read("@home"))
		d.same(what+", REPLACED", live, d.read(snapshotOf("@home", NameReplaced)))
		want := maps.Clone(before)
		want["live"], want[NameReplaced] = after["live"], before["live"]
		d.sameHistory(what, want)
		if after["live"] == before["live"] {
			t.Errorf("%s: live is what it was", what)
		}
		return r
	}
	write("tuesday")
	restore("restore", ModeRestorePrevious)
	write("wednesday")
	restore("restore again", ModeRestorePrevious)
	replaced := d.history("@home")
	for range 3 { // a boot loop
		if r := d.result(d.run(Options{Mode: ModeRestorePrevious}), "@home"); r.Outcome != OutcomeUnchanged || !warns(r, "restores at every boot") {
			t.Errorf("with nothing new: %s, %q", r.Outcome, r.Warnings)
		}
		d.sameHistory("with nothing new", replaced)
	}
	d.cleanup()
	write("thursday")
	restore("after the cleanup", ModeRestorePenultimate)
	write("friday")
	// CURRENT proves nothing of a restored volume.
	if r := d.reset("reset after the restores", 1, documents); r.Way != WayFull {
		t.Errorf("way = %s, want %s", r.Way, WayFull)
	}
	if got := d.history("@home"); got[NamePenultimate] != first[NamePrevious] {
		t.Errorf("PENULTIMATE is not the PREVIOUS from before the restores")
	}
	write("saturday")
	if r := d.reset("and again", 1, documents); r.Way != WayChanged {
		t.Errorf("way = %s, want %s", r.Way, WayChanged)
	}
	restore("right after a reset", ModeRestorePrevious)
	d.reset("reset right after a restore", 1, documents)
}

// The other snapshot than the one restored last is another restore, also when nothing
// was written.
func TestRestoreTheOther(t *testing.T) {
	d := newDay(t)
	for _, word := range []string{"one", "two"} {
		d.sh("@home", `echo `+word+` > alice/`+word)
		d.reset(word, 1, documents)
	}
	for _, mode := range []Mode{ModeRestorePrevious, ModeRestorePenultimate, ModeRestorePrevious} {
		d.run(Options{Mode: mode})
		d.same(string(mode), d.read(snapshotOf("@home", mode.restoreSource())), d.read("@home"))
	}
}

// Nested subvolumes move along with a restore: to where the restored state has their
// folder, or something else, or nothing.
func TestRestoreNested(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, tt := range []struct {
		name            string
		previous, today string
		then            string            // after the restore
		aside           map[string]string // in the restored state: a path, and its content
	}{
		{name: "folder is there", previous: `mkdir -p alice/Documents`, today: ``},
		{name: "folder is missing", previous: `true`, today: `mkdir -p alice/Documents/a/b; chmod 2750 alice/Documents; chown 5:6 alice/Documents; setfattr -n user.x -v 1 alice/Documents`},
		{
			name: "folder is a symlink", previous: `ln -s /etc alice/Documents`, today: `rm alice/Documents; mkdir alice/Documents`,
		},
		{
			name: "folder is a file", previous: `echo file > alice/Documents; chattr +i alice/Documents`,
			today: `chattr -i alice/Documents; rm alice/Documents; mkdir alice/Documents`,
			aside: map[string]string{"alice/Documents.restored": "file\n"},
		},
		{
			name: "folder above is a fifo", previous: `rm -r alice; mkfifo alice`, today: `[ -d alice ]; mkdir -p alice/Documents`,
		},
		{
			name: "an empty folder in its place", previous: `mkdir -p alice/Documents/v`, today: `rmdir alice/Documents/v`,
		},
		{
			name: "an empty and immutable folder in its place", previous: `mkdir -p alice/Documents/v; chattr +i alice/Documents/v`,
			today: `chattr -i alice/Documents/v; rmdir alice/Documents/v`,
		},
		{
			name: "a full folder in its place", previous: `mkdir -p alice/Documents/v; echo old > alice/Documents/v/old`,
			today: `rm -r alice/Documents/v`, aside: map[string]string{"alice/Documents/v.restored/old": "old\n"},
		},
		{
			name:     "a symlink in its place, and its other name is taken",
			previous: `mkdir -p alice/Documents/v.restored; ln -s /etc alice/Documents/v`, today: `rm alice/Documents/v`,
		},
		{
			name: "a name without room for another", previous: `mkdir -p alice/Documents/` + long + `; echo old > alice/Documents/` + long + `/old`,
			today: `rm -r alice/Documents/` + long + `; btrfs -q subvolume create alice/Documents/` + long,
			aside: map[string]string{"alice/Documents/" + long[:246] + ".restored/old": "old\n"},
		},
		{
			name: "the same subvolume", previous: `mkdir -p alice/Documents; btrfs -q subvolume create alice/Documents/v`, today: ``,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDay(t)
			d.sh("@home", tt.previous)
			d.run(Options{}) // what the day before left is PREVIOUS now
			d.sh("@home", tt.today)
			d.sh("@home", `mkdir -p alice/Documents; [ -e alice/Documents/v ] || btrfs -q subvolume create alice/Documents/v; echo data > alice/Documents/v/data
				mkdir -p alice/other; btrfs -q subvolume create alice/other/w; echo more > alice/other/w/more`)
			d.syncTop()
			today := d.read("@home")
			source := d.read(snapshotOf("@home", NamePrevious))
			r := d.result(d.run(Options{Mode: ModeRestorePrevious}), "@home")
			after := d.history("@home")
			if _, left := after[NameNext]; left || r.Outcome != OutcomeRestored {
				t.Fatalf("outcome %s, warnings %q, names %v", r.Outcome, r.Warnings, after)
			}
			live := d.read("@home")
			for path, e := range today {
				if e.Subvolume && strings.HasPrefix(path, "alice/Documents/") && live[path].UUID != e.UUID {
					t.Errorf("%q did not move along: %+v", path, live[path])
				}
			}
			if _, moved := live["alice/other/w"]; moved {
				t.Error("a subvolume that is not kept moved along")
			}
			for path, want := range tt.aside {
				if got, err := os.ReadFile(d.path("@home", path)); err != nil || string(got) != want {
					t.Errorf("%s = %q, %v, want %q", path, got, err, want)
				}
			}
			if e, found := live["alice/Documents"]; found && source["alice/Documents"].Type != unix.S_IFDIR {
				want := today["alice/Documents"]
				if e.Mode != want.Mode || e.UID != want.UID || e.GID != want.GID || e.Xattrs["user.x"] != want.Xattrs["user.x"] {
					t.Errorf("the folder that was made is %+v, want it as it was, %+v", e, want)
				}
			}
			d.same("the source", source, d.read(snapshotOf("@home", NamePrevious)))
			d.cleanup()
			d.reset("reset after it", 1, documents)
			for path, e := range today {
				if got := d.read("@home")[path]; e.Subvolume && strings.HasPrefix(path, "alice/Documents/") && got.UUID != e.UUID {
					t.Errorf("%q is lost in the reset after it", path)
				}
			}
			d.sh("@home", `chattr -R -i . 2>/dev/null || true`)
		})
	}
}

func TestDisabledTouchesNothing(t *testing.T) {
	b := newBox(t)
	b.sh("@snapshots/@home", "mkdir NEXT")
	for _, options := range []Options{{Mode: ModeDisabled, ModeFrom: "--mode"}, {}} {
		if options.Mode == "" {
			b.plan.Mode = ModeDisabled
		}
		before, generations := b.everything(), b.generations()
		report := b.run(options)
		if report.Mode != ModeDisabled || len(report.Volumes) != 2 {
			t.Errorf("report = %+v, want mode %s and both volumes", report, ModeDisabled)
		}
		for _, v := range report.Volumes {
			if v.Outcome != OutcomeDisabled || v.Name == "" || v.MountPoint == "" {
				t.Errorf("result = %+v, want %s", v, OutcomeDisabled)
			}
		}
		b.same("the disk", before, b.everything())
		if got := b.generations(); !maps.Equal(generations, got) {
			t.Errorf("generations are %v, want %v", got, generations)
		}
	}
	// Not even where nothing is as it should be.
	if report, err := Run(b.hold(t.TempDir()), b.plan, Options{}); err != nil || report.Failed() {
		t.Errorf("Run() elsewhere = %v, %+v", err, report)
	}
}

func TestModeBeatsThePlan(t *testing.T) {
	for _, tt := range []struct {
		plan, option, want Mode
		from, wantFrom     string
		outcome            Outcome
	}{
		{"", "", ModeReset, "", "the default", OutcomeReset},
		{ModeSnapshotOnly, "", ModeSnapshotOnly, "", "the plan", OutcomeSnapshot},
		{ModeDisabled, ModeReset, ModeReset, "--mode", "--mode", OutcomeReset},
		{ModeReset, ModeDisabled, ModeDisabled, "the kernel command line", "the kernel command line", OutcomeDisabled},
		{ModeReset, ModeRestorePrevious, ModeRestorePrevious, "the name", "the name", OutcomeRestored},
	} {
		b := newBox(t)
		b.plan.Mode = tt.plan
		report := b.run(Options{Mode: tt.option, ModeFrom: tt.from})
		if report.Mode != tt.want || report.ModeFrom != tt.wantFrom || b.result(report, "@home").Outcome != tt.outcome {
			t.Errorf("plan %q, option %q: mode %s from %s, %+v, want %s from %s, %s",
				tt.plan, tt.option, report.Mode, report.ModeFrom, report.Volumes, tt.want, tt.wantFrom, tt.outcome)
		}
	}
}

// A dry run tells what the next run does, and does nothing.
func TestDryRun(t *testing.T) {
	b := newBox(t)
	before, generations := b.everything(), b.generations()
	plan := b.run(Options{DryRun: true})
	b.same("the disk", before, b.everything())
	if got := b.generations(); !maps.Equal(generations, got) {
		t.Errorf("generations are %v, want %v", got, generations)
	}
	done := b.run(Options{})
	for i, v := range plan.Volumes {
		d := done.Volumes[i]
		if v.Outcome != OutcomePlanned || v.Wiped != d.Wiped || v.ChangedBack != d.ChangedBack || v.BroughtBack != d.BroughtBack ||
			v.Moved != d.Moved || len(v.Changes) != len(d.Changes) || len(v.Changes) == 0 {
			t.Errorf("planned %+v, done %+v", v, d)
		}
	}
}
