// Package accel finds out how guests of the host's own architecture run best.
//
// That /dev/kvm opens says little: under nested virtualisation it may open and no
// guest come up. So the minimal guest is booted under KVM, once for each boot of
// the host; where its agent does not answer in a few seconds, emulation it is.
package accel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"nixos-go/pkg/atomicfile"
	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/guest/minimal"
	"nixos-go/vmtest/machine"
)

// Variable overrules the probe: "kvm" or "tcg".
const Variable = "NIXOS_GO_VM_ACCEL"

// patience is for a boot that takes a second or two where KVM works.
const patience = 10 * time.Second

// kvmDevice is the kernel's.
const kvmDevice = "/dev/kvm"

// Choice is how guests run here, and why.
type Choice struct {
	Accel machine.Accel `json:"accel"`
	// Why is for people.
	Why string `json:"why"`
	// Boot is the boot of the host that this was found out in.
	Boot string `json:"boot"`
}

// Probe finds out, or remembers in a file of dir.
func Probe(ctx context.Context, dir string, cache debian.Cache) (Choice, error) {
	switch chosen := machine.Accel(os.Getenv(Variable)); chosen {
	case machine.KVM, machine.TCG:
		return Choice{Accel: chosen, Why: Variable + " says so"}, nil
	case "":
	default:
		return Choice{}, fmt.Errorf("%s is %q, want kvm or tcg", Variable, chosen)
	}
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return Choice{Accel: machine.TCG, Why: err.Error()}, nil //nolint:nilerr // that is the answer
	}
	_ = f.Close() // only to see whether it opens
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Choice{}, err
	}
	memory := filepath.Join(dir, "accel.json")
	known, err := remembered(memory)
	if err != nil {
		return Choice{}, err
	}
	if known.Boot == strings.TrimSpace(string(boot)) {
		return known, nil
	}
	found := Choice{Accel: machine.KVM, Why: "the minimal guest boots under KVM", Boot: strings.TrimSpace(string(boot))}
	if err := try(ctx, cache); err != nil {
		if ctx.Err() != nil {
			return Choice{}, err
		}
		first, _, _ := strings.Cut(err.Error(), "\n")
		found.Accel, found.Why = machine.TCG, "the minimal guest does not boot under KVM: "+first
	}
	b, err := json.Marshal(found)
	if err != nil {
		return Choice{}, err
	}
	return found, errors.Join(os.MkdirAll(dir, 0o755), atomicfile.Write(memory, b, 0o644))
}

// remembered is the last choice, empty where there is none.
func remembered(path string) (Choice, error) {
	var c Choice
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if json.Unmarshal(b, &c) != nil {
		return Choice{}, nil //nolint:nilerr // another version's
	}
	return c, nil
}

// try boots under KVM.
func try(ctx context.Context, cache debian.Cache) (err error) {
	dir, err := os.MkdirTemp("", "vm-kvm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	guest, err := minimal.Build(ctx, cache, dir, minimal.Options{Arch: machine.Arch(runtime.GOARCH)})
	if err != nil {
		return err
	}
	spec := guest.Spec("kvm-probe")
	spec.Accel = machine.KVM
	m, err := machine.Create(ctx, filepath.Join(dir, "machine"), spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Stop()) }() //nolint:contextcheck // the end comes after the context's
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer in %v", patience))
	defer cancel()
	if err := m.Start(ctx); err != nil {
		return err
	}
	_, err = m.Ready(ctx)
	return err
}
