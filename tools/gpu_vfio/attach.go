package gpuvfio

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/pci"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/ui"
)

func (t *tool) attach(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	if err := t.env.RequireRoot("gpu-vfio attach"); err != nil {
		return err
	}
	unlock, err := t.lock(c)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := t.begin(c)
	if err != nil {
		return err
	}
	plan, err := vfio.PlanAttach(s.machine, s.gpu, s.journal)
	if err != nil {
		return err
	}
	if s.options.DryRun {
		return s.dryRun(plan, nil)
	}
	err = s.engine().Attach(c.Context, plan)
	if _, ok := errors.AsType[*vfio.HeldError](err); ok {
		return clikit.WithHint(fmt.Errorf("a virtual machine has the card: %w", err),
			"shut it down first; nothing was changed")
	}
	if err != nil {
		if s.options.JSON {
			failure := result(plan, false, nil)
			failure.Error = err.Error()
			if err := s.env.UI.JSON(failure); err != nil {
				return err
			}
		}
		return clikit.WithHint(err, "gpu-vfio attach goes on from here; gpu-vfio status shows what is left")
	}
	if len(plan.Steps) == 0 && len(plan.Warnings) == 0 {
		s.env.UI.Infof("%s is with the host already", s.gpu.Display.Title())
	}
	return s.done(plan, s.gpu.Display.Title()+" is back with the host", "")
}

func (s *session) engine() *vfio.Engine {
	return &vfio.Engine{System: s.system, Store: s.store(), Tell: s.tell}
}

// tell shows the steps as they happen.
func (s *session) tell(e vfio.Event) {
	switch {
	case e.Done && e.Err != nil:
		s.env.UI.Warnf("%s: %s", e.Step, ui.Printable(e.Err.Error()))
	case e.Done:
	case e.Undo:
		s.env.UI.Stepf("putting back: %s", e.Step)
	default:
		s.env.UI.Stepf("%s", e.Step)
	}
}

func (s *session) warn(plan vfio.Plan) {
	for _, text := range plan.Warnings {
		s.env.UI.Warnf("%s", text)
	}
}

// failed explains a detaching that did not work.
func (s *session) failed(plan vfio.Plan, err error) error {
	failure := result(plan, false, nil)
	failure.Error = err.Error()
	if undone, ok := errors.AsType[*vfio.UndoneError](err); ok {
		failure.Left = undone.Left
	}
	if s.options.JSON {
		if err := s.env.UI.JSON(failure); err != nil {
			return err
		}
	}
	if len(failure.Left) > 0 {
		return clikit.WithHint(err, "gpu-vfio attach tries again to put it back; after a reboot everything is as it was")
	}
	return err
}

// dryRun shows a plan and does nothing.
func (s *session) dryRun(plan vfio.Plan, holders []pci.Holder) error {
	if s.options.JSON {
		return s.env.UI.JSON(result(plan, false, holders))
	}
	s.warn(plan)
	for _, h := range holders {
		if h.Unit == "" {
			s.env.UI.Warnf("held by %s: it has to end first", ui.Printable(h.String()))
		}
	}
	if len(plan.Steps) == 0 {
		return s.env.UI.Print("nothing to do")
	}
	return s.env.UI.Printf("%s %s:\n%s", plan.Action, s.gpu.Display.Title(), plan)
}

func (s *session) done(plan vfio.Plan, text, next string) error {
	if s.options.JSON {
		return s.env.UI.JSON(result(plan, true, nil))
	}
	if len(plan.Steps) > 0 {
		s.env.UI.Donef("%s", text)
	}
	if next != "" {
		s.env.UI.Hintf("%s", next)
	}
	return nil
}

func result(plan vfio.Plan, done bool, holders []pci.Holder) Result {
	r := Result{
		Action: plan.Action, GPU: plan.GPU, Done: done, Steps: plan.Steps,
		Warnings: plan.Warnings, Holders: holders,
	}
	if r.Steps == nil {
		r.Steps = []vfio.Step{}
	}
	return r
}
