package reset

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx/model"
)

// An attacker owns what is in @home, or an administrator has made a mess of it.
// Whatever is there, the reset gives what the model says, changes nothing else on
// the disk or outside of it, and comes to an end.

// hostile is a box with a folder outside of the disk, for links to lead to.
type hostile struct {
	*box

	outside string
}

func newHostile(tb testing.TB) *hostile {
	tb.Helper()
	h := &hostile{bareBox(tb), tb.TempDir()}
	h.spec("@home").Keep = []string{"/*/Documents", "/*/a/b/c/kept"}
	h.spec("@home").Exclude = []string{"/*/Documents/tmp", "/*/Documents/x/y/tmp"}
	h.shIn(h.outside, `mkdir -p Documents/tmp a/b/c/kept sub; echo canary > file; echo canary > Documents/tmp/file; echo > a/b/c/kept/file; mkfifo fifo; ln file link`)
	h.sh("canary", `mkdir -p Documents/tmp a/b/c/kept; echo canary > Documents/tmp/file; echo > a/b/c/kept/file; ln file hard`)
	h.sh("@root", `mkdir -p etc/ssh; echo host > etc/hostname`)
	h.sh("@home", `mkdir -p alice/.config bob/a; echo rc > alice/.bashrc; echo conf > alice/.config/conf; chown -R 1000:1000 alice bob`)
	return h
}

func (m *machine) shIn(dir, script string) {
	m.t.Helper()
	command(m.t, "bash", "-euc", "cd \"$0\"; "+script, dir)
}

// listOutside tells all that the folder outside of the disk holds, with the times of
// the last change, whatever it was.
func (h *hostile) listOutside() string {
	h.t.Helper()
	return command(h.t, "bash", "-euc",
		`cd "$0"; find . -printf '%p %y %m %U %G %n %T@ %C@ %l\n' | sort; find . -type f -exec sha256sum {} + | sort`, h.outside)
}

// rest is all of the disk but for the volumes and their snapshots, and the names of
// all that stands in its top level.
func (h *hostile) rest() model.Tree {
	h.t.Helper()
	entries, err := os.ReadDir(h.top)
	must(h.t, err)
	all := model.Tree{}
	for _, e := range entries {
		all[e.Name()] = model.Entry{}
		if e.Name() == "@other" || e.Name() == "canary" {
			for path, entry := range h.read(e.Name()) {
				all[filepath.Join(e.Name(), path)] = entry
			}
		}
	}
	return all
}

// boot resets and cleans up, and holds all that is there against what has to be. With
// full, CURRENT proves nothing.
func (h *hostile) boot(what string, way Way) {
	h.t.Helper()
	what = fmt.Sprintf("%s, %s", what, way)
	if way == WayFull && exists(h.path(snapshotOf("@home", NameCurrent))) {
		h.destroyTree(snapshotOf("@home", NameCurrent))
	}
	outside := h.listOutside()
	rest := h.rest()
	v := h.spec("@home")
	want := h.expect("@home")
	wantPrevious := model.ExpectPrevious(h.read("@home"), model.Rules{Keep: v.Keep, Exclude: v.Exclude})
	report := h.run(Options{})
	result := h.result(report, "@home")
	if result.Outcome == OutcomeReset && result.Way != way {
		h.t.Errorf("%s: way = %s", what, result.Way)
	}
	h.same(what, want, h.read("@home"))
	if result.Outcome == OutcomeReset {
		h.same(what+", PREVIOUS", wantPrevious, h.read(snapshotOf("@home", NamePrevious)))
	}
	if result.Outcome == OutcomeReset {
		h.wantOwn(what)
	}
	h.cleanup()
	h.same(what+", after the cleanup", want, h.read("@home"))
	if exists(h.path("@home", TrashName)) {
		h.t.Errorf("%s: the cleanup leaves the trash", what)
	}
	h.same(what+", the rest of the disk", rest, h.rest())
	if now := h.listOutside(); now != outside {
		h.t.Fatalf("%s: something changed outside of the disk:\n%s\nit was:\n%s", what, now, outside)
	}
}

// wantOwn checks what the reset leaves under the toolkit's own names.
func (h *hostile) wantOwn(what string) {
	h.t.Helper()
	for name, mode := range map[string]uint32{ReadyName: unix.S_IFREG | 0o600, TrashName: unix.S_IFDIR | 0o700} {
		var st unix.Stat_t
		err := unix.Lstat(h.path("@home", name), &st)
		if name == TrashName && err == unix.ENOENT {
			continue // nothing was in the way
		}
		if err != nil || st.Mode != mode || st.Uid != 0 || st.Gid != 0 || name == ReadyName && st.Nlink != 1 {
			h.t.Errorf("%s: %s is %#o of %d:%d, %v, want %#o of root", what, name, st.Mode, st.Uid, st.Gid, err, mode)
		}
	}
}

// bothWays lets a script loose in @home and resets, first with the lineage known and
// then, with the same script again, without.
func (h *hostile) bothWays(what, script string) {
	h.t.Helper()
	for _, way := range []Way{WayChanged, WayFull} {
		h.sh("@home", strings.NewReplacer("OUTSIDE", h.outside, "TOP", h.top).Replace(script))
		h.syncTop()
		h.boot(what, way)
	}
}

func (h *hostile) shortWay(what, script string) {
	h.t.Helper()
	h.sh("@home", strings.NewReplacer("OUTSIDE", h.outside, "TOP", h.top).Replace(script))
	h.syncTop()
	h.boot(what, WayChanged)
}

func TestHostileAncestors(t *testing.T) {
	h := newHostile(t)
	h.takeClean()
	h.run(Options{})
	for _, name := range []string{"alice", "alice/Documents", "alice/Documents/x", "alice/a", "alice/a/b", "alice/a/b/c", "alice/a/b/c/kept", "new"} {
		for _, thing := range []string{
			"ln -s OUTSIDE THERE", "ln -s TOP/canary THERE", "ln -s TOP/@root/etc THERE", "ln -s / THERE", "ln -s THERE THERE",
			"ln -s /proc/self/root/OUTSIDE THERE", "ln -s .. THERE", "mkfifo THERE", "echo > THERE", "mknod THERE b 7 0",
		} {
			script := `rm -rf alice/Documents alice/a ` + name + `; mkdir -p $(dirname ` + name + `); ` + strings.ReplaceAll(thing, "THERE", name)
			h.sh("@home", strings.NewReplacer("OUTSIDE", h.outside, "TOP", h.top).Replace(script))
			h.syncTop()
			way := WayChanged
			if strings.HasPrefix(thing, "ln -s OUTSIDE") || strings.HasPrefix(thing, "mkfifo") {
				way = WayFull
			}
			h.boot(name+": "+thing, way)
		}
	}
}

func TestHostileThings(t *testing.T) {
	h := newHostile(t)
	// In CLEAN: one of everything to be brought back.
	h.sh("@home", `cd alice; mkdir things; cd things; echo file > file; ln -s nowhere link; mkfifo -m 640 fifo; mknod -m 600 null c 1 3; mknod -m 660 disk b 7 200
		python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'; mkdir -m 1777 dir; echo in > dir/in; chown -h 7:8 *
		setfattr -h -n trusted.x -v 1 link; setfattr -h -n trusted.x -v 1 fifo; setfacl -m u:5:rw file; setfacl -d -m u:6:rx dir`)
	h.takeClean()
	h.run(Options{})
	h.bothWays("all gone", `rm -rf alice/things`)
	h.bothWays("each gone", `rm -rf alice/things/*`)
	h.bothWays("all metadata changed", `cd alice/things; chown -h 1:2 *; touch -h *; chmod 0 fifo null disk socket dir; setfattr -h -x trusted.x link; setfattr -h -n trusted.y -v 2 fifo; setfacl -b -k file dir`)
	h.bothWays("links at all names", `cd alice/things; for f in *; do rm -rf $f; ln -s OUTSIDE/file $f; done`)
	h.bothWays("links to directories at all names", `cd alice/things; for f in *; do rm -rf $f; ln -s OUTSIDE $f; done`)
	h.bothWays("pipes at all names", `cd alice/things; for f in *; do rm -rf $f; mkfifo $f; done`)
	h.bothWays("sockets at all names", `cd alice/things; for f in *; do rm -rf $f; python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' $f; done`)
	h.bothWays("other devices at all names", `cd alice/things; for f in *; do rm -rf $f; mknod $f c 10 130; done`)
	h.bothWays("directories at all names", `cd alice/things; for f in *; do rm -rf $f; mkdir -p $f/Documents; ln -s OUTSIDE $f/Documents/tmp; done`)
	h.bothWays("subvolumes at all names", `cd alice/things; for f in *; do rm -rf $f; btrfs -q subvolume create $f; echo > $f/file; done`)
	h.bothWays("names of one file", `cd alice/things; echo one > ../Documents-file; for f in *; do rm -rf $f; ln ../Documents-file $f; done`)
	h.bothWays("names of a kept file", `mkdir -p alice/Documents; cd alice/things; echo one > ../Documents/file; for f in *; do rm -rf $f; ln ../Documents/file $f; done`)
	h.bothWays("wiped things", `cd alice; mkfifo fifo; mknod null c 1 3; mknod disk b 7 0; ln -s OUTSIDE link; mkdir -p dir/sub; ln -s OUTSIDE dir/sub/link; mkfifo dir/fifo; btrfs -q subvolume create dir/nested; ln -s OUTSIDE dir/nested/link`)
	h.bothWays("kept things", `mkdir -p alice/Documents; cd alice/Documents; rm -rf fifo null disk link dir; mkfifo fifo; mknod null c 1 3; mknod disk b 7 0; ln -s OUTSIDE link; mkdir dir; ln -s OUTSIDE dir/tmp; mkdir -p x; rm -rf x/y; ln -s OUTSIDE x/y; ln -s OUTSIDE tmp`)
}

func TestHostileNames(t *testing.T) {
	h := newHostile(t)
	long := strings.Repeat("n", 255)
	odd := []string{long, strings.Repeat("\xff", 255), "new\nline", "\xfe\xff", "-rf", "*", "a b", "\x1b[2J", "'", "\"", "\\", ".. ", "...", "🗑"}
	clean := func(dir string) {
		for _, name := range odd {
			must(t, os.MkdirAll(h.path("@home", dir, name), 0o700))
			must(t, os.WriteFile(h.path("@home", dir, name, name), []byte(name), 0o600))
			must(t, os.Symlink(name, h.path("@home", dir, "l"+name[:min(len(name), 200)])))
		}
	}
	clean("alice/odd")
	h.takeClean()
	h.run(Options{})
	for _, way := range []Way{WayChanged, WayFull} {
		must(t, os.RemoveAll(h.path("@home/alice/Documents")))
		clean("alice/Documents")        // kept
		clean("alice/.config/new")      // wiped
		clean("alice/Documents/tmp/in") // wiped, below a kept path
		h.boot("made", way)
		for _, name := range odd { // changed back
			must(t, os.WriteFile(h.path("@home/alice/odd", name, name), []byte("changed"), 0o600))
		}
		h.boot("changed", way)
		for _, name := range odd { // brought back
			must(t, os.RemoveAll(h.path("@home/alice/odd", name)))
		}
		h.boot("deleted", way)
		must(t, os.RemoveAll(h.path("@home/alice/odd")))
		h.boot("all deleted", way)
		for _, name := range odd { // subvolumes that move, and that do not
			h.create("@home/alice/Documents/s" + name[:min(len(name), 254)])
			h.create("@home/alice/.config/" + name)
		}
		h.boot("subvolumes", way)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
