package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// TestVM_Snapshot takes a running machine back, memory and disk.
func TestVM_Snapshot(t *testing.T) {
	m := ready(t, nil)
	shell(t, m, writeDisk, "before")
	shell(t, m, "echo before > /tmp/memory")
	if err := m.SaveSnapshot(Context(t), "s1"); err != nil {
		t.Fatalf("SaveSnapshot = %v", err)
	}
	shell(t, m, writeDisk, "after")
	shell(t, m, "echo after > /tmp/memory")
	if err := m.LoadSnapshot(Context(t), "s1"); err != nil {
		t.Fatalf("LoadSnapshot = %v", err)
	}
	if _, err := m.Ready(Context(t)); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, m, "cat /tmp/memory; "+readDisk); got != "before\nbefore" {
		t.Errorf("memory and disk after LoadSnapshot = %q", got)
	}
	if err := m.LoadSnapshot(Context(t), "s2"); err == nil {
		t.Error("LoadSnapshot of what was never saved succeeds")
	}
}

// TestVM_Checkpoint starts two machines from what one was in the middle of its
// work, TPM, firmware variables and all.
func TestVM_Checkpoint(t *testing.T) {
	m := ready(t, nil)
	shell(t, m, writeDisk, "disk")
	shell(t, m, "echo memory > /tmp/memory")
	extendPCR(t, m)
	pcr := shell(t, m, readPCR)
	dir := filepath.Join(Dir(t), "running")
	if err := m.Checkpoint(Context(t), dir); err != nil {
		t.Fatalf("Checkpoint = %v", err)
	}
	// The machine itself goes on, and what it does now is not in the checkpoint.
	shell(t, m, "echo later > /tmp/memory")
	extendPCR(t, m)
	if err := m.PowerOff(Context(t)); err != nil {
		t.Fatal(err)
	}

	for i := range 2 {
		again, err := machine.FromCheckpoint(Context(t), dir, filepath.Join(Dir(t), "machine"), func(s *machine.Spec) {
			s.Name = fmt.Sprintf("again-%d", i)
		})
		if err != nil {
			t.Fatalf("FromCheckpoint = %v", err)
		}
		Watch(t, again)
		if err := again.Start(Context(t)); err != nil {
			t.Fatalf("Start = %v", err)
		}
		if _, err := again.Ready(Context(t)); err != nil {
			t.Fatal(err)
		}
		if got := shell(t, again, "cat /tmp/memory; "+readDisk); got != "memory\ndisk" {
			t.Errorf("memory and disk from the checkpoint = %q", got)
		}
		if got := shell(t, again, readPCR); got != pcr {
			t.Errorf("PCR 16 from the checkpoint = %s, want %s", got, pcr)
		}
		extendPCR(t, again)
		if got := shell(t, again, readPCR); got == pcr {
			t.Errorf("PCR 16 does not change when it is extended: %s", got)
		}
	}
}

// readPCR shows a PCR that is there for debugging, and that nothing resets but a
// start of the TPM.
const readPCR = "cat /sys/class/tpm/tpm0/pcr-sha256/16"

// extendPCR sends TPM2_PCR_Extend of PCR 16 (TPM 2.0 Library, part 3, 22.2) to
// the device: no program of TPM tools is in this guest.
func extendPCR(t *testing.T, m *machine.Machine) {
	t.Helper()
	const command = `\200\002` + // TPM_ST_SESSIONS
		`\000\000\000\101` + // size: 65
		`\000\000\001\202` + // TPM_CC_PCR_Extend
		`\000\000\000\020` + // PCR 16
		`\000\000\000\011\100\000\000\011\000\000\000\000\000` + // an empty password
		`\000\000\000\001\000\013` // one digest, SHA-256: 32 bytes
	shell(t, m, `{ printf '`+command+`'; printf '%032d' 7; } > /tmp/command
exec 3<>/dev/tpm0; cat /tmp/command >&3; dd bs=4096 count=1 <&3 2>/dev/null | dd bs=1 skip=6 count=4 2>/dev/null | od -An -tx1 | grep -q '00 00 00 00'`)
}

// TestVM_FirmwareVariables are written in a guest that UEFI firmware has booted,
// and are in both kinds of checkpoint: of the running machine and of the stopped
// one, which can be changed before it starts again.
func TestVM_FirmwareVariables(t *testing.T) {
	spec := Minimal(t, minimal.Options{Modules: []string{"efivarfs"}}).Spec("firmware")
	spec.Firmware = OVMF(t)
	m := Start(t, spec)
	const (
		variables = "/sys/firmware/efi/efivars/"
		vendor    = "-b0c5a1e2-6f0f-4f43-9d3a-3a6f6f1c8e11"
		// Non-volatile, for boot and runtime; then the value. The kernel protects
		// a variable that is there, so each is written once.
		write = `printf "\\7\\0\\0\\0$2" > "$1"`
		read  = `for v in "$1"*"$2"; do dd bs=1 skip=4 2>/dev/null < "$v"; done`
	)
	shell(t, m, write, variables+"NixosGo1"+vendor, "first")
	checkpoints := Dir(t)
	running := filepath.Join(checkpoints, "running")
	if err := m.Checkpoint(Context(t), running); err != nil {
		t.Fatalf("Checkpoint = %v", err)
	}
	shell(t, m, write, variables+"NixosGo2"+vendor, " second")
	if err := m.PowerOff(Context(t)); err != nil {
		t.Fatal(err)
	}
	stopped := filepath.Join(checkpoints, "stopped")
	if err := m.Checkpoint(Context(t), stopped); err != nil {
		t.Fatalf("Checkpoint = %v", err)
	}
	for _, test := range []struct {
		checkpoint, want string
		change           func(*machine.Spec)
	}{
		{running, "first", nil},
		{stopped, "first second", func(s *machine.Spec) {
			s.MemoryMiB = 640
			s.Disks = append(s.Disks, machine.Disk{ID: "more", Size: 1 << 20})
		}},
	} {
		again, err := machine.FromCheckpoint(Context(t), test.checkpoint, filepath.Join(Dir(t), "machine"), test.change)
		if err != nil {
			t.Fatalf("FromCheckpoint = %v", err)
		}
		Watch(t, again)
		if err := again.Start(Context(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := again.Ready(Context(t)); err != nil {
			t.Fatal(err)
		}
		if got := shell(t, again, read, variables+"NixosGo", vendor); got != test.want {
			t.Errorf("variables from %s = %q, want %q", test.checkpoint, got, test.want)
		}
		if disks := shell(t, again, "{ ls /dev/vd? 2>/dev/null || true; } | wc -l"); disks != strconv.Itoa(len(again.Spec.Disks)) {
			t.Errorf("%s disks in the guest, want %d", disks, len(again.Spec.Disks))
		}
		if err := again.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestVM_OtherQEMU refuses memory that another version has saved, and says so.
func TestVM_OtherQEMU(t *testing.T) {
	m := ready(t, nil)
	dir := filepath.Join(Dir(t), "checkpoint")
	if err := m.Checkpoint(Context(t), dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "checkpoint.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(b), m.QMP().Version.String(), "2.11.0 (old)", 1)
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := machine.FromCheckpoint(Context(t), dir, filepath.Join(Dir(t), "machine"), nil)
	if err != nil {
		t.Fatal(err)
	}
	Watch(t, again)
	if err := again.Start(Context(t)); err == nil || !strings.Contains(err.Error(), "the memory is of QEMU 2.11.0 (old)") {
		t.Errorf("Start = %v, want both versions", err)
	}
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
