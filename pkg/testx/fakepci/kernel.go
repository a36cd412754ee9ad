package fakepci

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"nixos-go/pkg/pci"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/run"
)

// System is a machine as the vfio package works on it: writes reach the files
// by the real children under the real watchdog, then the kernel reacts;
// modprobe and systemctl are played.
type System struct {
	*vfio.Live

	Kernel *Kernel
	// Hanging watches the writes that hang ([Kernel.HangUnbind]). The others
	// get all the time that a slow machine may need, whatever its limit is.
	Hanging *vfio.Watchdog
}

// patience is the limit of writes that do not hang.
const patience = 2 * time.Minute

// NewSystem is the system on top of a kernel's folder.
func NewSystem(k *Kernel, watchdog *vfio.Watchdog) (*System, error) {
	root, err := os.OpenRoot(k.Dir)
	if err != nil {
		return nil, err
	}
	patient := *watchdog
	patient.Limit = patience
	return &System{
		Live:   &vfio.Live{Root: root, Runner: k, Watchdog: &patient},
		Kernel: k, Hanging: watchdog,
	}, nil
}

// Write implements [vfio.System].
func (s *System) Write(name, value string) error {
	watchdog := s.Watchdog
	if info, err := s.Root.Stat(name); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		watchdog = s.Hanging
	}
	if err := watchdog.Write(s.Root.Name(), name, value); err != nil {
		return err
	}
	return s.Kernel.written(name, strings.TrimSpace(value))
}

// UnloadModule implements [vfio.System].
func (s *System) UnloadModule(name string) error {
	s.Kernel.log("unload " + name)
	return s.Kernel.unload(name)
}

// written reacts to a write.
func (k *Kernel) written(name, value string) error {
	k.log("write " + name + " " + value)
	folder, file := filepath.Split(name)
	folder = filepath.Clean(folder)
	switch file {
	case "driver_override":
		if value == "" {
			value = "(null)"
		}
		k.write(name, value+"\n")
		return nil
	case "unbind":
		k.write(name, "")
		d, found := k.find(value)
		if !found || k.driver(d) != filepath.Base(folder) {
			return &fs.PathError{Op: "write", Path: name, Err: syscall.ENODEV}
		}
		k.release(d)
		return nil
	case "drivers_probe":
		k.write(name, "")
		d, found := k.find(value)
		if !found {
			return &fs.PathError{Op: "write", Path: name, Err: syscall.EINVAL}
		}
		k.probe(d)
		return nil
	}
	return &fs.PathError{Op: "write", Path: name, Err: syscall.EACCES}
}

// probe gives an unbound device to the driver that its override, or nature,
// names, if that driver is there.
func (k *Kernel) probe(d Device) {
	driver := d.Native
	if name := k.override(d); name != "" {
		driver = name
	}
	if k.driver(d) == "" && k.exists("sys/bus/pci/drivers/"+driver) {
		k.bind(d, driver)
	}
}

func (k *Kernel) find(address string) (Device, bool) {
	i := slices.IndexFunc(k.machine.Devices, func(d Device) bool { return d.Address == address })
	if i < 0 {
		return Device{}, false
	}
	return k.machine.Devices[i], true
}

func (k *Kernel) driver(d Device) string {
	target, err := os.Readlink(k.path("sys/devices/pci0000:00/" + d.Address + "/driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

func (k *Kernel) override(d Device) string {
	text := k.read("sys/devices/pci0000:00/" + d.Address + "/driver_override")
	if text == "(null)" {
		return ""
	}
	return text
}

func (k *Kernel) module(match func(Module) bool) (Module, bool) {
	i := slices.IndexFunc(k.machine.Modules, match)
	if i < 0 {
		return Module{}, false
	}
	return k.machine.Modules[i], true
}

// load loads a module after those it needs, and probes what its driver fits.
func (k *Kernel) load(m Module) {
	if k.exists("sys/module/" + m.Name) {
		return
	}
	for _, name := range m.Needs {
		if below, found := k.module(func(o Module) bool { return o.Name == name }); found {
			k.load(below)
		}
		k.write("sys/module/"+name+"/holders/"+m.Name, "")
	}
	k.write("sys/module/"+m.Name+"/refcnt", "0\n")
	k.must(os.MkdirAll(k.path("sys/module/"+m.Name+"/holders"), 0o755))
	if m.Stuck {
		k.write("sys/module/"+m.Name+"/refcnt", "1\n")
	}
	if m.Driver == "" {
		return
	}
	for _, file := range []string{"bind", "unbind", "new_id"} {
		if name := "sys/bus/pci/drivers/" + m.Driver + "/" + file; !k.exists(name) {
			k.write(name, "")
		}
	}
}

// loadAndProbe is what modprobe does on a running machine.
func (k *Kernel) loadAndProbe(m Module) {
	k.load(m)
	for _, d := range k.machine.Devices {
		if k.driver(d) == "" {
			k.probe(d)
		}
	}
}

// unload removes a module (delete_module(2), O_NONBLOCK).
func (k *Kernel) unload(name string) error {
	m, found := k.module(func(o Module) bool { return o.Name == name })
	switch holders, _ := os.ReadDir(k.path("sys/module/" + name + "/holders")); {
	case !found || !k.exists("sys/module/"+name):
		return &fs.PathError{Op: "unload", Path: name, Err: syscall.ENOENT}
	case len(holders) > 0, m.Stuck:
		return &fs.PathError{Op: "unload", Path: name, Err: syscall.EAGAIN}
	}
	for _, d := range k.machine.Devices {
		if m.Driver != "" && k.driver(d) == m.Driver {
			k.release(d)
		}
	}
	if m.Driver != "" {
		k.must(os.RemoveAll(k.path("sys/bus/pci/drivers/" + m.Driver)))
	}
	for _, below := range m.Needs {
		k.must(os.Remove(k.path("sys/module/" + below + "/holders/" + name)))
	}
	k.must(os.RemoveAll(k.path("sys/module/" + name)))
	return nil
}

// Run plays modprobe and systemctl.
func (k *Kernel) Run(_ context.Context, c run.Command) (run.Result, error) {
	k.log(c.String())
	fail := func(text string) (run.Result, error) {
		return run.Result{Status: 1, Tail: text}, &run.Error{Command: c.String(), Status: 1, Tail: text}
	}
	switch {
	case c.Program == "modprobe" && len(c.Args) == 1:
		m, found := k.module(func(m Module) bool { return k.serves(m, c.Args[0]) })
		if !found {
			return fail("modprobe: FATAL: Module " + c.Args[0] + " not found")
		}
		k.loadAndProbe(m)
	case c.Program == "systemctl" && len(c.Args) == 2 && (c.Args[0] == "stop" || c.Args[0] == "start"):
		if !k.exists("services/" + c.Args[1]) {
			return fail("Unit " + c.Args[1] + " not loaded.")
		}
		k.service(c.Args[1], c.Args[0] == "start")
	default:
		return fail("no such program here")
	}
	return run.Result{}, nil
}

// serves tells whether modprobe finds a module under a name or a modalias.
func (k *Kernel) serves(m Module, name string) bool {
	if m.Name == strings.ReplaceAll(name, "-", "_") {
		return true
	}
	return slices.ContainsFunc(k.machine.Devices, func(d Device) bool {
		return k.modalias(d) == name && m.Driver == d.Native
	})
}

func (k *Kernel) service(unit string, active bool) {
	state := map[bool]string{true: "active", false: "inactive"}[active]
	k.write("services/"+unit, state)
	for _, p := range k.machine.Processes {
		switch {
		case p.Service != unit:
		case active && !k.exists(fmt.Sprintf("proc/%d", p.PID)):
			k.process(p)
		case !active:
			k.must(os.RemoveAll(k.path(fmt.Sprintf("proc/%d", p.PID))))
		}
	}
}

// log writes down what was asked of the kernel, in order.
func (k *Kernel) log(line string) {
	file, err := os.OpenFile(k.path("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	k.must(err)
	_, err = fmt.Fprintln(file, line)
	k.must(err)
	k.must(file.Close())
}

// Log is what was asked of the kernel so far.
func (k *Kernel) Log() []string {
	text := k.read("log")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// State is what an owner would find: the drivers and overrides of the devices,
// the modules that are loaded, the services.
func (k *Kernel) State() map[string]string {
	state := map[string]string{}
	for _, d := range k.machine.Devices {
		state[d.Address] = strings.TrimSpace(k.driver(d) + " " + k.override(d))
		// Whoever writes here gives away every card of a model.
		if driver := k.driver(d); driver != "" {
			if ids := k.read("sys/bus/pci/drivers/" + driver + "/new_id"); ids != "" {
				state["new_id of "+driver] = ids
			}
		}
	}
	for _, m := range k.machine.Modules {
		if k.exists("sys/module/"+m.Name) && m.Name != "vfio_pci" {
			state[m.Name] = "loaded"
		}
	}
	for _, unit := range k.machine.Services {
		state[unit] = k.read("services/" + unit)
	}
	return state
}

// EndProcess implements [vfio.System]: the process is gone.
func (s *System) EndProcess(_ context.Context, h pci.Holder) error {
	s.Kernel.log(fmt.Sprintf("end %d", h.PID))
	return os.RemoveAll(s.Kernel.path(fmt.Sprintf("proc/%d", h.PID)))
}
