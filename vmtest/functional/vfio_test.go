package functional

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"nixos-go/pkg/pci"
	"nixos-go/vmtest"
	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/guest/host"
	"nixos-go/vmtest/machine"
)

// The PCI devices of the machine:
//
//	00:10.0  VGA, the boot display
//	rp1      a port of its own: 01:00.0 a display, 01:00.1 a network card, the two functions of one graphics card
//	pb       a bridge to conventional PCI, behind which nothing is apart: a display and a network card share a group
func graphics(_ *host.Host, s *machine.Spec) {
	s.Type = "q35"
	s.Devices = []string{
		"-device", "intel-iommu",
		"-device", "VGA,id=boot,addr=10.0",
		"-device", "pcie-root-port,id=rp1,chassis=1,addr=11.0",
		"-device", "bochs-display,bus=rp1,addr=00.0,multifunction=on",
		"-device", "e1000e,bus=rp1,addr=00.1,romfile=",
		"-device", "pcie-pci-bridge,id=pb,addr=12.0",
		"-device", "secondary-vga,bus=pb,addr=01.0",
		"-device", "e1000,bus=pb,addr=02.0,romfile=",
	}
}

// driverOf is the driver of a PCI function, empty for none.
func (b *box) driverOf(address string) string {
	b.t.Helper()
	return strings.TrimSpace(b.sh(`if [ -e "/sys/bus/pci/devices/$1/driver" ]; then basename "$(readlink "/sys/bus/pci/devices/$1/driver")"; fi`, address))
}

// find is the address of the only function of a vendor and device behind a
// bridge: "" is one that is behind none.
func (b *box) find(vendor, device, like string) string {
	b.t.Helper()
	return strings.TrimSpace(b.sh(`for d in /sys/bus/pci/devices/*; do
		if [ "$(cat $d/vendor)" = "$1" ] && [ "$(cat $d/device)" = "$2" ]; then
			case "$(readlink -f $d)" in $3) basename $d;; esac
		fi
	done`, vendor, device, like))
}

func TestVM_GPU(t *testing.T) {
	t.Parallel()
	b := newBox(t, graphics)
	b.boot("intel_iommu=on")
	b.sh("modprobe e1000e")
	const stdvga = "0x1111"
	boot := b.find("0x1234", stdvga, "*/pci0000:00/0000:00:10.0")
	card := b.find("0x1234", stdvga, "*/0000:00:11.0/*")
	nic := b.find("0x8086", "0x10d3", "*/0000:00:11.0/*")
	shared := b.find("0x1234", stdvga, "*/0000:00:12.0/*")
	if boot == "" || card == "" || nic == "" || shared == "" {
		t.Fatalf("boot display %q, card %q with %q, shared card %q; want all four:\n%s", boot, card, nic, shared, b.sh("lspci -nn -t -v"))
	}
	if got := b.driverOf(nic); got != "e1000e" {
		t.Fatalf("driver of %s before all = %q, want e1000e", nic, got)
	}
	links := b.sh("ls /sys/bus/pci/devices/" + nic + "/net")

	b.sh(`gpu-vfio detach --yes --gpu "$1"`, card)
	for _, function := range []string{card, nic} {
		if got := b.driverOf(function); got != "vfio-pci" {
			t.Errorf("driver of %s after detach = %q, want vfio-pci", function, got)
		}
	}
	group := strings.TrimSpace(b.sh(`basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")"`, card))
	if !b.exists("/dev/vfio/" + group) {
		t.Errorf("/dev/vfio/%s is not there for a virtual machine to open", group)
	}
	t.Logf("gpu-vfio status: %s", b.sh("gpu-vfio status"))

	b.sh(`gpu-vfio attach --yes --gpu "$1"`, card)
	if got := b.driverOf(nic); got != "e1000e" {
		t.Errorf("driver of %s after attach = %q, want e1000e", nic, got)
	}
	if got := b.driverOf(card); got != "" {
		t.Errorf("driver of %s after attach = %q, want none, as before", card, got)
	}
	if got := b.sh("ls /sys/bus/pci/devices/" + nic + "/net"); got != links {
		t.Errorf("network interfaces of %s after attach = %q, want %q", nic, got, links)
	}
	if got := b.sh("cat /sys/bus/pci/devices/" + nic + "/driver_override"); strings.TrimSpace(got) != "(null)" {
		t.Errorf("driver_override of %s after attach = %q, want none", nic, got)
	}

	b.refused(boot, pci.BootDisplay)
	b.refused(shared, pci.SharedGroup)
	b.powerOff()
}

// refused checks that a card stays with the host, for a reason.
func (b *box) refused(card string, code pci.RefusalCode) {
	b.t.Helper()
	before := b.driverOf(card)
	out, err := b.Run(vmtest.Context(b.t), "gpu-vfio", "detach", "--yes", "--json", "--gpu", card)
	if exit, ok := errors.AsType[*agent.ExitError](err); !ok || exit.Result.Status != 1 {
		b.t.Errorf("detach of %s = %v, want exit status 1", card, err)
	}
	var result struct {
		Refusals []pci.Refusal `json:"refusals"`
	}
	if err := json.Unmarshal(out.Stdout, &result); err != nil {
		b.t.Errorf("detach of %s: %v in %q; %s", card, err, out.Stdout, out.Stderr)
	}
	found := false
	for _, r := range result.Refusals {
		found = found || r.Code == code
	}
	if !found {
		b.t.Errorf("detach of %s is refused for %+v, want %s", card, result.Refusals, code)
	}
	if after := b.driverOf(card); after != before {
		b.t.Errorf("driver of %s after a refusal = %q, want %q", card, after, before)
	}
}
