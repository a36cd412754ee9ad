package gpuvfio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/pci"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
)

// harmless are the services that hold a card and can be stopped and started
// without anyone losing work.
var harmless = []string{"nvidia-persistenced.service", "nvidia-powerd.service", "openrgb.service"}

// Result is the result of detach and attach.
type Result struct {
	Action string      `json:"action"`
	GPU    pci.Address `json:"gpu"`
	// Done tells whether the card is where it should be now; false for a dry
	// run or a refusal.
	Done     bool          `json:"done"`
	Steps    []vfio.Step   `json:"steps"`
	Warnings []string      `json:"warnings,omitempty"`
	Refusals []pci.Refusal `json:"refusals,omitempty"`
	// Error is what failed, Left what could not be put back.
	Error string   `json:"error,omitempty"`
	Left  []string `json:"left,omitempty"`
	// Holders are the processes that a dry run found in the way.
	Holders []pci.Holder `json:"holders,omitempty"`
}

// session is one detach or attach.
type session struct {
	*tool

	options clikit.Options
	system  vfio.System
	machine pci.Machine
	gpu     pci.GPU
	journal *vfio.Journal
}

// lock keeps other runs out; a dry run changes nothing and needs no lock.
func (t *tool) lock(c *cli.Context) (unlock func(), err error) {
	if clikit.OptionsOf(c).DryRun {
		return func() {}, nil
	}
	return t.store().Lock()
}

// begin looks at the machine and chooses the card.
func (t *tool) begin(c *cli.Context) (*session, error) {
	address, err := cardOf(c)
	if err != nil {
		return nil, err
	}
	s := &session{tool: t, options: clikit.OptionsOf(c)}
	if s.system, err = t.open(t.env, c.Duration("timeout")); err != nil {
		return nil, err
	}
	if s.machine, err = s.system.Machine(); err != nil {
		return nil, err
	}
	s.gpu, err = s.machine.Choose(address)
	if errors.Is(err, pci.ErrAmbiguousGPU) {
		s.gpu, err = s.askWhich(c.Context, err)
	}
	if err != nil {
		return nil, err
	}
	s.journal, err = t.store().Load(s.gpu.Display.Address)
	return s, err
}

// askWhich asks for the card where several could be meant. --yes does not
// choose: it says yes, not which.
func (s *session) askWhich(ctx context.Context, ambiguous error) (pci.GPU, error) {
	var candidates []pci.GPU
	var titles []string
	for _, g := range s.machine.GPUs() {
		if !g.Display.BootDisplay {
			candidates = append(candidates, g)
			titles = append(titles, g.Display.Title())
		}
	}
	if s.options.Yes || s.options.DryRun {
		return pci.GPU{}, clikit.WithHint(ambiguous, "name one: --gpu %s", candidates[0].Display.Address)
	}
	i, err := s.env.Ask.Select(ctx, prompt.Question{Text: "Which card?", Flag: "--gpu ADDRESS"}, titles, 0)
	if err != nil {
		return pci.GPU{}, clikit.Unchanged(err)
	}
	return candidates[i], nil
}

func (t *tool) detach(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	if err := t.env.RequireRoot("gpu-vfio detach"); err != nil {
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
	if refusals := s.machine.Refusals(s.gpu); len(refusals) > 0 && !vfio.Reserved(s.gpu) {
		return s.refuse(refusals)
	}
	holders, err := s.holders()
	if err != nil {
		return err
	}
	choices, err := s.choices(c, holders)
	if err != nil {
		return err
	}
	plan, err := s.planDetach(choices)
	if err != nil {
		return err
	}
	if s.options.DryRun {
		return s.dryRun(plan, holders)
	}
	if len(plan.Steps) == 0 {
		s.env.UI.Infof("%s is at vfio-pci already", s.gpu.Display.Title())
	}
	s.warn(plan)
	if err := s.engine().Detach(c.Context, plan); err != nil {
		return s.failed(plan, err)
	}
	return s.done(plan, s.gpu.Display.Title()+" is free for a virtual machine",
		"sudo gpu-vfio attach gives it back to the host")
}

// refuse tells every reason and its cure.
func (s *session) refuse(refusals []pci.Refusal) error {
	if s.options.JSON {
		result := Result{Action: "detach", GPU: s.gpu.Display.Address, Steps: []vfio.Step{}, Refusals: refusals}
		if err := s.env.UI.JSON(result); err != nil {
			return err
		}
	}
	s.env.UI.Errorf("%s stays with the host", s.gpu.Display.Title())
	for _, r := range refusals {
		s.env.UI.Infof("  %s", r.Reason)
		s.env.UI.Hintf("%s", r.Cure)
	}
	return clikit.ErrReported
}

// holders are the processes in the way; those that let go by themselves are
// not.
func (s *session) holders() ([]pci.Holder, error) {
	holders, _, err := s.system.Holders(vfio.Watched(s.machine, s.gpu))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(holders, pci.Holder.LetsGo), nil
}

// choices asks about what holds the card: first its services, then programs.
// A dry run asks nothing and plans to stop the services.
func (s *session) choices(c *cli.Context, holders []pci.Holder) (vfio.Choices, error) {
	var choices vfio.Choices
	if vfio.Reserved(s.gpu) {
		return choices, nil
	}
	var programs []pci.Holder
	for _, h := range holders {
		switch {
		case h.Unit == "":
			programs = append(programs, h)
		case !slices.Contains(choices.Services, h.Unit):
			if err := s.agreeToStop(c, h); err != nil {
				return choices, err
			}
			choices.Services = append(choices.Services, h.Unit)
		}
	}
	if len(programs) == 0 || s.options.DryRun {
		if c.Bool("stop-processes") {
			choices.Processes = programs
		}
		return choices, nil
	}
	end, err := s.settlePrograms(c, programs)
	if err != nil {
		return choices, err
	}
	choices.Processes = end
	return choices, nil
}

// agreeToStop asks before a service is stopped. --yes stands for those that
// are known to be harmless alone.
func (s *session) agreeToStop(c *cli.Context, h pci.Holder) error {
	if s.options.DryRun || slices.Contains(c.StringSlice("stop-service"), h.Unit) ||
		slices.Contains(c.StringSlice("stop-service"), strings.TrimSuffix(h.Unit, ".service")) {
		return nil
	}
	flag := "--stop-service " + h.Unit
	known := slices.Contains(harmless, h.Unit)
	if s.options.Yes {
		if known {
			return nil
		}
		return clikit.WithHint(fmt.Errorf("held by %s", ui.Printable(h.String())), "stop it yourself, or allow it with %s", flag)
	}
	agreed, err := s.env.Ask.Confirm(c.Context, prompt.Question{
		Text: h.Unit + " holds the card. Stop it until attach?",
		Flag: flag,
	}, known)
	if err != nil {
		return clikit.Unchanged(err)
	}
	if !agreed {
		return fmt.Errorf("held by %s; nothing was changed", ui.Printable(h.String()))
	}
	return nil
}

// settlePrograms gets rid of programs: by waiting, or by the owner's consent
// to end them.
func (s *session) settlePrograms(c *cli.Context, programs []pci.Holder) ([]pci.Holder, error) {
	for _, h := range programs {
		s.env.UI.Infof("held by %s", ui.Printable(h.String()))
	}
	if c.Bool("stop-processes") {
		return programs, nil
	}
	if limit := c.Duration("wait"); limit > 0 {
		return nil, s.wait(c.Context, limit)
	}
	held := errors.New("programs hold the card; nothing was changed")
	if s.options.Yes {
		return nil, clikit.WithHint(held, "close them, or add --wait 5m, or --stop-processes")
	}
	options := []string{"wait until they have let go", "end them (unsaved work is lost)", "leave everything as it is"}
	i, err := s.env.Ask.Select(c.Context, prompt.Question{
		Text: "Programs hold the card. What now?", Flag: "--wait TIME or --stop-processes",
	}, options, 0)
	switch {
	case err != nil:
		return nil, clikit.Unchanged(err)
	case i == 0:
		return nil, s.wait(c.Context, 0)
	case i == 1:
		return programs, nil
	default:
		return nil, held
	}
}

// wait waits until only services hold the card; limit 0 is without end.
func (s *session) wait(ctx context.Context, limit time.Duration) error {
	s.env.UI.Infof("waiting for them to let go (Ctrl-C gives up)")
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("the card is still held after %s", limit))
		defer cancel()
	}
	for {
		holders, err := s.holders()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(holders, func(h pci.Holder) bool { return h.Unit == "" }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return waitingStopped(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// waitingStopped is the error of a wait that its person gave up, as of a question.
func waitingStopped(ctx context.Context) error {
	err := context.Cause(ctx)
	if _, ok := errors.AsType[*run.InterruptedError](err); ok {
		err = prompt.ErrInterrupted
	}
	return fmt.Errorf("%w; nothing was changed", err)
}

// planDetach plans, and explains what the plan may fail with.
func (s *session) planDetach(choices vfio.Choices) (vfio.Plan, error) {
	plan, err := vfio.PlanDetach(s.machine, s.gpu, s.journal, choices, time.Now())
	switch {
	case errors.Is(err, vfio.ErrStuck):
		return plan, clikit.WithHint(err, "only a reboot ends it; nothing was changed now")
	case errors.Is(err, vfio.ErrModuleHeld):
		return plan, clikit.WithHint(err, "stop what uses that module, unload it (rmmod), and try again")
	}
	return plan, err
}
