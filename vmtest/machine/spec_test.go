package machine

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// after is the arguments that follow a flag, each time it is there.
func after(args []string, flag string) []string {
	var values []string
	for i, arg := range args[:len(args)-1] {
		if arg == flag {
			values = append(values, args[i+1])
		}
	}
	return values
}

func TestArguments(t *testing.T) {
	spec := Spec{
		Name: "a,b", Arch: AMD64, Type: "q35,smm=on",
		Kernel: "/k", Initrd: "/i", Cmdline: []string{"quiet", "x=\"a b\""},
		Firmware: &Firmware{Code: "/with,comma.fd", Vars: "/vars", SecureFlash: true},
		Disks: []Disk{
			{ID: "root", Base: "/base.raw", Boot: 1},
			{ID: "cd", Size: 1, Bus: NVMe, ReadOnly: true},
			{ID: "tools", Base: "/with,comma.ext4", ReadOnly: true},
		},
		TPM: true, Credentials: map[string]string{"b": "secret", "a": "secret"},
		Network: &Network{Forward: []int{22}, Isolated: true}, Devices: []string{"-device", "intel-iommu"},
	}.withDefaults()
	if err := spec.check(); err != nil {
		t.Fatal(err)
	}
	args := spec.arguments(map[int]int{22: 4022}, true)
	for flag, want := range map[string][]string{
		"-name":    {"a,,b"},
		"-machine": {"q35,smm=on,pflash0=firmware-code,pflash1=firmware-vars"},
		"-accel":   {"tcg,thread=multi"}, "-cpu": {"Westmere"}, "-smp": {"2"}, "-m": {"512M"},
		"-kernel": {"/k"}, "-initrd": {"/i"}, "-append": {"quiet x=\"a b\""},
		"-global": {"driver=cfi.pflash01,property=secure,value=on"},
		"-blockdev": {
			"node-name=state,driver=qcow2,file.driver=file,file.filename=state.qcow2",
			"node-name=firmware-code,driver=raw,read-only=on,file.driver=file,file.filename=/with,,comma.fd",
			"node-name=firmware-vars,driver=qcow2,file.driver=file,file.filename=vars.qcow2",
			"node-name=disk-root,driver=qcow2,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=disk-root.qcow2",
			"node-name=disk-cd,driver=qcow2,read-only=on,file.driver=file,file.filename=disk-cd.qcow2",
			"node-name=disk-tools,driver=raw,read-only=on,file.driver=file,file.filename=/with,,comma.ext4",
		},
		"-fw_cfg": {
			"name=opt/io.systemd.credentials/a,file=credential-a",
			"name=opt/io.systemd.credentials/b,file=credential-b",
		},
		"-netdev": {"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:4022-:22"},
		"-tpmdev": {"emulator,id=tpm0,chardev=tpm"},
	} {
		if diff := cmp.Diff(want, after(args, flag)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", flag, diff)
		}
	}
	devices := after(args, "-device")
	for _, want := range []string{
		"virtio-blk-pci,drive=disk-root,serial=root,bootindex=0", "nvme,drive=disk-cd,serial=cd",
		"tpm-crb,tpmdev=tpm0", "intel-iommu", "virtio-net-pci,netdev=net0,romfile=",
	} {
		if !slices.Contains(devices, want) {
			t.Errorf("no -device %s in %q", want, devices)
		}
	}
	for _, flag := range []string{"-no-reboot", "-S"} {
		if !slices.Contains(args, flag) {
			t.Errorf("no %s", flag)
		}
	}
	if strings.Contains(strings.Join(args, " "), "secret") {
		t.Error("a credential is on the command line")
	}
	arm := Spec{Arch: ARM64, Kernel: "/k", TPM: true, Reboots: true}.withDefaults()
	args = arm.arguments(nil, false)
	if got := after(args, "-machine"); !slices.Equal(got, []string{"virt"}) || slices.Contains(args, "-no-reboot") || slices.Contains(args, "-S") {
		t.Errorf("arm64: %q", args)
	}
	if got := arm.qemu(); got[0] != "qemu-system-aarch64" {
		t.Errorf("arm64: qemu = %q", got)
	}
	if got := (Spec{Accel: KVM}.withDefaults()).CPU; got != "host" {
		t.Errorf("CPU under KVM = %s", got)
	}
}

func TestImageCommands(t *testing.T) {
	spec := Spec{
		Firmware: &Firmware{Code: "/c", Vars: "/v.fd"}, Programs: Programs{Image: []string{"ld.so", "/x/qemu-img"}},
		Disks: []Disk{{ID: "a", Base: "/base.qcow2", BaseFormat: "qcow2"}, {ID: "b", Base: "/b.raw", Size: 7}, {ID: "c", Size: 9}, {ID: "d", Base: "/d.raw", ReadOnly: true}},
	}
	var got []string
	for _, c := range spec.imageCommands() {
		got = append(got, c.String())
	}
	want := []string{
		"ld.so /x/qemu-img create -q -f qcow2 state.qcow2 1048576",
		"ld.so /x/qemu-img convert -f raw -O qcow2 /v.fd vars.qcow2",
		"ld.so /x/qemu-img create -q -f qcow2 -b /base.qcow2 -F qcow2 disk-a.qcow2",
		"ld.so /x/qemu-img create -q -f qcow2 -b /b.raw -F raw disk-b.qcow2 7",
		"ld.so /x/qemu-img create -q -f qcow2 disk-c.qcow2 9",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("imageCommands (-want +got):\n%s", diff)
	}
}

func TestCheck(t *testing.T) {
	for want, spec := range map[string]Spec{
		"unknown architecture":        {Arch: "mips"},
		"unknown accelerator":         {Accel: "hvf"},
		"without a kernel":            {Initrd: "/i"},
		"neither kernel nor firmware": {Arch: ARM64},
		"used twice":                  {Disks: []Disk{{ID: "a", Size: 1}, {ID: "a", Size: 1}}},
		"short, lower-case and plain": {Disks: []Disk{{ID: "A,b", Size: 1}}},
		"neither base nor size":       {Disks: []Disk{{ID: "a"}}},
		"has its own size":            {Disks: []Disk{{ID: "a", Base: "/b", Size: 1, ReadOnly: true}}},
		"unknown bus":                 {Disks: []Disk{{ID: "a", Size: 1, Bus: "ide"}}},
		"credential name":             {Credentials: map[string]string{"a/b": ""}},
	} {
		if err := spec.withDefaults().check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("check(%+v) = %v, want %q", spec, err, want)
		}
	}
	if err := (Spec{}).withDefaults().check(); err != nil {
		t.Errorf("check of the defaults = %v", err)
	}
}
