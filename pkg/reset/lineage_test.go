package reset

import (
	"fmt"
	"testing"

	"nixos-go/pkg/testx/model"
)

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
