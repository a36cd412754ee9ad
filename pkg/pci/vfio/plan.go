// Package vfio moves a graphics card from the host's drivers to vfio-pci, for
// a virtual machine, and back.
//
// Both ways are transactions: a plan (a pure function of what was seen), a
// journal that is on disk before the first change and suffices to put
// everything back, and steps that run one at a time. A step that fails undoes
// the detaching; a run that was killed is undone, or finished, by the next
// one, because both are planned from the journal and from what is, never from
// how far the last run thought it had got. What can hang inside the kernel
// runs in a child under a [Watchdog]. A card is reserved by its address
// (driver_override), so its twin stays with the host.
package vfio

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nixos-go/pkg/pci"
)

// nvidiaModules are NVIDIA's modules in the order in which they let go of each
// other.
var nvidiaModules = []string{"nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"}

// nvidia is the driver of NVIDIA's modules, and the last of them.
const nvidia = "nvidia"

// Modules are the modules that a plan asks about.
func Modules() []string { return append(slices.Clone(nvidiaModules), driverModule) }

// Errors that a plan can end with.
var (
	// ErrModuleHeld is a module of the driver that another module needs.
	ErrModuleHeld = errors.New("another module needs the driver")
	// ErrStuck is a function on which an earlier operation still hangs.
	ErrStuck = errors.New("an earlier operation still hangs in the kernel")
	// ErrVanished is a function that the journal names and the machine lacks.
	ErrVanished = errors.New("the card is no longer there")
)

// Choices are what the owner agreed to.
type Choices struct {
	// Services are the units to stop.
	Services []string
	// Processes are the processes to end.
	Processes []pci.Holder
}

// Plan is what is going to happen. Without steps there is nothing to do.
type Plan struct {
	Action  string      `json:"action"` // "detach" or "attach"
	GPU     pci.Address `json:"gpu"`
	Steps   []Step      `json:"steps"`
	Journal Journal     `json:"journal"`
	// Watched are the device nodes that nobody may hold.
	Watched  []string `json:"watched"`
	Warnings []string `json:"warnings,omitempty"`
}

// Watched are the nodes that keep a card from leaving: its own, and, where
// NVIDIA's modules would be unloaded, those that every user of them holds.
func Watched(m pci.Machine, g pci.GPU) []string {
	nodes := g.Nodes()
	if unloads(m, g) {
		nodes = append(nodes, pci.SharedNVIDIANodes()...)
	}
	slices.Sort(nodes)
	return nodes
}

// unloads tells whether detaching the card unloads NVIDIA's modules: not when
// they serve another card as well.
func unloads(m pci.Machine, g pci.GPU) bool {
	return bound(g.Functions, nvidia) && len(twins(m, g)) == 0
}

// twins are the functions of other cards that NVIDIA's driver serves.
func twins(m pci.Machine, g pci.GPU) []pci.Function {
	var others []pci.Function
	for _, f := range m.Functions {
		if f.Driver == nvidia && !f.Address.SameSlot(g.Display.Address) {
			others = append(others, f)
		}
	}
	return others
}

func bound(functions []pci.Function, driver string) bool {
	return slices.ContainsFunc(functions, func(f pci.Function) bool { return f.Driver == driver })
}

// PlanDetach plans to give a card to vfio-pci. The journal is that of an
// earlier run, nil for none. Refusals are the caller's business
// ([pci.Machine.Refusals]): they are shown, not planned around.
func PlanDetach(m pci.Machine, g pci.GPU, journal *Journal, choices Choices, now time.Time) (Plan, error) {
	plan := Plan{
		Action: "detach", GPU: g.Display.Address, Watched: Watched(m, g),
		Journal: journalFor(m, g, journal, choices, now),
	}
	if err := checkStuck(m, g, journal); err != nil {
		return plan, err
	}
	// A card that was reserved at boot is fine as it is; one that an attach cut
	// off half-way has let loose of is reserved again.
	halfBack := journal != nil && journal.BootID == m.BootID && len(reserveSteps(g, nil)) > 0
	if Reserved(g) && !halfBack {
		return plan, nil
	}
	var modules []string
	if unloads(m, g) {
		if err := checkModules(m); err != nil {
			return plan, err
		}
		modules = loaded(m, nvidiaModules)
		plan.Journal.Modules = inOrder(append(plan.Journal.Modules, modules...))
	} else if others := twins(m, g); bound(g.Functions, nvidia) {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf(
			"NVIDIA's driver also serves %s and stays loaded; the card is taken from it while it runs", others[0].Title()))
	}
	for _, unit := range choices.Services {
		plan.Steps = append(plan.Steps, Step{Kind: StopService, Service: unit})
	}
	for _, process := range choices.Processes {
		plan.Steps = append(plan.Steps, Step{Kind: StopProcess, Process: &process})
	}
	plan.Steps = append(plan.Steps, Step{Kind: CheckFree})
	if _, there := m.Modules[driverModule]; !there {
		plan.Steps = append(plan.Steps, Step{Kind: LoadModule, Module: driver})
	}
	plan.Steps = append(plan.Steps, reserveSteps(g, modules)...)
	return plan, nil
}

// reserveSteps reserves the functions, frees them and gives them away.
func reserveSteps(g pci.GPU, modules []string) []Step {
	var steps []Step
	for _, f := range g.Functions {
		if f.Override != driver {
			steps = append(steps, override(f.Address, driver))
		}
	}
	for _, module := range modules {
		steps = append(steps, Step{Kind: UnloadModule, Module: module})
	}
	for _, f := range g.Functions {
		if f.Driver == driver {
			continue
		}
		unloaded := f.Driver == nvidia && len(modules) > 0
		if f.Driver != "" && !unloaded {
			steps = append(steps, unbind(f))
		}
		steps = append(steps, probe(f.Address), verify(f.Address, driver))
	}
	return steps
}

// Reserved tells whether vfio-pci has the whole card.
func Reserved(g pci.GPU) bool {
	return !slices.ContainsFunc(g.Functions, func(f pci.Function) bool { return f.Driver != driver })
}

func checkStuck(m pci.Machine, g pci.GPU, journal *Journal) error {
	if journal == nil {
		return nil
	}
	for _, f := range g.Functions {
		if hang, stuck := journal.stuck(f.Address, m.BootID); stuck {
			return fmt.Errorf("%s: %q (process %d): %w", f.Address, hang.Step, hang.PID, ErrStuck)
		}
	}
	return nil
}

// checkModules finds what would keep NVIDIA's modules from being unloaded:
// modules from elsewhere that need them.
func checkModules(m pci.Machine) error {
	for _, name := range nvidiaModules {
		for _, holder := range m.Modules[name].Holders {
			if !slices.Contains(nvidiaModules, holder) {
				return fmt.Errorf("%s is needed by %s: %w", name, holder, ErrModuleHeld)
			}
		}
	}
	return nil
}

func loaded(m pci.Machine, names []string) []string {
	var there []string
	for _, name := range names {
		if _, ok := m.Modules[name]; ok {
			there = append(there, name)
		}
	}
	return there
}

// inOrder puts module names into the order of unloading, each once.
func inOrder(names []string) []string {
	var ordered []string
	for _, name := range nvidiaModules {
		if slices.Contains(names, name) {
			ordered = append(ordered, name)
		}
	}
	return ordered
}

// journalFor is the journal of a detaching: what an earlier run of this boot
// wrote down stays true, since that one saw the card untouched.
func journalFor(m pci.Machine, g pci.GPU, earlier *Journal, choices Choices, now time.Time) Journal {
	j := Journal{
		Version: journalVersion, GPU: g.Display.Address, Phase: Detaching,
		Started: now.UTC(), BootID: m.BootID,
	}
	if earlier == nil {
		earlier = &Journal{}
	}
	sameBoot := earlier.BootID == m.BootID
	for _, f := range g.Functions {
		j.Functions = append(j.Functions, originalOf(f, earlier, sameBoot))
	}
	if sameBoot {
		j.Modules, j.Services = earlier.Modules, slices.Clone(earlier.Services)
		j.Started = earlier.Started
	}
	for _, unit := range choices.Services {
		if !slices.Contains(j.Services, unit) {
			j.Services = append(j.Services, unit)
		}
	}
	return j
}

func originalOf(f pci.Function, earlier *Journal, sameBoot bool) Original {
	if known, ok := earlier.original(f.Address); ok && (sameBoot || f.Driver == driver) {
		return known
	}
	if f.Driver == driver {
		return Original{Address: f.Address, Unknown: true}
	}
	o := Original{Address: f.Address, Driver: f.Driver, Override: f.Override}
	if o.Override == driver {
		o.Override = ""
	}
	return o
}

// PlanAttach plans to give a card back to the host. Without a journal (the
// card was reserved at boot, or the journal's folder was not kept) any driver
// of the host will do.
func PlanAttach(m pci.Machine, g pci.GPU, journal *Journal) (Plan, error) {
	plan := Plan{Action: "attach", GPU: g.Display.Address}
	if journal != nil {
		plan.Journal = *journal
	} else {
		plan.Journal = journalFor(m, g, nil, Choices{}, time.Time{})
		plan.Journal.Modules = nil
		if !bound(g.Functions, driver) {
			plan.Journal.Functions = nil
		}
	}
	plan.Journal.Phase = Attaching
	for _, f := range g.Functions {
		if f.Driver == driver {
			plan.Watched = append(plan.Watched, f.Nodes...)
		}
	}
	slices.Sort(plan.Watched)
	plan.Watched = slices.Compact(plan.Watched)
	a := attaching{machine: m, plan: &plan, rebooted: plan.Journal.BootID != m.BootID}
	return plan, a.fill()
}

// attaching collects the steps back.
type attaching struct {
	machine  pci.Machine
	plan     *Plan
	rebooted bool
	wrong    []returning
}

// returning is a function that is not with the driver it had.
type returning struct {
	now  pci.Function
	then Original
}

func (a *attaching) fill() error {
	for _, o := range a.plan.Journal.Functions {
		f, there := a.machine.Function(o.Address)
		if !there {
			return fmt.Errorf("%s: %w", o.Address, ErrVanished)
		}
		if hang, stuck := a.plan.Journal.stuck(o.Address, a.machine.BootID); stuck {
			a.plan.Warnings = append(a.plan.Warnings, fmt.Sprintf(
				"%s stays as it is: %q still hangs in the kernel (process %d); only a reboot frees it",
				o.Address, hang.Step, hang.PID))
			continue
		}
		if f.Override != o.Override {
			a.step(override(o.Address, o.Override))
		}
		if a.isWrong(f, o) {
			a.wrong = append(a.wrong, returning{now: f, then: o})
		}
	}
	for _, r := range slices.Backward(a.wrong) {
		if r.now.Driver != "" {
			a.step(unbind(r.now))
		}
	}
	a.loadModules()
	for _, r := range a.wrong {
		if r.then.Driver != "" || r.then.Unknown {
			a.step(probe(r.then.Address))
			a.step(verify(r.then.Address, r.then.Driver))
		}
	}
	if !a.rebooted {
		for _, unit := range slices.Backward(a.plan.Journal.Services) {
			a.step(Step{Kind: StartService, Service: unit})
		}
	}
	return nil
}

func (a *attaching) step(s Step) { a.plan.Steps = append(a.plan.Steps, s) }

// isWrong tells whether a function has to change hands. After a reboot the
// kernel has chosen drivers anew, and its choice stands: only vfio-pci has to
// let go.
func (a *attaching) isWrong(f pci.Function, o Original) bool {
	switch {
	case a.rebooted:
		return f.Driver == driver
	case o.Unknown:
		return f.Driver == driver || f.Driver == ""
	default:
		return f.Driver != o.Driver
	}
}

// loadModules brings back what was unloaded, the deepest first, and the driver
// of a function whose driver nobody wrote down.
func (a *attaching) loadModules() {
	needed := !a.rebooted
	for _, r := range a.wrong {
		needed = needed || r.then.Driver == nvidia
	}
	if needed {
		for _, name := range slices.Backward(a.plan.Journal.Modules) {
			if _, there := a.machine.Modules[name]; !there {
				a.step(Step{Kind: LoadModule, Module: name})
			}
		}
	}
	for _, r := range a.wrong {
		if r.then.Unknown && r.now.Modalias != "" {
			a.step(Step{Kind: LoadModule, Module: r.now.Modalias})
		}
	}
}

// String is the plan in lines, for a dry run.
func (p Plan) String() string {
	lines := make([]string, len(p.Steps))
	for i, step := range p.Steps {
		lines[i] = fmt.Sprintf("%2d. %s", i+1, step)
	}
	return strings.Join(lines, "\n")
}
