package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"nixos-go/pkg/clikit"
	"nixos-go/vmtest/guest/minimal"
	"nixos-go/vmtest/machine"
)

// guest is a kind of machine that can be made.
type guest struct {
	name, about string
	// build makes what it boots from in a folder of its own, and describes it.
	build func(ctx context.Context, p place, dir string) (machine.Spec, error)
}

// guests is the table of them; the first is the default.
func guests() []guest {
	return []guest{
		{"minimal", "a kernel and a shell, up in seconds", buildMinimal(machine.AMD64)},
		{"minimal-arm64", "the same for aarch64, always emulated on a PC", buildMinimal(machine.ARM64)},
		{"full", "the machine of the functional tests: LUKS, systemd in the initrd, the reset; up in a minute", buildFull},
	}
}

// disk of the minimal guest, in bytes: room for a btrfs with some snapshots.
const minimalDisk = 1 << 30

func buildMinimal(arch machine.Arch) func(context.Context, place, string) (machine.Spec, error) {
	return func(ctx context.Context, p place, dir string) (machine.Spec, error) {
		g, err := minimal.Build(ctx, p.packages(), dir, minimal.Options{Arch: arch})
		if err != nil {
			return machine.Spec{}, err
		}
		spec := g.Spec("minimal")
		spec.Cmdline = append(spec.Cmdline, minimal.ConsoleShell)
		spec.Disks = []machine.Disk{{ID: "data", Size: minimalDisk}}
		spec.Network = &machine.Network{Isolated: true}
		spec.Reboots = true
		return spec, nil
	}
}

// guest finds one by its name.
func (t *tool) guest(name string) (guest, error) {
	var names []string
	for _, g := range t.guests {
		if g.name == name {
			return g, nil
		}
		names = append(names, g.name)
	}
	return guest{}, clikit.Usagef("no guest %q: there are %s", name, strings.Join(names, ", "))
}

// build builds a guest.
func (g guest) make(ctx context.Context, p place) (machine.Spec, error) {
	dir := filepath.Join(p.state, "guests", g.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return machine.Spec{}, err
	}
	return g.build(ctx, p, dir)
}
