package vmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nixos-go/vmtest/guest/minimal"
	"nixos-go/vmtest/machine"
)

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
