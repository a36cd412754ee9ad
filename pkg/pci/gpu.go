package pci

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// GPU is one graphics card: a display controller and what shares its slot and
// its IOMMU groups.
type GPU struct {
	// Display is the function that draws.
	Display Function `json:"display"`
	// Functions are all functions of the card, Display among them.
	Functions []Function `json:"functions"`
	// Foreign are endpoints of other cards in the groups of this one.
	Foreign []Function `json:"foreign,omitempty"`
	// Bridges are the bridges in these groups; they stay as they are.
	Bridges []Function `json:"bridges,omitempty"`
}

// Refusal is one reason why a card cannot leave the host now.
type Refusal struct {
	// Code is fixed, for programs.
	Code RefusalCode `json:"code"`
	// Reason is what is in the way.
	Reason string `json:"reason"`
	// Cure is what the owner can do about it.
	Cure string `json:"cure"`
}

// RefusalCode names a kind of refusal.
type RefusalCode string

// The refusals.
const (
	NoIOMMU         RefusalCode = "no-iommu"
	BootDisplay     RefusalCode = "boot-display"
	ActiveConnector RefusalCode = "active-connector"
	SharedGroup     RefusalCode = "shared-group"
)

// What the choice of a card can fail with.
var (
	ErrNoGPU        = errors.New("no graphics card that could be passed to a virtual machine")
	ErrAmbiguousGPU = errors.New("several graphics cards could be meant")
	ErrNotGPU       = errors.New("not a graphics card")
)

// GPUs are the machine's graphics cards, ordered by address.
func (m Machine) GPUs() []GPU {
	var gpus []GPU
	for _, f := range m.Functions {
		known := slices.ContainsFunc(gpus, func(g GPU) bool { return g.Display.Address.SameSlot(f.Address) })
		if f.Class.Display() && !known {
			gpus = append(gpus, m.card(f))
		}
	}
	return gpus
}

func (m Machine) card(display Function) GPU {
	g := GPU{Display: display}
	groups := map[int]bool{}
	for _, f := range m.Functions {
		if f.Address.SameSlot(display.Address) {
			g.Functions = append(g.Functions, f)
			if f.Group != nil {
				groups[*f.Group] = true
			}
		}
	}
	for _, f := range m.Functions {
		switch {
		case f.Group == nil || !groups[*f.Group] || f.Address.SameSlot(display.Address):
		case f.Class.Bridge():
			g.Bridges = append(g.Bridges, f)
		default:
			g.Foreign = append(g.Foreign, f)
		}
	}
	return g
}

// Choose finds the card to work on: the one at the address where one is given
// (any of its functions will do), else the only one that is not the boot
// display.
func (m Machine) Choose(address *Address) (GPU, error) {
	gpus := m.GPUs()
	if address != nil {
		for _, g := range gpus {
			if g.Display.Address.SameSlot(*address) {
				return g, nil
			}
		}
		f, found := m.Function(*address)
		if !found {
			return GPU{}, fmt.Errorf("%s: %w: no PCI device there; %s", address, ErrNotGPU, namesOf(gpus))
		}
		return GPU{}, fmt.Errorf("%s: %w; %s", f.Title(), ErrNotGPU, namesOf(gpus))
	}
	candidates := slices.DeleteFunc(slices.Clone(gpus), func(g GPU) bool { return g.Display.BootDisplay })
	switch len(candidates) {
	case 1:
		return candidates[0], nil
	case 0:
		return GPU{}, fmt.Errorf("%w: %s", ErrNoGPU, namesOf(gpus))
	default:
		return GPU{}, fmt.Errorf("%w: %s", ErrAmbiguousGPU, namesOf(candidates))
	}
}

func namesOf(gpus []GPU) string {
	if len(gpus) == 0 {
		return "this machine has no graphics card"
	}
	titles := make([]string, len(gpus))
	for i, g := range gpus {
		titles[i] = g.Display.Title()
		if g.Display.BootDisplay {
			titles[i] += ", the boot display"
		}
	}
	return "the graphics cards here are " + strings.Join(titles, "; ")
}

// Refusals are the reasons why the card must stay with the host, the gravest
// first; none means that it can go.
func (m Machine) Refusals(g GPU) []Refusal {
	var refusals []Refusal
	if g.Display.BootDisplay {
		refusals = append(refusals, Refusal{
			Code:   BootDisplay,
			Reason: g.Display.Address.String() + " is the display the firmware booted on",
			Cure: "plug the monitor into the other graphics card (the processor's own, on the mainboard's outputs), " +
				"make that one the primary display in the firmware's setup, and boot again",
		})
	}
	if active := g.activeConnectors(); len(active) > 0 {
		refusals = append(refusals, Refusal{
			Code:   ActiveConnector,
			Reason: fmt.Sprintf("%s shows a picture on %s", g.Display.Address, strings.Join(active, ", ")),
			Cure:   "switch that display off in the desktop's display settings, or plug it into the other graphics card",
		})
	}
	if !m.hasGroups(g) {
		refusals = append(refusals, Refusal{
			Code:   NoIOMMU,
			Reason: "the IOMMU is off, so a device in a virtual machine could write to all of the host's memory",
			Cure:   m.iommuCure(),
		})
	}
	if len(g.Foreign) > 0 {
		refusals = append(refusals, Refusal{
			Code:   SharedGroup,
			Reason: fmt.Sprintf("its IOMMU group also holds %s, which would leave the host with it", titles(g.Foreign)),
			Cure: "move the card to another slot (one wired to the processor itself), " +
				"or look in the firmware's setup for ACS or PCIe ARI support",
		})
	}
	return refusals
}

func (m Machine) hasGroups(g GPU) bool {
	return !slices.ContainsFunc(g.Functions, func(f Function) bool { return f.Group == nil })
}

// iommuCure is what to switch on for this processor
// (Documentation/admin-guide/kernel-parameters.txt).
func (m Machine) iommuCure() string {
	for _, word := range m.CommandLine {
		switch word {
		case "iommu=off", "amd_iommu=off", "intel_iommu=off":
			return fmt.Sprintf("remove %q from boot.kernelParams, run nixos-update, and boot again", word)
		}
	}
	switch m.CPU {
	case "GenuineIntel":
		if slices.Contains(m.CommandLine, "intel_iommu=on") {
			return "the kernel has intel_iommu=on already: switch on VT-d in the firmware's setup"
		}
		return "switch on VT-d in the firmware's setup, " +
			`add boot.kernelParams = [ "intel_iommu=on" "iommu=pt" ]; run nixos-update, and boot again`
	case "AuthenticAMD":
		// There is no amd_iommu=on: the driver starts wherever the firmware
		// describes an IOMMU.
		return "switch on SVM and IOMMU (Enabled, not Auto) in the firmware's setup, " +
			`add boot.kernelParams = [ "iommu=pt" ]; run nixos-update, and boot again`
	default:
		return "switch on the IOMMU (SMMU) in the firmware's setup, and boot again"
	}
}

func (g GPU) activeConnectors() []string {
	var active []string
	for _, f := range g.Functions {
		for _, c := range f.Connectors {
			if c.Connected && c.Active {
				active = append(active, c.Name)
			}
		}
	}
	return active
}

// Connected are the outputs with a display plugged in, driven or not.
func (g GPU) Connected() []string {
	var connected []string
	for _, f := range g.Functions {
		for _, c := range f.Connectors {
			if c.Connected {
				connected = append(connected, c.Name)
			}
		}
	}
	return connected
}

// Nodes are the device nodes of all its functions, sorted.
func (g GPU) Nodes() []string {
	var nodes []string
	for _, f := range g.Functions {
		nodes = append(nodes, f.Nodes...)
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

func titles(functions []Function) string {
	words := make([]string, len(functions))
	for i, f := range functions {
		words[i] = f.Title()
	}
	return strings.Join(words, "; ")
}
