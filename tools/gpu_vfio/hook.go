package gpuvfio

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
)

// hookScript is a hook of libvirt for QEMU guests (https://libvirt.org/hooks.html):
// its arguments are the guest, the operation and the sub-operation. A failing
// prepare keeps the guest from starting. A hook must not call libvirt.
const hookScript = `#!/bin/sh
# A libvirt hook: hands a graphics card to the virtual machine below when it
# starts, and gives it back when it has ended. Made by: %s
#
# On NixOS:
#   virtualisation.libvirtd.hooks.qemu.gpu-vfio =
#     pkgs.writeShellScript "gpu-vfio-hook" (builtins.readFile ./gpu-vfio-hook.sh);
# Elsewhere: /etc/libvirt/hooks/qemu.d/gpu-vfio, mode 0755.
# Give the machine's <hostdev> elements managed='no'.
guest=%s
card=%s

[ "$1" = "$guest" ] || exit 0
PATH=/run/current-system/sw/bin:$PATH
case "$2/$3" in
  prepare/begin) exec gpu-vfio detach --yes --gpu "$card" ;;
  release/end) exec gpu-vfio attach --yes --gpu "$card" ;;
esac
`

func (t *tool) hook(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	address, err := cardOf(c)
	if err != nil {
		return err
	}
	guest := c.String("vm")
	if guest == "" {
		return clikit.Usagef("which virtual machine? --vm NAME")
	}
	if strings.ContainsAny(guest, "\n\r") {
		return clikit.Usagef("--vm %q: a name has one line", guest)
	}
	system, err := t.open(t.env, 0)
	if err != nil {
		return err
	}
	machine, err := system.Machine()
	if err != nil {
		return err
	}
	gpu, err := machine.Choose(address)
	if err != nil {
		return clikit.WithHint(err, "name the card: --gpu ADDRESS")
	}
	at := gpu.Display.Address.String()
	call := fmt.Sprintf("gpu-vfio hook --vm %s --gpu %s", run.Quote(guest), at)
	if err := t.env.UI.Printf(hookScript, call, run.Quote(guest), at); err != nil {
		return err
	}
	for _, r := range machine.Refusals(gpu) {
		t.env.UI.Warnf("as things are, detach would refuse: %s", r.Reason)
	}
	return nil
}
