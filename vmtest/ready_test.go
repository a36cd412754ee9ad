package vmtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"nixos-go/vmtest/accel"
	"nixos-go/vmtest/gobuild"
	"nixos-go/vmtest/guest/minimal"
	"nixos-go/vmtest/machine"
	"nixos-go/vmtest/stage"
)

// readyStage is where machines go on from; made, or found, by the first test of
// this process that needs one.
var readyStage struct { //nolint:gochecknoglobals // once for the process
	sync.Once

	dir string
}

// ready is a machine with the minimal guest, a small disk, a TPM and a network, up
// and running: it goes on from a checkpoint that the first test has made, which
// takes a second where a boot takes five. change may alter what the guest does not
// see.
func ready(t *testing.T, change func(*machine.Spec)) *machine.Machine {
	t.Helper()
	readyStage.Do(func() { readyStage.dir = makeReady(t) })
	if readyStage.dir == "" {
		t.Fatal("the stage that this test begins from could not be made: an earlier test says why")
	}
	m, err := machine.FromCheckpoint(Context(t), filepath.Join(readyStage.dir, "checkpoint"), filepath.Join(Dir(t), "machine"), change)
	if err != nil {
		t.Fatal(err)
	}
	Watch(t, m)
	if err := m.Start(Context(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Ready(Context(t)); err != nil {
		t.Fatal(err)
	}
	return m
}

// makeReady is the folder of the stage.
func makeReady(t *testing.T) string {
	t.Helper()
	Need(t, "swtpm", "qemu-system-x86_64", "qemu-img")
	cache := Cache(t)
	kernel, err := cache.Kernel(Context(t), "bookworm", "amd64", "linux-image-cloud-amd64")
	if err != nil {
		t.Fatal(err)
	}
	choice := Accel(t)
	dir, err := Stages(t).Ensure(Context(t), stage.Stage{
		Name:   "minimal",
		Inputs: []string{kernel, qemuVersion(t), agentDigest(t), string(choice)},
		Make: func(ctx context.Context, dir, _ string) error {
			guest, err := minimal.Build(ctx, cache, dir, minimal.Options{Arch: machine.AMD64})
			if err != nil {
				return err
			}
			spec := guest.Spec("minimal")
			spec.Accel = choice
			spec.Disks = []machine.Disk{{ID: "data", Size: 16 << 20}}
			spec.TPM = true
			spec.Network = &machine.Network{Forward: []int{7}, Isolated: true}
			m := Start(t, spec) //nolint:contextcheck // the test's own, as all helpers
			if err := m.Checkpoint(ctx, filepath.Join(dir, "checkpoint")); err != nil {
				return err
			}
			return m.Stop() //nolint:contextcheck // the end comes whatever the context says
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// agentDigest is the agent's program, which is in the guest's memory.
func agentDigest(t *testing.T) string {
	t.Helper()
	path := filepath.Join(Dir(t), "vm-agent")
	if err := gobuild.Build(Context(t), "amd64", "nixos-go/vmtest/agent/cmd/vm-agent", path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// qemuVersion is QEMU's: memory goes on under the same one.
func qemuVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("qemu-system-x86_64", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestVM_Accel holds the choice against what it was made from: a guest runs under
// what was chosen.
func TestVM_Accel(t *testing.T) {
	dir, err := CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	choice, err := accel.Probe(Context(t), dir, Cache(t))
	if err != nil || choice.Why == "" {
		t.Fatalf("Probe = %+v, %v", choice, err)
	}
	t.Logf("%s: %s", choice.Accel, choice.Why)
	t.Setenv(accel.Variable, "kvm")
	if choice, err := accel.Probe(Context(t), dir, Cache(t)); err != nil || choice.Accel != machine.KVM {
		t.Errorf("Probe with an order = %+v, %v, want kvm", choice, err)
	}
	t.Setenv(accel.Variable, "fast")
	if _, err := accel.Probe(Context(t), dir, Cache(t)); err == nil {
		t.Error("Probe with a wrong order succeeds")
	}
}
