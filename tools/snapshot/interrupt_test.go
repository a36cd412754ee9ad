package snapshot

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/tooltest"
)

// until waits for something that a tool at work makes.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !there(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// matches counts the paths that a pattern matches below the machine's root.
func (d *disk) matches(t *testing.T, pattern string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(d.root, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// A restore that is stopped puts nothing half into place and leaves nothing behind,
// and the same restore again does all of it.
func TestRestoreInterrupted(t *testing.T) {
	d := newMachine(t)
	d.sh("mkdir home/alice/many; cd home/alice/many; for f in {1..5000}; do echo $f >$f; done")
	d.boot()
	const stage = "home/.immutability-trash/*/*/*"
	c := d.terminal(t, nil, "restore", "/home/alice/many")
	until(t, "restore makes nothing", func() bool { return d.matches(t, stage) > 0 })
	c.Type(console.CtrlC)
	status := c.Wait()
	if d.matches(t, "home/alice/many") > 0 {
		t.Skip("restore was faster than the key")
	}
	if status != 1 || !strings.Contains(c.Screen(), "interrupted") {
		t.Errorf("exit status %d, screen\n%s", status, c.Screen())
	}
	if left := d.matches(t, "home/.immutability-trash/restore*"); left > 0 {
		t.Errorf("%d stages are left", left)
	}
	d.run(t, "restore", "/home/alice/many")
	if n := d.matches(t, "home/alice/many/*"); n != 5000 {
		t.Errorf("restored %d files, want 5000", n)
	}
}

// A first CLEAN that is stopped while what is kept is left out of it is none, and
// leaves nothing behind.
func TestInitInterrupted(t *testing.T) {
	testx.NeedBtrfs(t)
	d := newDisk(t, tooltest.Unpack(t, nil))
	d.sh("mkdir -p home/alice/Documents; cd home/alice/Documents; for f in {1..5000}; do echo $f >$f; done")
	c := d.terminal(t, nil, "init", "--yes")
	until(t, "init makes no snapshot", func() bool { return len(d.aged(t)) > 0 })
	c.Type(console.CtrlC)
	status := c.Wait()
	cleans, err := filepath.Glob(filepath.Join(d.top, "@snapshots/*/CLEAN"))
	if err != nil {
		t.Fatal(err)
	}
	if len(cleans) == 2 {
		t.Skip("init was faster than the key")
	}
	if status != 1 || !strings.Contains(c.Screen(), "interrupted") {
		t.Errorf("exit status %d, screen\n%s", status, c.Screen())
	}
	if len(cleans) > 0 || len(d.aged(t)) > 0 {
		t.Errorf("left behind: %q, %q", cleans, d.aged(t))
	}
	d.run(t, "init", "--yes")
}
