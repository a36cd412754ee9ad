package reset

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestHostileLinkCounts(t *testing.T) {
	const names = 150 // more than fit into one item: INODE_EXTREF
	h := newHostile(t)
	link := func(to, dir string) { h.links("@home/"+to, "@home/"+dir, names) }
	must(t, os.WriteFile(h.path("@home/alice/many"), []byte("many"), 0o600))
	link("alice/many", "alice/links")
	h.takeClean()
	h.run(Options{})
	for _, way := range []Way{WayChanged, WayFull} {
		h.sh("@home", `echo changed > alice/links/*0007`)
		h.boot("all names changed", way)
		h.sh("@home", `cd alice/links; rm *00??; echo one > *0130`)
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
		must(m.t, os.Link(m.path(file), m.path(dir, fmt.Sprintf("%s%04d", strings.Repeat("a link to the file ", 12), i))))
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
