package secureboottool

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/prompt"
)

func (t *tool) enable(c *cli.Context) error {
	if c.String("confirm") != "" && !c.Bool("no-microsoft") {
		return clikit.Usagef("--confirm belongs to --no-microsoft")
	}
	return t.change(c, Enable)
}

func (t *tool) disable(c *cli.Context) error { return t.change(c, Disable) }

func (t *tool) change(c *cli.Context, action Action) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	if err := t.env.RequireRoot(fmt.Sprintf("%s %s", name, action)); err != nil {
		return err
	}
	s := &session{tool: t, options: clikit.OptionsOf(c), store: store(t.env.Host.Files)}
	if !s.options.DryRun {
		unlock, err := s.store.Lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := s.begin(c, action); err != nil {
		return s.explain(err)
	}
	switch {
	case s.plan.Done != "":
		s.env.UI.Infof("%s", s.plan.Done)
		if s.options.JSON {
			return s.env.UI.JSON(Result{Action: action, Next: next(&s.facts)})
		}
		return nil
	case s.options.DryRun:
		if err := s.prepare(c.Context); err != nil {
			return err
		}
		return s.dryRun()
	}
	if err := s.agree(c); err != nil {
		return err
	}
	if err := s.prepare(c.Context); err != nil {
		return err
	}
	return s.apply(c.Context)
}

// prepare makes sure that the configuration can be built from: it is in git,
// git knows its files, and its inputs are locked.
func (s *session) prepare(ctx context.Context) error {
	var err error
	s.flake, err = flake.Open(ctx, s.env, s.options, s.facts.Flake)
	return clikit.Unchanged(err)
}

// begin looks at the machine, settles what an earlier run left, and plans.
func (s *session) begin(c *cli.Context, action Action) error {
	var err error
	if s.facts, err = s.look(c); err != nil {
		return err
	}
	if s.facts.Journal != nil {
		if s.options.DryRun {
			s.env.UI.Warnf("an earlier run was cut off: what it left is put back first")
		} else {
			if err := s.resume(c.Context); err != nil {
				return err
			}
			if s.facts, err = s.look(c); err != nil {
				return err
			}
		}
	}
	if action == Disable {
		s.plan, err = PlanDisable(&s.facts)
	} else {
		s.plan, err = PlanEnable(&s.facts, !c.Bool("no-microsoft"))
	}
	return err
}

// explain tells the steps of a refusal.
func (s *session) explain(err error) error {
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok {
		return err
	}
	if s.options.JSON {
		if jsonErr := s.env.UI.JSON(struct {
			Result

			Code  Code     `json:"code"`
			Steps []string `json:"steps"`
		}{Result{Action: s.plan.Action, Error: err.Error()}, refused.Code, refused.Steps}); jsonErr != nil {
			return jsonErr
		}
	}
	s.env.UI.Errorf("%v", err)
	if len(refused.Steps) == 1 {
		s.env.UI.Hintf("%s", refused.Steps[0])
		return clikit.ErrReported
	}
	lines := make([]string, len(refused.Steps))
	for i, text := range refused.Steps {
		lines[i] = fmt.Sprintf("%d. %s", i+1, text)
	}
	s.env.UI.Hintf("what to do:\n%s", strings.Join(lines, "\n"))
	return clikit.ErrReported
}

// agree asks before anything is changed. Leaving Microsoft's certificates out
// takes more than a yes.
func (s *session) agree(c *cli.Context) error {
	for _, note := range s.plan.Notes {
		s.env.UI.Infof("%s", note)
	}
	if s.plan.Action == Enable && s.plan.Enrol && !s.plan.Microsoft {
		return s.agreeToDarkness(c)
	}
	text := "Change this machine to Secure Boot?"
	if s.plan.Action == Disable {
		text = "Change this machine back to booting without Secure Boot?"
	}
	return s.env.Agree(c.Context, s.options, text, "")
}

func (s *session) agreeToDarkness(c *cli.Context) error {
	s.env.UI.Warnf("%s", romWarning(&s.facts))
	typed := c.String("confirm")
	if typed == "" {
		var err error
		if typed, err = s.askConfirmation(c.Context); err != nil {
			return clikit.Unchanged(err)
		}
	}
	if typed != confirmation {
		return clikit.WithHint(errors.New("not confirmed; nothing was changed"),
			"leave --no-microsoft out, which keeps the certificates, or type %q", confirmation)
	}
	return nil
}

func (s *session) askConfirmation(ctx context.Context) (string, error) {
	return s.env.Ask.Input(ctx, prompt.Question{
		Text: fmt.Sprintf("Type %q to leave Microsoft's certificates out", confirmation),
		Flag: fmt.Sprintf("--confirm %q", confirmation),
	}, "")
}

func (s *session) dryRun() error {
	if s.options.JSON {
		return s.env.UI.JSON(s.plan)
	}
	for _, note := range s.plan.Notes {
		s.env.UI.Infof("%s", note)
	}
	if s.plan.Action == Enable && s.plan.Enrol && !s.plan.Microsoft {
		s.env.UI.Warnf("%s", romWarning(&s.facts))
	}
	lines := s.plan.Lines(s.facts.Flake)
	for i, line := range lines {
		lines[i] = fmt.Sprintf("%d. %s", i+1, line)
	}
	return s.env.UI.Print(strings.Join(lines, "\n"))
}
