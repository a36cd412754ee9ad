package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx"
)

func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("data"), 4096)
	for _, at := range []int64{64 << 10, 32 << 20} {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(64<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, []byte("what was there before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(to, from); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
		t.Errorf("copyFile: %d bytes, %v, want the %d of the original", len(got), err, len(want))
	}
	var stat unix.Stat_t
	if err := unix.Stat(to, &stat); err != nil || stat.Blocks*512 > 1<<20 {
		t.Errorf("the copy takes %d bytes, want the holes to be holes", stat.Blocks*512)
	}
}

// A process ends with the program that started it, even where that is killed.
func TestProcessDies(t *testing.T) {
	if os.Getenv("MACHINE_TEST_CHILD") != "" {
		p, err := startProcess([]string{"sleep", "1000"}, os.Getenv("MACHINE_TEST_CHILD"), "log", false)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("started\n")
		<-p.ended
		return
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestProcessDies$")
	child.Env = append(os.Environ(), "MACHINE_TEST_CHILD="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	if n := worksIn(t, dir); n != 1 {
		t.Fatalf("%d processes work in the folder, want one", n)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	for deadline := time.Now().Add(10 * time.Second); worksIn(t, dir) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process lives on")
		}
	}
}

func worksIn(t *testing.T, dir string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == dir {
			n++
		}
	}
	return n
}

func TestCreateTwice(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		testx.Unavailable(t, err.Error())
	}
	dir := filepath.Join(t.TempDir(), "machine")
	spec := Spec{Name: "x", Disks: []Disk{{ID: "a", Size: 1 << 20}}}
	if _, err := Create(t.Context(), dir, spec); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), dir, spec); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create in the same folder = %v, want ErrExist", err)
	}
	m, err := Load(dir)
	if err != nil || m.Spec.Name != "x" || len(m.Spec.Disks) != 1 {
		t.Errorf("Load = %+v, %v", m, err)
	}
	if err := m.Attach(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("Attach = %v, want ErrStopped", err)
	}
	if _, err := m.Run(t.Context(), "true"); !errors.Is(err, ErrStopped) {
		t.Errorf("Run = %v, want ErrStopped", err)
	}
	// Raw in, raw out.
	raw, again := filepath.Join(dir, "in.raw"), filepath.Join(dir, "out.raw")
	content := append([]byte("first sector"), make([]byte, 1<<20-12)...)
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.ImportDisk(t.Context(), "a", raw), m.ExportDisk(t.Context(), "a", again)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(again); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after import and export: %d bytes, %v", len(got), err)
	}
}

// A checkpoint says what it lacks, and takes nothing else for it.
func TestCheckpointBases(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		testx.Unavailable(t, err.Error())
	}
	dir := t.TempDir()
	base, tools := filepath.Join(dir, "base.raw"), filepath.Join(dir, "tools.raw")
	fill := func(path, content string) {
		if err := os.WriteFile(path, append([]byte(content), make([]byte, 4096)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fill(base, "base")
	fill(tools, "tools")
	m, err := Create(t.Context(), filepath.Join(dir, "machine"), Spec{
		Name: "x", Disks: []Disk{{ID: "a", Base: base}, {ID: "t", Base: tools, ReadOnly: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	checkpoint := filepath.Join(dir, "checkpoint")
	if err := m.Checkpoint(t.Context(), checkpoint); err != nil {
		t.Fatal(err)
	}
	if err := m.Checkpoint(t.Context(), checkpoint); !errors.Is(err, os.ErrExist) {
		t.Errorf("Checkpoint over another = %v, want ErrExist", err)
	}
	again := 0
	from := func(change func(*Spec)) error {
		again++
		_, err := FromCheckpoint(t.Context(), checkpoint, filepath.Join(dir, fmt.Sprint("again-", again)), change)
		return err
	}
	// What is only read may be another one.
	fill(tools, "newer tools")
	if err := from(nil); err != nil {
		t.Errorf("FromCheckpoint = %v", err)
	}
	other := filepath.Join(dir, "other.raw")
	fill(other, "elsewhere")
	if err := from(func(s *Spec) { s.Disks[1].Base = other }); err != nil {
		t.Errorf("FromCheckpoint with another read-only disk = %v", err)
	}
	if err := os.Remove(base); err != nil {
		t.Fatal(err)
	}
	if err := from(nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("FromCheckpoint without its base = %v, want ErrNotExist", err)
	}
	fill(base, "base")
	if err := errors.Join(os.Chtimes(base, time.Unix(1, 0), time.Unix(1, 0)), from(nil)); !errors.Is(err, ErrBase) {
		t.Errorf("FromCheckpoint over another base = %v, want ErrBase", err)
	}
}
