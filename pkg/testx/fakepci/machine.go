// Package fakepci makes folders that look like the /sys and /proc of a machine
// with graphics cards, and a kernel that reacts to what is written there:
// drivers bind and let go, modules load and unload, services stop and start.
//
// Everything the kernel knows is in the folder, so that a process which is
// killed half-way leaves what a real one would leave, and the next process
// ([Open]) goes on from there. Tests only.
package fakepci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes a machine to be made.
type Machine struct {
	CPU         string    `json:"cpu"`
	CommandLine string    `json:"commandLine"`
	BootID      string    `json:"bootId"`
	Devices     []Device  `json:"devices"`
	Modules     []Module  `json:"modules"`
	Processes   []Process `json:"processes"`
	// Services are the units that run.
	Services []string `json:"services"`
}

// Device is one PCI function.
type Device struct {
	Address string `json:"address"`
	Class   string `json:"class"` // six digits
	ID      string `json:"id"`    // vendor:device
	// Native is the driver that the kernel chooses; Driver is the one it is
	// bound to at first, "" for Native, "-" for none.
	Native string `json:"native"`
	Driver string `json:"driver"`
	// Group is the IOMMU group, 0 for none.
	Group   int  `json:"group"`
	BootVGA bool `json:"bootVga"`
	// Nodes are the folders that its native driver makes below the device:
	// "drm/card1", "drm/card1/card1-DP-1", "sound/card1/controlC1", "i2c-4".
	Nodes []string `json:"nodes"`
	// Lit and Dark are connectors with a display that shows a picture, or
	// that is plugged in and dark.
	Lit  []string `json:"lit"`
	Dark []string `json:"dark"`
	// Minor and Model are what NVIDIA's driver tells; Minor counts from 0.
	Minor int    `json:"minor"`
	Model string `json:"model"`
}

// Module is a kernel module.
type Module struct {
	Name string `json:"name"`
	// Needs are the modules below it.
	Needs []string `json:"needs"`
	// Driver is the PCI driver in it.
	Driver string `json:"driver"`
	// Loaded tells whether it is there at first.
	Loaded bool `json:"loaded"`
	// Stuck makes its removal fail, as an open console does.
	Stuck bool `json:"stuck"`
}

// Process is a process with open files.
type Process struct {
	PID    int      `json:"pid"`
	Name   string   `json:"name"`
	Cgroup string   `json:"cgroup"`
	Open   []string `json:"open"`
	Mapped []string `json:"mapped"`
	// Service ends the process when the service of that name stops.
	Service string `json:"service"`
}

// Kernel is the other side of the folder.
type Kernel struct {
	Dir     string
	machine Machine
}

// specification is the file that holds the machine's description.
const specification = "machine.json"

// New makes the folder of a machine.
func New(dir string, m Machine) (*Kernel, error) {
	k := &Kernel{Dir: dir, machine: m}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	k.write(specification, string(text))
	k.write("proc/cmdline", m.CommandLine+"\n")
	k.write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: "+m.CPU+"\n")
	k.write("proc/sys/kernel/random/boot_id", m.BootID+"\n")
	k.write("sys/bus/pci/drivers_probe", "")
	for _, unit := range m.Services {
		k.write("services/"+unit, "active")
	}
	for _, p := range m.Processes {
		k.process(p)
	}
	for _, d := range m.Devices {
		k.device(d)
	}
	for _, module := range m.Modules {
		if module.Loaded {
			k.load(module)
		}
	}
	for _, d := range m.Devices {
		switch d.Driver {
		case "-":
		case "":
			k.bind(d, d.Native)
		default:
			k.bind(d, d.Driver)
		}
	}
	return k, nil
}

// Open is the kernel of a folder that New made, in this or another process.
func Open(dir string) (*Kernel, error) {
	text, err := os.ReadFile(filepath.Join(dir, specification))
	if err != nil {
		return nil, err
	}
	k := &Kernel{Dir: dir}
	return k, json.Unmarshal(text, &k.machine)
}

func (k *Kernel) device(d Device) {
	folder := "sys/devices/pci0000:00/" + d.Address
	vendor, device, _ := strings.Cut(d.ID, ":")
	k.write(folder+"/class", "0x"+d.Class+"\n")
	k.write(folder+"/vendor", "0x"+vendor+"\n")
	k.write(folder+"/device", "0x"+device+"\n")
	k.write(folder+"/modalias", k.modalias(d)+"\n")
	k.write(folder+"/driver_override", "(null)\n")
	if strings.HasPrefix(d.Class, "0300") {
		k.write(folder+"/boot_vga", map[bool]string{true: "1\n", false: "0\n"}[d.BootVGA])
	}
	k.link("../../../devices/pci0000:00/"+d.Address, "sys/bus/pci/devices/"+d.Address)
	if d.Group != 0 {
		group := fmt.Sprintf("sys/kernel/iommu_groups/%d", d.Group)
		k.link("../../../../devices/pci0000:00/"+d.Address, group+"/devices/"+d.Address)
		k.link(fmt.Sprintf("../../../kernel/iommu_groups/%d", d.Group), folder+"/iommu_group")
	}
}

func (k *Kernel) modalias(d Device) string {
	vendor, device, _ := strings.Cut(strings.ToUpper(d.ID), ":")
	return fmt.Sprintf("pci:v0000%sd0000%s", vendor, device)
}

func (k *Kernel) process(p Process) {
	folder := fmt.Sprintf("proc/%d", p.PID)
	for i, name := range p.Open {
		k.link(name, fmt.Sprintf("%s/fd/%d", folder, i))
	}
	if len(p.Open) == 0 {
		k.must(os.MkdirAll(k.path(folder+"/fd"), 0o755))
	}
	var maps strings.Builder
	for _, name := range p.Mapped {
		fmt.Fprintf(&maps, "7f0000000000-7f0000001000 rw-s 00000000 00:06 531                        %s\n", name)
	}
	k.write(folder+"/maps", maps.String())
	k.write(folder+"/cgroup", "0::"+p.Cgroup+"\n")
	k.write(folder+"/stat", fmt.Sprintf("%d (%s) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", p.PID, p.Name, p.PID*100))
}

// bind gives a device to a driver, whose nodes then appear.
func (k *Kernel) bind(d Device, driver string) {
	folder := "sys/devices/pci0000:00/" + d.Address
	k.link("../../../bus/pci/drivers/"+driver, folder+"/driver")
	if driver == "vfio-pci" {
		return
	}
	for _, node := range d.Nodes {
		k.must(os.MkdirAll(k.path(folder+"/"+node), 0o755))
		output := filepath.Base(node)
		_, name, isConnector := strings.Cut(output, "-")
		if !strings.HasPrefix(output, "card") || !isConnector {
			continue
		}
		status, enabled := "disconnected", "disabled"
		if slices.Contains(d.Lit, name) {
			status, enabled = "connected", "enabled"
		} else if slices.Contains(d.Dark, name) {
			status = "connected"
		}
		k.write(folder+"/"+node+"/status", status+"\n")
		k.write(folder+"/"+node+"/enabled", enabled+"\n")
	}
	if driver == "nvidia" && d.Model != "" {
		k.write("proc/driver/nvidia/gpus/"+d.Address+"/information",
			fmt.Sprintf("Model: \t\t %s\nIRQ:   \t\t 120\nDevice Minor: \t %d\n", d.Model, d.Minor))
	}
}

// release takes a device from its driver.
func (k *Kernel) release(d Device) {
	folder := "sys/devices/pci0000:00/" + d.Address
	k.must(os.Remove(k.path(folder + "/driver")))
	for _, node := range d.Nodes {
		k.must(os.RemoveAll(k.path(folder + "/" + strings.Split(node, "/")[0])))
	}
	k.must(os.RemoveAll(k.path("proc/driver/nvidia/gpus/" + d.Address)))
}

// HangUnbind makes every write to a driver's unbind file hang: a FIFO that
// nobody reads. The function gives lets the writer go.
func (k *Kernel) HangUnbind(driver string) (release func()) {
	name := k.path("sys/bus/pci/drivers/" + driver + "/unbind")
	k.must(os.Remove(name))
	k.must(unix.Mkfifo(name, 0o600))
	return func() {
		reader, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		k.must(err)
		k.must(reader.Close())
	}
}

// Reboot starts the machine anew: what was written to sysfs is gone, drivers
// are chosen again, services run.
func (k *Kernel) Reboot(bootID string) {
	m := k.machine
	m.BootID = bootID
	for _, name := range []string{"sys", "proc", "services"} {
		k.must(os.RemoveAll(k.path(name)))
	}
	fresh, err := New(k.Dir, m)
	k.must(err)
	*k = *fresh
}

func (k *Kernel) path(name string) string { return filepath.Join(k.Dir, name) }

func (k *Kernel) write(name, text string) {
	k.must(os.MkdirAll(filepath.Dir(k.path(name)), 0o755))
	k.must(os.WriteFile(k.path(name), []byte(text), 0o644))
}

func (k *Kernel) link(target, name string) {
	k.must(os.MkdirAll(filepath.Dir(k.path(name)), 0o755))
	k.must(os.Symlink(target, k.path(name)))
}

func (k *Kernel) exists(name string) bool {
	_, err := os.Lstat(k.path(name))
	return err == nil
}

func (k *Kernel) read(name string) string {
	text, err := os.ReadFile(k.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	k.must(err)
	return strings.TrimSpace(string(text))
}

// must panics: a fake that cannot write its own folder has no way on.
func (k *Kernel) must(err error) {
	if err != nil {
		panic(fmt.Sprintf("fake machine in %s: %v", k.Dir, err))
	}
}
