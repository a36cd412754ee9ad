package reset

import (
	"maps"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRestoreModes(t *testing.T) {
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
func TestRestoreModesTheOther(t *testing.T) {
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
func TestRestoreModesNested(t *testing.T) {
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
			name: "folder above is a symlink to one elsewhere", previous: `rm -r alice; mkdir ../canary/Documents; ln -s ../canary alice`,
			today: `[ -d alice ]; mkdir -p alice/Documents`,
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
			canary := d.read("canary")
			today := d.read("@home")
			source := d.read(snapshotOf("@home", NamePrevious))
			r := d.result(d.run(Options{Mode: ModeRestorePrevious}), "@home")
			after := d.history("@home")
			if _, left := after[NameNext]; left || r.Outcome != OutcomeRestored {
				t.Fatalf("outcome %s, warnings %q, names %v", r.Outcome, r.Warnings, after)
			}
			d.same("what the restored state links to", canary, d.read("canary"))
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

// A reset was cut off after the exchange, and what booted then made something where
// a subvolume has yet to move to: both stay, or the subvolume if that is empty.
func TestMovesAfterABootInBetween(t *testing.T) {
	for _, tt := range []struct{ name, made, at string }{
		{"nothing", `true`, "v"},
		{"an empty folder", `mkdir v`, "v"},
		{"an empty subvolume", `btrfs -q subvolume create v`, "v"},
		{"a full folder", `mkdir v; echo new > v/new`, "v.from-PREVIOUS"},
		{"a file", `echo new > v; chattr +i v`, "v.from-PREVIOUS"},
		{"a symlink, and the other name is taken", `ln -s /etc v; mkdir v.from-PREVIOUS`, "v.from-PREVIOUS-2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDay(t)
			d.sh("@home", `mkdir -p alice/Documents; btrfs -q subvolume create alice/Documents/v; echo data > alice/Documents/v/data`)
			d.syncTop()
			moved := d.info("@home/alice/Documents/v").UUID
			old := d.info("@home").UUID
			d.run(Options{})
			// As it was right after the exchange: the subvolume is in the old state, which is NEXT.
			previous := snapshotOf("@home", NamePrevious)
			d.mv("@home/alice/Documents/v", previous+"/alice/Documents/v")
			d.mv(previous, snapshotOf("@home", NameNext))
			d.destroyTree(snapshotOf("@home", NamePenultimate))
			d.destroyTree(snapshotOf("@home", NameCurrent))
			d.sh("@home/alice/Documents", tt.made)
			d.syncTop()
			r := d.result(d.run(Options{}), "@home")
			if r.Outcome == OutcomeFailed || exists(d.path(snapshotOf("@home", NameNext))) {
				t.Fatalf("outcome %s, error %q, warnings %q", r.Outcome, r.Error, r.Warnings)
			}
			if got := d.info("@home/alice/Documents/" + tt.at).UUID; got != moved {
				t.Errorf("%s is not the subvolume that had to move (%q)", tt.at, r.Warnings)
			}
			if tt.at != "v" && (!exists(d.path("@home/alice/Documents/v")) || !warns(r, "something new stands")) {
				t.Errorf("what was new is gone, or nobody says so: %q", r.Warnings)
			}
			found := false
			for _, name := range []string{NamePrevious, NamePenultimate} {
				found = found || exists(d.path(snapshotOf("@home", name))) && d.info(snapshotOf("@home", name)).UUID == old
			}
			if !found {
				t.Error("the old state is in no history")
			}
			d.sh("@home", `chattr -R -f -i . || true`)
		})
	}
}
