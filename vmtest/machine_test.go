package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/guest/minimal"
	"nixos-go/vmtest/machine"
	"nixos-go/vmtest/serial"
)

// withDisk is the minimal guest with a small empty disk and a TPM.
func withDisk(t *testing.T, name string) machine.Spec {
	t.Helper()
	spec := Minimal(t, minimal.Options{}).Spec(name)
	spec.Disks = []machine.Disk{{ID: "data", Size: 16 << 20}}
	return spec
}

// writeDisk and readDisk work on the first sector of the disk.
const (
	writeDisk = `echo "$1" | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null`
	readDisk  = `dd if=/dev/vda bs=512 count=1 2>/dev/null | tr -d '\0 \n'`
)

func shell(t *testing.T, m *machine.Machine, script string, args ...string) string {
	t.Helper()
	out, err := m.Shell(Context(t), script, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// TestVM_KilledQEMU ends waits at once, and leaves nothing running.
func TestVM_KilledQEMU(t *testing.T) {
	m := ready(t, nil)
	pid := m.PID()
	ended := make(chan error, 1)
	go func() {
		_, err := m.Run(Context(t), "sleep", "1000")
		ended <- err
	}()
	time.AfterFunc(300*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	err := <-ended
	if !errors.Is(err, machine.ErrStopped) || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("Run while QEMU is killed = %v, want ErrStopped and the signal", err)
	}
	if m.Running() {
		t.Error("Running after the end of QEMU")
	}
	if err := m.Stop(); err != nil {
		t.Errorf("Stop = %v", err)
	}
	if left := processesIn(t, m.Dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	// It starts again on the same disks.
	if err := m.Start(Context(t)); err != nil {
		t.Fatalf("Start after that = %v", err)
	}
	if _, err := m.Ready(Context(t)); err != nil {
		t.Error(err)
	}
}

// processesIn are the processes that work in a folder.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == dir {
			found = append(found, link)
		}
	}
	return found
}

// TestVM_Panic ends a wait as soon as the kernel gives up.
func TestVM_Panic(t *testing.T) {
	m := ready(t, nil)
	started := time.Now()
	// It stays there, as a machine does that nobody looks at.
	_, err := m.Shell(Context(t), "echo 0 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; sleep 1000")
	var failed *serial.FailedError
	if !errors.As(err, &failed) || !strings.Contains(failed.Text, "Kernel panic - not syncing: sysrq") {
		t.Errorf("Shell that crashes the kernel = %v, want what the console says", err)
	}
	if took := time.Since(started); took > Timeout/2 {
		t.Errorf("that took %v", took)
	}
}

// TestVM_NeverReady says what the console says when the guest does not come up.
func TestVM_NeverReady(t *testing.T) {
	spec := withDisk(t, "never")
	spec.Cmdline = append(spec.Cmdline, "rdinit=/nothing", "root=/dev/nothing")
	m := New(t, spec)
	if err := m.Start(Context(t)); err != nil {
		t.Fatal(err)
	}
	_, err := m.Ready(Context(t))
	if err == nil || !strings.Contains(err.Error(), "Kernel panic - not syncing: VFS") {
		t.Errorf("Ready = %v, want the panic", err)
	}
}

// TestVM_BadArguments shows what QEMU itself says.
func TestVM_BadArguments(t *testing.T) {
	spec := withDisk(t, "bad")
	spec.Devices = []string{"-device", "no-such-device"}
	m := New(t, spec)
	err := m.Start(Context(t))
	if err == nil || !strings.Contains(err.Error(), "no-such-device") {
		t.Errorf("Start = %v, want QEMU's message", err)
	}
	if left := processesIn(t, m.Dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// TestVM_Reboot reboots a guest: one agent, another boot.
func TestVM_Reboot(t *testing.T) {
	m := ready(t, func(s *machine.Spec) { s.Reboots = true })
	before, err := m.Ready(Context(t))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := m.Agent().Output(Context(t), "sleep", "1000")
		ended <- err
	}()
	shell(t, m, "echo before > /tmp/memory")
	after, err := m.Reboot(Context(t))
	if err != nil {
		t.Fatalf("Reboot = %v", err)
	}
	if after.Boot == before.Boot {
		t.Errorf("Reboot: the boot id is %s, before and after", after.Boot)
	}
	if err := <-ended; !errors.Is(err, agent.ErrRebooted) {
		t.Errorf("what ran while the guest rebooted = %v, want ErrRebooted", err)
	}
	if got := shell(t, m, "ls /tmp"); got != "" {
		t.Errorf("/tmp after a reboot has %q", got)
	}
}

// TestVM_Console types and waits for what is not there.
func TestVM_Console(t *testing.T) {
	m := ready(t, nil)
	go func() {
		_, _ = m.Run(Context(t), "sh", "-c", "read -r line < /dev/console; echo \"got $line\" > /dev/console")
	}()
	if err := m.Type("some text\n"); err != nil {
		t.Fatal(err)
	}
	groups, err := m.Expect(Context(t), `got (.*)\n`)
	if err != nil || groups[1] != "some text" {
		t.Errorf("Expect = %q, %v", groups, err)
	}
	ctx, cancel := context.WithTimeout(Context(t), 200*time.Millisecond)
	defer cancel()
	_, err = m.Expect(ctx, `got`)
	var missing *serial.MissingError
	if !errors.As(err, &missing) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(missing.Tail, "got some text") {
		t.Errorf("Expect of what was seen already = %v, want a MissingError with the end of the log", err)
	}
	if !regexp.MustCompile(`got some text`).MatchString(m.Console().Text()) {
		t.Error("Text has not what Expect has found")
	}
}

// TestVM_Shell works on the shell that the command's guests have on the console.
func TestVM_Shell(t *testing.T) {
	spec := withDisk(t, "shell")
	spec.Cmdline = append(spec.Cmdline, minimal.ConsoleShell)
	m := Start(t, spec)
	for _, step := range []struct{ wait, line string }{
		{`/root # `, "tty; echo \"$((6 * 7)) is it\"\n"},
		{`\n42 is it\n/root # `, "exit 3\n"},
		{`BusyBox[^#]*/root # `, "echo \"$((7 * 7)) is it\"\n"}, // another shell
		{`\n49 is it\n`, ""},
	} {
		if _, err := m.Expect(Context(t), step.wait); err != nil {
			t.Fatal(err)
		}
		if err := m.Type(step.line); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(m.Console().Text(), "/dev/ttyS0") {
		t.Errorf("the shell has no terminal:\n%s", m.Console().Text())
	}
}

// TestVM_Parallel runs machines at the same time, each with its own world.
func TestVM_Parallel(t *testing.T) {
	var wait sync.WaitGroup
	machines := make([]*machine.Machine, 3)
	for i := range machines {
		machines[i] = ready(t, func(s *machine.Spec) { s.Name = fmt.Sprintf("parallel-%d", i) })
		wait.Go(func() {
			if _, err := machines[i].Shell(Context(t), writeDisk, machines[i].Spec.Name); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	ports := map[int]bool{}
	for i, m := range machines {
		if got, want := shell(t, m, readDisk), fmt.Sprintf("parallel-%d", i); got != want {
			t.Errorf("disk of machine %d = %q, want %q", i, got, want)
		}
		ports[m.Port(7)] = true
	}
	if len(ports) != len(machines) || ports[0] {
		t.Errorf("ports = %v, want one for each machine", ports)
	}
}
