package reset

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx/model"
)

// A day is one boot of a box, of which @home alone is looked at.
type day struct{ *box }

// newDay is a box before its first boot, with a CLEAN.
func newDay(tb testing.TB) *day {
	tb.Helper()
	b := bareBox(tb)
	b.sh("@root", `mkdir -p etc/ssh; echo host > etc/hostname`)
	b.sh("@home", `mkdir -p alice/Pictures; echo rc > alice/.bashrc; chown -R 1000:1000 alice`)
	b.takeClean()
	return &day{b}
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

var documents = model.Rules{Keep: []string{"/*/Documents"}}

// Where nothing was written, nothing moves, however often it boots.
func TestNothingChanged(t *testing.T) {
	for _, mode := range []Mode{ModeReset, ModeSnapshotOnly, ModeRestorePrevious, ModeRestorePenultimate} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBox(t)
			d := &day{b}
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
