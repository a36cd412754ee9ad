package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/tooltest"
)

// newMachine makes a machine with its first CLEAN, booted once with something to lose.
func newMachine(t *testing.T) *disk {
	t.Helper()
	testx.NeedBtrfs(t)
	d := newDisk(t, tooltest.Unpack(t, nil))
	d.sh(`mkdir -p home/alice; echo rc > home/alice/.bashrc`)
	d.run(t, "init", "--yes")
	d.boot()
	d.sh(`echo mine > home/alice/.bashrc; echo new > home/alice/new`)
	d.boot()
	return d
}

// command calls the tool without a terminal.
func (d *disk) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(t.TempDir(), "nixos-snapshot")
	if err := os.Symlink(self, tool); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, args...)
	cmd.Env = append(os.Environ(), "ROOT="+d.root, "TOOL_UID=0")
	return cmd
}

// run calls the tool and wants it to succeed.
func (d *disk) run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := d.command(t, args...).CombinedOutput(); err != nil {
		t.Fatalf("nixos-snapshot %q: %v\n%s", args, err, out)
	}
}

// terminal calls the tool on a terminal.
func (d *disk) terminal(t *testing.T, env []string, args ...string) *console.Console {
	t.Helper()
	return tooltest.Terminal(t, d.work, env, "nixos-snapshot", args...)
}

func (d *disk) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (d *disk) aged(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(d.top, "@snapshots/*/AGED-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Overwriting is asked about, and no is the default.
func TestRestoreAsks(t *testing.T) {
	d := newMachine(t)
	for _, answer := range []string{console.Enter, "n" + console.Enter} {
		c := d.terminal(t, nil, "restore", "--force", "/home/alice/.bashrc")
		c.Expect("overwrite (content, size, mtime)")
		c.Expect("Overwrite what is there? [y/N]")
		c.Type(answer)
		c.Expect("nothing was changed")
		if status := c.Wait(); status != 1 {
			t.Errorf("exit status after %q = %d, want 1", answer, status)
		}
		if got := d.read(t, "home/alice/.bashrc"); got != "rc\n" {
			t.Errorf(".bashrc after %q = %q, want it untouched", answer, got)
		}
	}
	c := d.terminal(t, nil, "restore", "--force", "/home/alice/.bashrc")
	c.Expect("Overwrite what is there? [y/N]")
	c.Type("y" + console.Enter)
	c.Expect("ok: restored 1 name (5 B) from PREVIOUS")
	if status := c.Wait(); status != 0 || d.read(t, "home/alice/.bashrc") != "mine\n" {
		t.Errorf("exit status = %d, .bashrc = %q", status, d.read(t, "home/alice/.bashrc"))
	}
}

// Ctrl-C at the question leaves nothing behind.
func TestRebaseInterrupted(t *testing.T) {
	d := newMachine(t)
	d.sh(`echo changed > etc/changed`)
	d.run(t, "gc")
	before := d.info("@snapshots/@root/CLEAN").UUID
	for _, key := range []string{console.CtrlC, console.CtrlD, "n" + console.Enter} {
		c := d.terminal(t, nil, "rebase", "@root")
		c.Expect("new")
		c.Expect("Make this the factory state of @root? [y/N]")
		if len(d.aged(t)) == 0 {
			t.Error("nothing is prepared: what is shown is not what will happen")
		}
		c.Type(key)
		if status := c.Wait(); status != 1 {
			t.Errorf("exit status after %q = %d, want 1", key, status)
		}
		if left := d.aged(t); len(left) > 0 || d.info("@snapshots/@root/CLEAN").UUID != before {
			t.Errorf("after %q: CLEAN is %s, left are %q", key, d.info("@snapshots/@root/CLEAN").UUID, left)
		}
	}
	c := d.terminal(t, nil, "rebase", "@root")
	c.Expect("[y/N]")
	c.Type("y" + console.Enter)
	c.Expect("ok: @root has a new factory state")
	if status := c.Wait(); status != 0 || d.info("@snapshots/@root/CLEAN").UUID == before {
		t.Errorf("exit status = %d, and the old CLEAN is there: %v", status, d.info("@snapshots/@root/CLEAN").UUID == before)
	}
}

// On a terminal there is colour, but for NO_COLOR, and long work shows that it goes on.
func TestColours(t *testing.T) {
	d := newMachine(t)
	c := d.terminal(t, nil, "list")
	c.Expect("Items of the file system looked at: ")
	c.Expect("@home at /home")
	if status := c.Wait(); status != 0 || !strings.Contains(c.Raw(), "\x1b[1m@home\x1b[0m") {
		t.Errorf("exit status %d, and on the terminal\n%q", status, c.Raw())
	}
	c = d.terminal(t, []string{"NO_COLOR=1"}, "verify")
	c.Expect("ok: the next boot has what it needs")
	if status := c.Wait(); status != 0 || strings.Contains(c.Raw(), "\x1b[3") {
		t.Errorf("exit status %d, and under NO_COLOR\n%q", status, c.Raw())
	}
	c = d.terminal(t, nil, "verify")
	c.Expect("the next boot has what it needs")
	if c.Wait(); !strings.Contains(c.Raw(), "\x1b[32mok\x1b[0m") {
		t.Errorf("no green ok in\n%q", c.Raw())
	}
}

const (
	trashFolders = 60
	trashFiles   = 600
)

// fillTrash puts so much into the trash of a volume that deleting it takes a while.
func (d *disk) fillTrash(t *testing.T) string {
	t.Helper()
	trash := filepath.Join(d.root, "home/.immutability-trash")
	for folder := range trashFolders {
		dir := filepath.Join(trash, "folder"+strconv.Itoa(folder))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for file := range trashFiles {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(file)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return trash
}

// entries counts what is in a folder; none if it is not there.
func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return len(list)
}

// When the service is stopped, gc ends between two deletions, and that is no failure;
// the next one goes on.
func TestGCStopsBySignal(t *testing.T) {
	d := newMachine(t)
	trash := d.fillTrash(t)
	before := entries(t, trash)
	cmd := d.command(t, "gc")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); entries(t, trash) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("gc deletes nothing")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("gc that was stopped by SIGTERM = %v\n%s", err, stderr.String())
	}
	if left := entries(t, trash); left == 0 {
		t.Skip("gc was faster than the signal")
	}
	if !strings.Contains(stderr.String(), "stopped by signal terminated: what is left is deleted by the next gc") {
		t.Errorf("gc that was stopped says\n%s", stderr.String())
	}
	d.run(t, "gc")
	if entries(t, trash) > 0 {
		t.Error("the next gc leaves some")
	}
}

// A person's Ctrl-C is told by the exit status.
func TestGCInterrupted(t *testing.T) {
	d := newMachine(t)
	trash := d.fillTrash(t)
	c := d.terminal(t, nil, "gc")
	c.Expect("Files deleted: ")
	c.Type(console.CtrlC)
	status := c.Wait()
	if entries(t, trash) == 0 {
		t.Skip("gc was faster than the key")
	}
	if status != 1 || !strings.Contains(c.Screen(), "interrupted: what is left is deleted by the next gc") {
		t.Errorf("exit status %d, screen\n%s", status, c.Screen())
	}
	d.run(t, "gc")
	if entries(t, trash) > 0 {
		t.Error("the next gc leaves some")
	}
}

// Both priorities are those of the thread that does the work, and of no other.
func TestAtIdlePriority(t *testing.T) {
	priorities := func() string {
		thread := unix.Gettid()
		io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(thread), 0)
		nice, err := unix.Getpriority(unix.PRIO_PROCESS, thread)
		if errno != 0 || err != nil {
			t.Errorf("priorities of thread %d: %v, %v", thread, errno, err)
		}
		return fmt.Sprintf("class %d, nice %d", io>>ioprioClassShift, 20-nice) // the system call's own form
	}
	before := priorities()
	failure := errors.New("failed")
	err := atIdlePriority(func() error {
		if got, want := priorities(), "class 3, nice 19"; got != want {
			t.Errorf("priorities at work: %s, want %s", got, want)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("atIdlePriority = %v, want what the work returned", err)
	}
	if after := priorities(); after != before {
		t.Errorf("priorities afterwards: %s, before: %s", after, before)
	}
}
