package vmtest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"nixos-go/vmtest/machine"
)

// roleVariable makes a process of this test binary the one that is looked at.
const roleVariable = "VMTEST_ROLE"

// TestRole is no test: it is what others of this file start, to fail or to hang
// with a machine that runs.
func TestRole(t *testing.T) {
	role := os.Getenv(roleVariable)
	if role == "" {
		t.Skip("started by other tests")
	}
	m := ready(t, nil)
	_, _ = os.Stdout.WriteString("runs in " + m.Dir + "\n")
	if role == "hang" {
		time.Sleep(Timeout)
	}
	t.Fatal("as it was told")
}

func startRole(t *testing.T, role string) (child *exec.Cmd, out io.Reader) {
	t.Helper()
	ready(t, nil) // the stage is made here, where errors show
	child = exec.Command(os.Args[0], "-test.run=^TestRole$", "-test.v")
	// What it leaves goes with this test.
	child.Env = append(os.Environ(), roleVariable+"="+role, "TMPDIR="+Dir(t))
	reader, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill() })
	return child, reader
}

// TestVM_Kept: a test that fails keeps the folder, says where it is, and the
// command that it prints boots the machine again.
func TestVM_Kept(t *testing.T) {
	child, out := startRole(t, "fail")
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the test that was to fail has passed")
	}
	if !strings.Contains(string(text), "kept: ") {
		t.Errorf("it does not say what it keeps:\n%s", text)
	}
	script := regexp.MustCompile(`\n\s+sh (\S+/qemu\.sh)\n`).FindStringSubmatch(string(text))
	if script == nil {
		t.Fatalf("no command that repeats it in:\n%s", text)
	}
	if !strings.Contains(string(text), "qemu-system-x86_64 -name minimal") {
		t.Errorf("no command line of QEMU in:\n%s", text)
	}
	dir := filepath.Dir(script[1])
	if left := processesIn(t, dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	again := exec.Command("sh", script[1])
	again.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-again.Process.Pid, syscall.SIGKILL)
		_ = again.Wait()
	})
	m, err := machine.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for {
		err := m.Attach(Context(t))
		if err == nil {
			break
		}
		if !errors.Is(err, machine.ErrStopped) || Context(t).Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	defer m.Detach()
	hello, err := m.Ready(Context(t))
	if err != nil {
		t.Fatal(err)
	}
	if hello.UptimeSeconds <= 0 {
		t.Errorf("the machine that was booted again says %+v", hello)
	}
}

// TestVM_TestKilled: a test that is killed takes its machine with it.
func TestVM_TestKilled(t *testing.T) {
	child, out := startRole(t, "hang")
	line := make([]byte, 0, 4096)
	for !strings.Contains(string(line), "runs in ") || !strings.HasSuffix(string(line), "\n") {
		var b [1]byte
		if _, err := out.Read(b[:]); err != nil {
			t.Fatalf("the test that was to hang has ended: %v\n%s", err, line)
		}
		line = append(line, b[0])
	}
	dir := strings.TrimSpace(string(line[strings.Index(string(line), "runs in ")+len("runs in "):]))
	if n := len(processesIn(t, dir)); n != 2 {
		t.Errorf("%d processes work in %s, want QEMU and the TPM", n, dir)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	for deadline := time.Now().Add(30 * time.Second); len(processesIn(t, dir)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still running: %v", processesIn(t, dir))
		}
	}
}
