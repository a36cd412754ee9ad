// Package machine runs virtual machines under QEMU.
//
// A machine is a [Spec], which is data, and a folder of its own, which holds
// everything it writes: disks (overlays, so that what they are based on is never
// written), firmware variables, the state of its TPM, sockets and logs. So any
// number of machines run at the same time, and what is in the folder is the
// whole machine: a checkpoint is a copy of it. [Machine.Start] and
// [Machine.PowerOff] are one boot; a machine can be started again.
//
// QEMU and the software TPM end with the process that started them, however
// that ends, unless they were started detached.
package machine

import (
	"fmt"
	"regexp"
	"runtime"
)

// Arch is an architecture by Go's name.
type Arch string

// The architectures.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// Accel is how the guest's instructions are executed.
type Accel string

// The ways. TCG, QEMU's translation, works everywhere and is some ten times as
// slow as KVM.
const (
	TCG Accel = "tcg"
	KVM Accel = "kvm"
)

// Programs are the programs that machines need, each with what has to stand
// before the arguments. An empty one is looked up in PATH by its usual name. A
// QEMU that was unpacked into a folder is, for example,
//
//	{"/x/ld-linux-x86-64.so.2", "--library-path", "/x/lib", "/x/bin/qemu-system-x86_64", "-L", "/x/share/qemu"}
type Programs struct {
	QEMU  []string `json:"qemu,omitempty"`
	Image []string `json:"image,omitempty"` // qemu-img
	TPM   []string `json:"tpm,omitempty"`   // swtpm
}

// Spec is a machine. The zero value of a field is a good default.
type Spec struct {
	// Name appears in messages.
	Name string `json:"name"`
	// Arch is the host's by default.
	Arch Arch `json:"arch,omitempty"`
	// Programs are what it runs with.
	Programs Programs `json:"programs,omitzero"`
	// Accel is TCG by default: whether KVM works is not told by looking.
	Accel Accel `json:"accel,omitempty"`
	// Type is QEMU's -machine without accelerator and firmware: "q35" or "virt"
	// by default; "q35,smm=on" where the firmware checks signatures.
	Type string `json:"type,omitempty"`
	// CPU is QEMU's -cpu.
	CPU string `json:"cpu,omitempty"`
	// CPUs is how many, 2 by default.
	CPUs int `json:"cpus,omitempty"`
	// MemoryMiB is the RAM, 512 by default.
	MemoryMiB int `json:"memoryMiB,omitempty"`
	// Kernel, Initrd and Cmdline boot a kernel without firmware's help. The
	// words of Cmdline are joined by spaces.
	Kernel  string   `json:"kernel,omitempty"`
	Initrd  string   `json:"initrd,omitempty"`
	Cmdline []string `json:"cmdline,omitempty"`
	// Firmware is what boots otherwise; nil is QEMU's own (SeaBIOS on amd64).
	Firmware *Firmware `json:"firmware,omitempty"`
	// Disks are the disks, in the order in which the guest finds them.
	Disks []Disk `json:"disks,omitempty"`
	// TPM gives it a TPM 2.0.
	TPM bool `json:"tpm,omitempty"`
	// Credentials are systemd's system credentials, by name. They reach the
	// guest as files of fw_cfg (systemd.system-credentials(7)), not by QEMU's
	// command line; the guest needs the module qemu_fw_cfg early.
	Credentials map[string]string `json:"credentials,omitempty"`
	// Network gives it a network interface; nil is none.
	Network *Network `json:"network,omitempty"`
	// Devices are further arguments of QEMU: "-device", "intel-iommu", …
	Devices []string `json:"devices,omitempty"`
	// Reboots lets the guest reboot. Without it a reboot ends QEMU, as a kernel
	// panic does where the kernel has panic=-1.
	Reboots bool `json:"reboots,omitempty"`
}

// Firmware is UEFI firmware in two flash chips.
type Firmware struct {
	// Code is the program, never written.
	Code string `json:"code"`
	// Vars is the template of the variables; the machine has its own copy.
	Vars string `json:"vars"`
	// SecureFlash keeps everyone but the firmware itself from writing the
	// variables, which needs Type "q35,smm=on".
	SecureFlash bool `json:"secureFlash,omitempty"`
}

// Bus is how a disk is attached.
type Bus string

// The buses.
const (
	Virtio Bus = "virtio" // /dev/vda, …
	NVMe   Bus = "nvme"   // /dev/nvme0n1, …
)

// Disk is one disk.
type Disk struct {
	// ID names its file in the folder and is the serial number that the guest
	// sees (/dev/disk/by-id/virtio-ID): lower-case letters, digits and dashes.
	ID string `json:"id"`
	// Base is the image below the machine's own overlay, by its absolute path;
	// it must not change as long as an overlay needs it. Empty: an empty disk.
	Base string `json:"base,omitempty"`
	// BaseFormat is "raw" (the default) or "qcow2".
	BaseFormat string `json:"baseFormat,omitempty"`
	// Size in bytes; 0 is the base's.
	Size int64 `json:"size,omitempty"`
	// Bus is virtio by default.
	Bus Bus `json:"bus,omitempty"`
	// Boot is its place in the firmware's boot order, from 1; 0 is none.
	Boot int `json:"boot,omitempty"`
	// ReadOnly shows the guest a disk that cannot be written. With a base, that is
	// the very image below, and nothing of it is in the machine's folder.
	ReadOnly bool `json:"readOnly,omitempty"`
}

// shown tells whether the guest sees the base itself, without an overlay.
func (d Disk) shown() bool { return d.ReadOnly && d.Base != "" }

// baseFormat is the format of the image below.
func (d Disk) baseFormat() string {
	if d.BaseFormat == "" {
		return "raw"
	}
	return d.BaseFormat
}

// Network is a network behind QEMU's own router (slirp).
type Network struct {
	// Forward are the guest's TCP ports that the host can reach, at ports of
	// 127.0.0.1 that [Machine.Port] tells.
	Forward []int `json:"forward,omitempty"`
	// Isolated keeps the guest from reaching anything beyond the host.
	Isolated bool `json:"isolated,omitempty"`
}

// withDefaults fills what was left to them.
func (s Spec) withDefaults() Spec {
	if s.Name == "" {
		s.Name = "vm"
	}
	if s.Arch == "" {
		s.Arch = Arch(runtime.GOARCH)
	}
	if s.Accel == "" {
		s.Accel = TCG
	}
	if s.Type == "" {
		s.Type = map[Arch]string{AMD64: "q35", ARM64: "virt"}[s.Arch]
	}
	if s.CPU == "" {
		s.CPU = defaultCPU(s.Arch, s.Accel)
	}
	if s.CPUs == 0 {
		s.CPUs = 2
	}
	if s.MemoryMiB == 0 {
		s.MemoryMiB = 512
	}
	return s
}

// defaultCPU avoids "max", under which full guests have locked up.
func defaultCPU(arch Arch, accel Accel) string {
	switch {
	case accel == KVM:
		return "host"
	case arch == ARM64:
		return "cortex-a57"
	default:
		return "Westmere"
	}
}

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,18}$`) // virtio-blk has 20 bytes for the serial number

// check says what is wrong with a spec that has its defaults.
func (s Spec) check() error {
	if s.Arch != AMD64 && s.Arch != ARM64 {
		return fmt.Errorf("machine %s: unknown architecture %q", s.Name, s.Arch)
	}
	if s.Accel != TCG && s.Accel != KVM {
		return fmt.Errorf("machine %s: unknown accelerator %q", s.Name, s.Accel)
	}
	if s.Kernel == "" && (s.Initrd != "" || len(s.Cmdline) > 0) {
		return fmt.Errorf("machine %s: an initrd or a command line without a kernel", s.Name)
	}
	if s.Kernel == "" && s.Firmware == nil && s.Arch == ARM64 {
		return fmt.Errorf("machine %s: neither kernel nor firmware", s.Name)
	}
	seen := map[string]bool{}
	for _, d := range s.Disks {
		switch {
		case !idPattern.MatchString(d.ID) || seen[d.ID]:
			return fmt.Errorf("machine %s: disk id %q is used twice, or is not short, lower-case and plain", s.Name, d.ID)
		case d.Base == "" && d.Size <= 0:
			return fmt.Errorf("machine %s: disk %s has neither base nor size", s.Name, d.ID)
		case d.shown() && d.Size != 0:
			return fmt.Errorf("machine %s: disk %s is its base, which has its own size", s.Name, d.ID)
		case d.Bus != "" && d.Bus != Virtio && d.Bus != NVMe:
			return fmt.Errorf("machine %s: disk %s: unknown bus %q", s.Name, d.ID, d.Bus)
		}
		seen[d.ID] = true
	}
	for name := range s.Credentials {
		if !regexp.MustCompile(`^[A-Za-z0-9._-]+$`).MatchString(name) {
			return fmt.Errorf("machine %s: credential name %q", s.Name, name)
		}
	}
	return nil
}
