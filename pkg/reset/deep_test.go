package reset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

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

// What the cleanup holds in memory does not depend on what users call their folders.
func TestDeletingDeepTreesIsCheap(t *testing.T) {
	root := newDisk(t, 256<<20)
	name := strings.Repeat("n", 255)
	must(t, os.Mkdir(filepath.Join(root, "tree"), 0o700))
	must(t, deep(t, filepath.Join(root, "tree"), name, 2000).Close())
	dir, err := os.Open(root)
	must(t, err)
	defer dir.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	must(t, removeTree(t.Context(), dir, "tree"))
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 16 {
		t.Errorf("deleting took %d MiB of memory, one after another", got)
	}
	if exists(filepath.Join(root, "tree")) {
		t.Error("the tree is still there")
	}
}

// A deletion that is stopped goes on from there.
func TestDeletingStops(t *testing.T) {
	root := newDisk(t, 256<<20)
	for i := range 50 {
		must(t, os.MkdirAll(filepath.Join(root, "tree", strconv.Itoa(i), strings.Repeat("d/", 40)), 0o700))
	}
	dir, err := os.Open(root)
	must(t, err)
	defer dir.Close()
	stops := 0
	for exists(filepath.Join(root, "tree")) {
		ctx, cancel := context.WithCancel(t.Context())
		count := 0
		err := removeTree(&countingContext{ctx, &count, cancel}, dir, "tree")
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err != nil {
			stops++
		}
		cancel()
	}
	if stops < 10 {
		t.Errorf("it stopped %d times, want many", stops)
	}
}

// countingContext ends after some looks at it.
type countingContext struct {
	context.Context

	count  *int
	cancel func()
}

func (c *countingContext) Err() error {
	if *c.count++; *c.count > 100 {
		c.cancel()
	}
	return c.Context.Err()
}
