package vfio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"nixos-go/pkg/pci"
)

// System is the machine that a plan is carried out on.
type System interface {
	// Machine looks at the machine anew.
	Machine() (pci.Machine, error)
	// Holders finds the processes that hold one of the nodes.
	Holders(nodes []string) (holders []pci.Holder, hidden int, err error)
	// Write writes to a file of sysfs.
	Write(name, value string) error
	LoadModule(ctx context.Context, name string) error
	UnloadModule(name string) error
	StopService(ctx context.Context, unit string) error
	StartService(ctx context.Context, unit string) error
	EndProcess(ctx context.Context, process pci.Holder) error
}

// Event is one step, before (Done is false) or after it was carried out.
type Event struct {
	Step  Step
	Index int
	Total int
	// Undo says that the step puts something back after a failure.
	Undo bool
	Done bool
	Err  error
}

// Engine carries plans out.
type Engine struct {
	System System
	Store  Store
	// Tell is told each step; nil is told nothing.
	Tell func(Event)
	// Settle is how long a stopped service may take to close its files; 0 is
	// five seconds.
	Settle time.Duration
}

// HeldError is a card that processes hold.
type HeldError struct {
	Holders []pci.Holder
}

// Error names the processes.
func (e *HeldError) Error() string {
	words := make([]string, len(e.Holders))
	for i, h := range e.Holders {
		words[i] = h.String()
	}
	return "held by " + strings.Join(words, "; ")
}

// UndoneError is a detaching that failed and was put back.
type UndoneError struct {
	// Step is where it failed.
	Step Step
	// Cause is why.
	Cause error
	// Ended are the processes that were ended before, which nothing brings back.
	Ended []string
	// Left is what could not be put back; empty where everything else is as it
	// was.
	Left []string
}

// Error says what failed, and what state the machine is in now.
func (e *UndoneError) Error() string {
	text := fmt.Sprintf("%s: %v", e.Step, e.Cause)
	switch {
	case len(e.Left) > 0:
		text += "\nnot put back: " + strings.Join(e.Left, "\nnot put back: ")
	case len(e.Ended) == 0:
		text += "\neverything is as it was before"
	default:
		text += "\neverything else is as it was before"
	}
	if len(e.Ended) > 0 {
		text += "\nended meanwhile: " + strings.Join(e.Ended, ", ")
	}
	return text
}

// Unwrap is the cause.
func (e *UndoneError) Unwrap() error { return e.Cause }

// Detach carries out a plan of [PlanDetach]. A failure, or the end of the
// context, puts back what was and gives an [*UndoneError].
func (e *Engine) Detach(ctx context.Context, plan Plan) error {
	journal := plan.Journal
	if len(plan.Steps) > 0 {
		if err := e.Store.Save(&journal); err != nil {
			return err
		}
	}
	for i, step := range plan.Steps {
		err := context.Cause(ctx)
		if err == nil {
			err = e.step(ctx, plan, step, Event{Step: step, Index: i, Total: len(plan.Steps)})
		}
		if err != nil {
			undone := e.undo(context.WithoutCancel(ctx), &journal, step, err)
			undone.Ended = ended(plan.Steps[:i])
			return undone
		}
	}
	journal.Phase = Detached
	return e.Store.Save(&journal)
}

// ended are the processes that these steps have ended.
func ended(steps []Step) []string {
	var names []string
	for _, step := range steps {
		if step.Kind == StopProcess {
			names = append(names, fmt.Sprintf("%s (%d)", step.Process.Name, step.Process.PID))
		}
	}
	return names
}

// Attach carries out a plan of [PlanAttach]. A step that fails does not stop
// the others; the journal stays until everything is back, so that the next
// attach goes on from there.
func (e *Engine) Attach(ctx context.Context, plan Plan) error {
	if len(plan.Steps) == 0 {
		if len(plan.Warnings) > 0 { // something hangs: the journal is still needed
			return notBack(plan.Warnings)
		}
		return e.Store.Remove(plan.GPU)
	}
	held, err := e.held(plan.Watched, false)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return &HeldError{Holders: held}
	}
	journal := plan.Journal
	if err := e.Store.Save(&journal); err != nil {
		return err
	}
	left, err := e.putBack(ctx, &journal, plan, false)
	if err != nil {
		return err
	}
	if left = append(left, plan.Warnings...); len(left) > 0 {
		return notBack(left)
	}
	return e.Store.Remove(plan.GPU)
}

func notBack(left []string) error {
	return errors.New("not everything is back:\n" + strings.Join(left, "\n"))
}

// undo plans the way back from where the machine is now, and goes it.
func (e *Engine) undo(ctx context.Context, journal *Journal, failed Step, cause error) *UndoneError {
	result := &UndoneError{Step: failed, Cause: cause}
	if noteHang(journal, failed, cause) {
		if err := e.Store.Save(journal); err != nil {
			result.Left = append(result.Left, err.Error())
		}
	}
	back, err := e.planBack(journal)
	if err != nil {
		result.Left = append(result.Left, err.Error())
		return result
	}
	left, err := e.putBack(ctx, journal, back, true)
	if err != nil {
		left = append(left, err.Error())
	}
	result.Left = append(result.Left, append(left, back.Warnings...)...)
	if len(result.Left) == 0 {
		if err := e.Store.Remove(journal.GPU); err != nil {
			result.Left = append(result.Left, err.Error())
		}
	}
	return result
}

func (e *Engine) planBack(journal *Journal) (Plan, error) {
	machine, err := e.System.Machine()
	if err != nil {
		return Plan{}, err
	}
	gpu, err := machine.Choose(&journal.GPU)
	if err != nil {
		return Plan{}, err
	}
	return PlanAttach(machine, gpu, journal)
}

// noteHang writes a hang into the journal: what blocks a device now blocks
// every later attempt in this boot.
func noteHang(journal *Journal, step Step, err error) bool {
	var hung *HungError
	if !errors.As(err, &hung) || hung.PID == 0 {
		return false
	}
	journal.Hung = append(journal.Hung, Hang{Step: step, PID: hung.PID, Start: hung.Start})
	return true
}

// putBack carries out every step of a plan that it can, and tells what it
// could not. Only the end of the context is an error.
func (e *Engine) putBack(ctx context.Context, journal *Journal, plan Plan, undo bool) (left []string, err error) {
	for i, step := range plan.Steps {
		if err := context.Cause(ctx); err != nil {
			return left, fmt.Errorf("stopped before %q; run gpu-vfio attach again to finish: %w", step, err)
		}
		if step.Address != nil {
			if _, stuck := journal.stuck(*step.Address, journal.BootID); stuck {
				continue // told when it hung
			}
		}
		err := e.step(ctx, plan, step, Event{Step: step, Index: i, Total: len(plan.Steps), Undo: undo})
		if err == nil {
			continue
		}
		left = append(left, fmt.Sprintf("%s: %v", step, err))
		if noteHang(journal, step, err) {
			if err := e.Store.Save(journal); err != nil {
				left = append(left, err.Error())
			}
		}
	}
	return left, nil
}

func (e *Engine) step(ctx context.Context, plan Plan, step Step, event Event) error {
	e.tell(event)
	event.Err = e.run(ctx, plan, step)
	event.Done = true
	e.tell(event)
	return event.Err
}

func (e *Engine) tell(event Event) {
	if e.Tell != nil {
		e.Tell(event)
	}
}

func (e *Engine) run(ctx context.Context, plan Plan, step Step) error {
	switch step.Kind {
	case StopService:
		return e.System.StopService(ctx, step.Service)
	case StartService:
		return e.System.StartService(ctx, step.Service)
	case StopProcess:
		return e.System.EndProcess(ctx, *step.Process)
	case CheckFree:
		return e.checkFree(ctx, plan)
	case LoadModule:
		return e.System.LoadModule(ctx, step.Module)
	case UnloadModule:
		return e.unload(step.Module)
	case Verify:
		return e.verify(step)
	case Override, Unbind, Probe:
		name, value := step.file()
		return e.System.Write(name, value)
	default:
		return fmt.Errorf("unknown step %q", step.Kind)
	}
}

// checkFree looks again, since stopping takes a moment and programs can start
// at any time, also at what would have made the tool refuse.
func (e *Engine) checkFree(ctx context.Context, plan Plan) error {
	machine, err := e.System.Machine()
	if err != nil {
		return err
	}
	gpu, err := machine.Choose(&plan.GPU)
	if err != nil {
		return err
	}
	if refusals := machine.Refusals(gpu); len(refusals) > 0 {
		return errors.New(refusals[0].Reason)
	}
	settle := e.Settle
	if settle == 0 {
		settle = 5 * time.Second
	}
	deadline := time.Now().Add(settle)
	for {
		held, err := e.held(plan.Watched, true)
		if err != nil || len(held) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return &HeldError{Holders: held}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// held is who holds the nodes, without those who let go by themselves if they
// do not matter.
func (e *Engine) held(nodes []string, leaveOut bool) ([]pci.Holder, error) {
	holders, _, err := e.System.Holders(nodes)
	if err != nil || !leaveOut {
		return holders, err
	}
	return slices.DeleteFunc(holders, pci.Holder.LetsGo), nil
}

// unload explains the module that is in use, since the kernel only says that
// it is.
func (e *Engine) unload(module string) error {
	err := e.System.UnloadModule(module)
	if !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.EAGAIN) {
		return err
	}
	machine, lookErr := e.System.Machine()
	if lookErr != nil {
		return errors.Join(err, lookErr)
	}
	state := machine.Modules[module]
	why := fmt.Sprintf("%d in the kernel use it", state.Uses)
	if len(state.Holders) > 0 {
		why = "needed by " + strings.Join(state.Holders, ", ")
	}
	if module == "nvidia_drm" {
		why += "; a text console on the card holds it (nvidia-drm.fbdev=0 in boot.kernelParams prevents that)"
	}
	return fmt.Errorf("%w: %s", err, why)
}

func (e *Engine) verify(step Step) error {
	machine, err := e.System.Machine()
	if err != nil {
		return err
	}
	f, there := machine.Function(*step.Address)
	switch {
	case !there:
		return fmt.Errorf("%s: %w", step.Address, ErrVanished)
	case step.Driver == "" && f.Driver != "" && f.Driver != driver:
		return nil
	case step.Driver != "" && f.Driver == step.Driver:
		return nil
	}
	now := "no driver has it"
	if f.Driver != "" {
		now = f.Driver + " has it"
	}
	return fmt.Errorf("%s; the kernel's log may say why: journalctl -k -b", now)
}
