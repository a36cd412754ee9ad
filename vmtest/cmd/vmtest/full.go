package main

import (
	"context"
	"encoding/json"
	"path/filepath"

	"nixos-go/vmtest"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/host"
	"nixos-go/vmtest/machine"
)

// buildFull makes the machine of the functional tests: an encrypted disk, which
// a credential of systemd's opens, and the reset in the initrd.
func buildFull(ctx context.Context, p place, dir string) (machine.Spec, error) {
	if err := full.Check(); err != nil {
		return machine.Spec{}, err
	}
	root, err := vmtest.Root()
	if err != nil {
		return machine.Spec{}, err
	}
	h, err := host.Build(ctx, root, p.cache, dir)
	if err != nil {
		return machine.Spec{}, err
	}
	boot := h.Boot()
	if boot.Plan, err = json.Marshal(h.Plan); err != nil {
		return machine.Spec{}, err
	}
	initrd := filepath.Join(dir, "full.cpio")
	if err := h.Guest.WriteInitrd(boot, initrd); err != nil {
		return machine.Spec{}, err
	}
	spec := h.Spec("full", initrd)
	spec.Cmdline, spec.Reboots = full.Cmdline(), true
	spec.Network = &machine.Network{Forward: []int{sshPort}, Isolated: true}
	return spec, nil
}
