package vfio

import (
	"fmt"
	"path"

	"nixos-go/pkg/pci"
)

// driver is what a function is bound to before a virtual machine gets it.
const driver = "vfio-pci"

// driverModule is the kernel module of that driver.
const driverModule = "vfio_pci"

// Step is one change of a plan. Which fields count depends on its kind.
type Step struct {
	Kind Kind `json:"kind"`
	// Address is the function of a device step.
	Address *pci.Address `json:"address,omitempty"`
	// Driver is the driver to override with, to unbind from, or to find in the
	// end; "" clears the override, or finds any driver but vfio-pci.
	Driver string `json:"driver,omitempty"`
	// Module is the module to load or unload.
	Module string `json:"module,omitempty"`
	// Service is the unit to stop or start.
	Service string `json:"service,omitempty"`
	// Process is the process to stop.
	Process *pci.Holder `json:"process,omitempty"`
}

// Kind is what a step does.
type Kind string

// The kinds of steps.
const (
	StopService  Kind = "stop-service"
	StartService Kind = "start-service"
	StopProcess  Kind = "stop-process"
	CheckFree    Kind = "check-free"
	LoadModule   Kind = "load-module"
	UnloadModule Kind = "unload-module"
	Override     Kind = "override"
	Unbind       Kind = "unbind"
	Probe        Kind = "probe"
	Verify       Kind = "verify"
)

// String is the step as a person reads it in a plan.
func (s Step) String() string {
	switch s.Kind {
	case StopService:
		return "stop the service " + s.Service
	case StartService:
		return "start the service " + s.Service
	case StopProcess:
		return fmt.Sprintf("end the process %s (%d)", s.Process.Name, s.Process.PID)
	case CheckFree:
		return "check that nothing holds the card any more"
	case LoadModule:
		return "load the module " + s.Module
	case UnloadModule:
		return "unload the module " + s.Module
	case Override:
		if s.Driver == "" {
			return fmt.Sprintf("%s: let the kernel choose the driver again", s.Address)
		}
		return fmt.Sprintf("%s: reserve for %s", s.Address, s.Driver)
	case Unbind:
		return fmt.Sprintf("%s: unbind from %s", s.Address, s.Driver)
	case Probe:
		return fmt.Sprintf("%s: look for its driver", s.Address)
	case Verify:
		if s.Driver == "" {
			return fmt.Sprintf("%s: check that a driver of the host has it", s.Address)
		}
		return fmt.Sprintf("%s: check that %s has it", s.Address, s.Driver)
	}
	return string(s.Kind)
}

// file is the sysfs file that a device step writes, and what it writes. The
// files are those of Documentation/ABI/testing/sysfs-bus-pci; new_id is never
// one of them, since it would give away every card of the same model.
func (s Step) file() (name, value string) {
	switch s.Kind { //nolint:exhaustive // the other kinds write no file
	case Override:
		// A newline alone clears the override; nothing at all would not even
		// reach the kernel.
		return path.Join(pci.Devices, s.Address.String(), "driver_override"), s.Driver + "\n"
	case Unbind:
		return path.Join("sys/bus/pci/drivers", s.Driver, "unbind"), s.Address.String()
	case Probe:
		return "sys/bus/pci/drivers_probe", s.Address.String()
	default:
		return "", ""
	}
}

func override(a pci.Address, name string) Step {
	return Step{Kind: Override, Address: &a, Driver: name}
}

func unbind(f pci.Function) Step {
	return Step{Kind: Unbind, Address: &f.Address, Driver: f.Driver}
}

func probe(a pci.Address) Step { return Step{Kind: Probe, Address: &a} }

func verify(a pci.Address, name string) Step {
	return Step{Kind: Verify, Address: &a, Driver: name}
}
