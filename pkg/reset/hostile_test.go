package reset

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
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
		if err != nil || st.Mode != mode || st.Uid != 0 || st.Gid != 0 || mode == unix.S_IFREG && st.Nlink != 1 {
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

// deep makes directories in one another, more than a path can name, and a file in
// the last, which it gives.
func deep(tb testing.TB, root, name string, depth int) *os.File {
	tb.Helper()
	at, err := unix.Open(root, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(tb, err)
	for range depth {
		must(tb, unix.Mkdirat(at, name, 0o700))
		next, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		must(tb, err)
		must(tb, unix.Close(at))
		at = next
	}
	file, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	must(tb, err)
	must(tb, unix.Close(file))
	return os.NewFile(uintptr(at), "deep")
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// sameDepth compares two chains of directories, of which each level has to be as the
// other, and gives the inode of the file in the last.
func sameDepth(tb testing.TB, want, got, name string, depth int) uint64 {
	tb.Helper()
	var at [2]int
	var st [2]unix.Stat_t
	for i, root := range []string{want, got} {
		var err error
		at[i], err = unix.Open(root, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(tb, err)
	}
	for level := range depth + 1 {
		next := name
		if level == depth {
			next = "file"
		}
		for i := range at {
			fd, err := unix.Openat(at[i], next, unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				tb.Fatalf("level %d of %s: %v", level, []string{want, got}[i], err)
			}
			must(tb, unix.Fstat(fd, &st[i]))
			must(tb, unix.Close(at[i]))
			at[i] = fd
		}
		a, b := st[0], st[1]
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim || a.Size != b.Size {
			tb.Fatalf("level %d of %s: %+v, want %+v", level, got, b, a)
		}
	}
	must(tb, unix.Close(at[0]))
	must(tb, unix.Close(at[1]))
	return st[1].Ino
}

// Deeper than a path can name: kept, wiped, wiped below a kept path, brought back.
func TestHostileDepth(t *testing.T) {
	const depth = 2000
	h := newHostile(t)
	must(t, deep(t, h.path("@home/alice"), "clean", depth).Close())
	h.sh("@home", `cd alice; for i in 1 2 3 4 5 6 7; do chmod 7$i$i clean; chown 3:$i clean; cd clean; done`)
	h.takeClean()
	h.run(Options{})
	clean := h.path(snapshotOf("@home", NameClean), "alice")
	for _, way := range []Way{WayChanged, WayFull} {
		if way == WayChanged {
			must(t, os.RemoveAll(h.path("@home/alice/clean")))
		}
		h.sh("@home", `rm -rf alice/Documents bob; mkdir -p alice/Documents/tmp alice/.config/new bob`)
		must(t, deep(t, h.path("@home/alice/Documents"), "kept", depth).Close())
		must(t, deep(t, h.path("@home/alice/Documents/tmp"), "wiped", depth).Close())
		must(t, deep(t, h.path("@home/alice/.config/new"), "wiped", depth).Close())
		must(t, deep(t, h.path("@home/bob"), "Documents", depth).Close())
		if way == WayFull {
			h.destroyTree(snapshotOf("@home", NameCurrent))
		}
		report := h.run(Options{})
		if got := h.result(report, "@home").Way; got != way {
			t.Errorf("way = %s, want %s", got, way)
		}
		h.cleanup()
		sameDepth(t, clean, h.path("@home/alice"), "clean", depth)
		for dir, name := range map[string]string{"alice/Documents": "kept", "bob": "Documents"} {
			old := h.path(snapshotOf("@home", NamePrevious), dir)
			if got, want := sameDepth(t, old, h.path("@home", dir), name, depth), sameDepth(t, old, old, name, depth); got != want {
				t.Errorf("the file below %s is inode %d, was %d: it was not left alone", dir, got, want)
			}
		}
		for _, gone := range []string{TrashName, "alice/Documents/tmp", "alice/.config/new"} {
			if exists(h.path("@home", gone)) {
				t.Errorf("%s, %s: %s is still there", way, "wiped", gone)
			}
		}
	}
	h.run(Options{Mode: ModeRestorePrevious})
	sameDepth(t, h.path(snapshotOf("@home", NamePrevious), "alice/.config/new"), h.path("@home/alice/.config/new"), "wiped", depth)
}

func TestHostileLinkCounts(t *testing.T) {
	const names = 350 // more than fit into one item: INODE_EXTREF
	h := newHostile(t)
	link := func(to, dir string) { h.links("@home/"+to, "@home/"+dir, names) }
	must(t, os.WriteFile(h.path("@home/alice/many"), []byte("many"), 0o600))
	link("alice/many", "alice/links")
	h.takeClean()
	h.run(Options{})
	for _, way := range []Way{WayChanged, WayFull} {
		h.sh("@home", `echo changed > alice/links/*0007`)
		h.boot("all names changed", way)
		h.sh("@home", `cd alice/links; rm *00??; echo one > *0300`)
		h.boot("some names gone", way)
		h.sh("@home", `rm -rf alice/links`)
		h.boot("most names gone", way)
		h.sh("@home", `rm -rf alice/Documents; mkdir alice/Documents; echo new > alice/new`)
		link("alice/new", "alice/Documents/new")
		link("alice/new", "alice/.config/new")
		must(t, os.RemoveAll(h.path("@home/alice/links")))
		link("alice/new", "alice/links")
		h.boot("a kept file with wiped names", way)
		h.sh("@home", `chattr +i alice/Documents/new/*0000; ln alice/.bashrc alice/Documents/rc`)
		link("alice/.bashrc", "alice/Documents/rcs")
		h.boot("kept names of a clean file", way)
		h.sh("@home", `chattr -i alice/Documents/new/*0000`)
	}
}

// links makes names of a file in a directory.
func (m *machine) links(file, dir string, count int) {
	m.t.Helper()
	must(m.t, os.MkdirAll(m.path(dir), 0o755))
	for i := range count {
		must(m.t, os.Link(m.path(file), m.path(dir, fmt.Sprintf("a link to the file, with a name of some length, and the number %04d", i))))
	}
}

// With a look at all the names of an inode for each of them, this would take hours.
func TestHostileManyLinks(t *testing.T) {
	h := newHostile(t)
	h.takeClean()
	h.run(Options{})
	h.sh("@home", `mkdir alice/Documents; cp -p alice/.bashrc alice/new; ln -f alice/new alice/.bashrc`)
	h.links("@home/alice/new", "@home/alice", 5_000)
	h.links("@home/alice/new", "@home/alice/Documents", 5_000)
	h.syncTop()
	h.boot("added and kept", WayChanged)
}

func TestHostileOwnNames(t *testing.T) {
	h := newHostile(t)
	h.takeClean()
	h.run(Options{})
	makes := map[string]string{
		"file":                           "echo x > NAME",
		"symlink":                        "ln -s OUTSIDE/file NAME",
		"symlink to directory":           "ln -s OUTSIDE NAME",
		"fifo":                           "mkfifo NAME",
		"device":                         "mknod NAME c 1 3",
		"directory":                      "mkdir -p NAME/Documents/tmp NAME/sub; echo > NAME/sub/file; ln -s OUTSIDE NAME/sub/link",
		"subvolume":                      "btrfs -q subvolume create NAME; echo x > NAME/file",
		"directory with subvolumes":      "mkdir NAME; btrfs -q subvolume create NAME/Documents; btrfs -q subvolume create NAME/other; echo > NAME/Documents/file",
		"name of a kept file":            "mkdir -p alice/Documents; echo kept > alice/Documents/k; ln -f alice/Documents/k NAME",
		"name of an immutable kept file": "mkdir -p alice/Documents; rm -f alice/Documents/i; echo kept > alice/Documents/i; ln alice/Documents/i NAME; chattr +i alice/Documents/i",
		"immutable file":                 "echo x > NAME; chattr +i NAME",
		"immutable directory":            "mkdir NAME; echo x > NAME/file; chattr +i NAME NAME/file",
		"append-only file":               "echo x > NAME; chattr +a NAME",
	}
	for what, script := range makes {
		for _, name := range []string{ReadyName, TrashName} {
			for _, dir := range []string{"", "alice/", "alice/Documents/"} {
				at := dir + name
				let := h.bothWays
				if dir != "" {
					let = h.shortWay // nothing is special about it there
				}
				let(what+" at "+at, `mkdir -p alice/Documents; chattr -R -i -a `+at+` 2>/dev/null || true; chattr -i -a alice/Documents/* 2>/dev/null || true; rm -rf `+at+`; `+strings.ReplaceAll(script, "NAME", at))
			}
		}
	}
}

func TestHostileRecord(t *testing.T) {
	forged := Record{
		Version: recordVersion, Revision: 1 << 60, Rules: RuleSet{Keep: []string{"/*"}}, Effective: []RuleSet{{Keep: []string{"/*"}}},
	}
	for _, tt := range []struct {
		name  string
		boots int
		way   Way
		owner int
		days  int
	}{
		{"before the first boot", 0, WayFull, 0, 1},
		{"after boots", 2, WayChanged, 0, 3},
		{"after boots, without CURRENT", 2, WayFull, 1000, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHostile(t)
			h.takeClean()
			for range tt.boots {
				h.sh("@home", `date +%N > alice/new`)
				h.boot("boot", map[bool]Way{true: WayFull, false: WayChanged}[!exists(h.path(snapshotOf("@home", NameCurrent)))])
			}
			for range tt.days {
				h.sh("@home", `echo wiped > alice/wiped`)
				record := forged
				for _, name := range []string{NameClean, NamePrevious} {
					if path := snapshotOf("@home", name); exists(h.path(path)) {
						info := h.info(path)
						record.CleanUUID, record.CleanGeneration = info.UUID.String(), info.CTransID
						record.Displaced, record.Restored = h.info("@home").UUID.String(), info.UUID.String()
					}
				}
				text, err := json.Marshal(record)
				must(t, err)
				path := h.path("@home", ReadyName)
				must(t, os.WriteFile(path, text, 0o600))
				must(t, os.Chown(path, tt.owner, tt.owner))
				h.syncTop()
				h.boot("forged", tt.way)
			}
		})
	}
}

// More than a record may hold: subvolumes that move, at long paths.
func TestHostileRecordSize(t *testing.T) {
	h := newHostile(t)
	h.takeClean()
	h.run(Options{})
	h.sh("@home", "mkdir alice/Documents")
	at := deep(t, h.path("@home/alice/Documents"), strings.Repeat("x", 250), 40)
	for i := range 700 {
		must(t, unix.Mkdirat(int(at.Fd()), strconv.Itoa(i), 0o755))
		dir, err := openDir(at, strconv.Itoa(i))
		must(t, err)
		must(t, btrfs.Create(dir, "v"))
		must(t, dir.Close())
	}
	must(t, at.Close())
	h.syncTop()
	h.boot("many moves", WayChanged)
	if h.recordOf("@home/") == nil || h.recordOf(snapshotOf("@home", NameCurrent)) == nil {
		t.Error("the record cannot be read back")
	}
	h.sh("@home", "echo > alice/new")
	h.boot("again", WayChanged)
}

func (m *machine) recordOf(path string) *Record {
	m.t.Helper()
	root := m.hold(m.path(path))
	defer root.Close()
	return readRecordOf(root)
}
