package machine

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"nixos-go/vmtest/agent"
)

// The files of a machine's folder. QEMU runs inside it, so that no name is too
// long for a socket (unix(7): 108 bytes) and the command line can be moved
// along with the folder.
const (
	specFile     = "machine.json"
	commandFile  = "qemu.sh" // the command line that repeats the boot
	logFile      = "qemu.log"
	pidFile      = "qemu.pid"
	portsFile    = "ports.json"
	consoleLog   = "console.log"
	consoleSock  = "console.sock"
	monitorSock  = "qmp.sock"
	agentSock    = "agent.sock"
	tpmSock      = "tpm.sock"
	tpmDir       = "tpm"
	tpmLog       = "tpm.log"
	varsFile     = "vars.qcow2"
	stateFile    = "state.qcow2" // where the memory goes in a snapshot
	manifestFile = "checkpoint.json"
)

// The names of block nodes.
const (
	varsNode  = "firmware-vars"
	codeNode  = "firmware-code"
	stateNode = "state"
)

func diskFile(id string) string        { return "disk-" + id + ".qcow2" }
func diskNode(id string) string        { return "disk-" + id }
func credentialFile(n string) string   { return "credential-" + n }
func escape(value string) string       { return strings.ReplaceAll(value, ",", ",,") }
func node(name, options string) string { return "node-name=" + name + "," + options }

// arguments are QEMU's for a spec that has its defaults. ports are the host's
// for the guest's; paused waits for an order to start. A pure function.
func (s Spec) arguments(ports map[int]int, paused bool) []string {
	args := []string{
		"-name", escape(s.Name), "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", s.machineOption(),
	}
	if s.Accel == TCG {
		args = append(args, "-accel", "tcg,thread=multi")
	} else {
		args = append(args, "-accel", "kvm")
	}
	args = append(args,
		"-cpu", s.CPU, "-smp", strconv.Itoa(s.CPUs), "-m", strconv.Itoa(s.MemoryMiB)+"M",
		"-chardev", "socket,id=monitor,path="+monitorSock+",server=on,wait=off", "-mon", "chardev=monitor,mode=control",
		// The log is complete whether or not somebody listens.
		"-chardev", "socket,id=console,path="+consoleSock+",server=on,wait=off,logfile="+consoleLog+",logappend=on",
		"-serial", "chardev:console",
		"-chardev", "socket,id=agent,path="+agentSock+",server=on,wait=off",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name="+agent.PortName,
		"-device", "virtio-rng-pci",
		"-blockdev", node(stateNode, "driver=qcow2,file.driver=file,file.filename="+stateFile))
	args = append(args, s.bootArguments()...)
	for _, d := range s.Disks {
		args = append(args, d.arguments()...)
	}
	if s.TPM {
		device := map[Arch]string{AMD64: "tpm-crb", ARM64: "tpm-tis-device"}[s.Arch]
		args = append(args, "-chardev", "socket,id=tpm,path="+tpmSock,
			"-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", device+",tpmdev=tpm0")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Credentials)) {
		args = append(args, "-fw_cfg", "name=opt/io.systemd.credentials/"+name+",file="+credentialFile(name))
	}
	args = append(args, s.networkArguments(ports)...)
	args = append(args, s.Devices...)
	if !s.Reboots {
		args = append(args, "-no-reboot")
	}
	if paused {
		args = append(args, "-S")
	}
	return args
}

func (s Spec) machineOption() string {
	option := s.Type
	if s.Firmware != nil {
		option += ",pflash0=" + codeNode + ",pflash1=" + varsNode
	}
	return option
}

func (s Spec) bootArguments() []string {
	var args []string
	if s.Kernel != "" {
		args = append(args, "-kernel", s.Kernel)
		if s.Initrd != "" {
			args = append(args, "-initrd", s.Initrd)
		}
		if len(s.Cmdline) > 0 {
			args = append(args, "-append", strings.Join(s.Cmdline, " "))
		}
	}
	if f := s.Firmware; f != nil {
		args = append(args,
			"-blockdev", node(codeNode, "driver=raw,read-only=on,file.driver=file,file.filename="+escape(f.Code)),
			"-blockdev", node(varsNode, "driver=qcow2,file.driver=file,file.filename="+varsFile))
		if f.SecureFlash {
			args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on")
		}
	}
	return args
}

func (d Disk) arguments() []string {
	// A flush to the host's disk means nothing to a test.
	format, options, file := "qcow2", "discard=unmap,cache.no-flush=on", diskFile(d.ID)
	if d.ReadOnly {
		options = "read-only=on"
	}
	if d.shown() {
		format, file = d.baseFormat(), escape(d.Base)
	}
	block := node(diskNode(d.ID), "driver="+format+","+options+",file.driver=file,file.filename="+file)
	device := "virtio-blk-pci"
	if d.Bus == NVMe {
		device = "nvme"
	}
	device += ",drive=" + diskNode(d.ID) + ",serial=" + d.ID
	if d.Boot > 0 {
		device += ",bootindex=" + strconv.Itoa(d.Boot-1)
	}
	return []string{"-blockdev", block, "-device", device}
}

func (s Spec) networkArguments(ports map[int]int) []string {
	if s.Network == nil {
		return nil
	}
	netdev := []string{"user", "id=net0"}
	if s.Network.Isolated {
		netdev = append(netdev, "restrict=on")
	}
	for _, port := range s.Network.Forward {
		netdev = append(netdev, fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:%d", ports[port], port))
	}
	return []string{"-netdev", strings.Join(netdev, ","), "-device", "virtio-net-pci,netdev=net0,romfile="}
}

// qemu is the program for the spec.
func (s Spec) qemu() []string {
	if len(s.Programs.QEMU) > 0 {
		return s.Programs.QEMU
	}
	return []string{map[Arch]string{AMD64: "qemu-system-x86_64", ARM64: "qemu-system-aarch64"}[s.Arch]}
}

func (p Programs) image() []string {
	if len(p.Image) > 0 {
		return p.Image
	}
	return []string{"qemu-img"}
}

func (p Programs) tpm() []string {
	if len(p.TPM) > 0 {
		return p.TPM
	}
	return []string{"swtpm"}
}
