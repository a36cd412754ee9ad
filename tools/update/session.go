package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/settings"
)

// session carries a plan out.
type session struct {
	env    *clikit.Env
	r      request
	work   string
	before generations
	report report
	// homeManager is the unit whose log is shown, and where its log ended
	// before the switch; empty without home-manager.
	homeManager, cursor string
	// upgraded says that flake.lock was changed.
	upgraded bool
}

// report is the result.
type report struct {
	Applied       bool     `json:"applied"`
	Action        string   `json:"action"`
	Configuration string   `json:"configuration,omitempty"`
	Changes       *changes `json:"changes,omitempty"`
	Ephemeral     []losing `json:"ephemeral"`
	HomeManager   []string `json:"homeManager"`
	Reboot        bool     `json:"reboot"`
}

func newSession(env *clikit.Env, r request, work string) *session {
	action := string(r.action)
	if r.rollback {
		action = "rollback"
	}
	return &session{
		env: env, r: r, work: work,
		report: report{Action: action, Configuration: r.configuration, Ephemeral: []losing{}, HomeManager: []string{}},
	}
}

func (s *session) run(ctx context.Context, steps []step) (err error) {
	s.before = currentGenerations(s.env.Host.Files)
	if !s.r.rollback {
		// Root's nix and git may have written to the owner's repository.
		defer func() {
			err = errors.Join(err, flake.GiveBack(context.WithoutCancel(ctx), s.env, s.r.flake))
		}()
	}
	for _, step := range steps {
		done, err := s.step(ctx, step)
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	if s.r.options.JSON {
		return s.env.UI.JSON(s.report)
	}
	return nil
}

// step carries one step out; done ends the update, with success.
func (s *session) step(ctx context.Context, step step) (done bool, err error) {
	switch step.kind {
	case stepCompare:
		return s.compare(ctx)
	case stepConfirm:
		return s.confirm(ctx)
	case stepActivate:
		return false, s.activate(ctx, step)
	case stepLog:
		s.log(ctx)
		return false, nil
	case stepReboot:
		s.report.Reboot = true
	case stepUpgrade, stepClean, stepBuild:
	}
	s.env.UI.Stepf("%s", title(step.does))
	if _, err = s.env.Host.Run(ctx, step.command); err != nil {
		return false, s.unactivated(err, step.kind)
	}
	s.upgraded = s.upgraded || step.kind == stepUpgrade
	return false, nil
}

// unactivated says what a failure before the activation leaves.
func (s *session) unactivated(err error, failed kind) error {
	switch {
	case failed == stepReboot:
		return err
	case s.upgraded:
		return clikit.WithHint(err, "nothing was activated, but flake.lock has the new inputs; "+
			"take them back: git -C %s checkout flake.lock", s.r.flake.Dir())
	}
	return clikit.WithHint(err, "nothing was activated: the machine runs the system it had")
}

func title(text string) string { return string(text[0]-'a'+'A') + text[1:] }

// built is the store path of the new system.
func (s *session) built() (string, error) {
	path, err := os.Readlink(filepath.Join(s.work, resultLink))
	if err != nil {
		return "", fmt.Errorf("nixos-rebuild build left no result: %w", err)
	}
	return path, nil
}

// compare shows what the new system changes.
func (s *session) compare(ctx context.Context) (done bool, err error) {
	path, err := s.built()
	if err != nil {
		return false, err
	}
	if s.report.Changes, err = s.changes(ctx, path); err != nil {
		return false, err
	}
	if s.nothingToDo(path) {
		s.env.UI.Donef("nothing to do: the machine runs this system already, and boots it")
		return true, nil
	}
	if !s.r.options.JSON {
		if err := s.showChanges(); err != nil {
			return false, err
		}
	}
	if err := s.findEphemeral(ctx, path); err != nil {
		return false, err
	}
	if len(s.report.Ephemeral) > 0 {
		s.warnEphemeral()
	}
	if s.r.action == nix.Build {
		s.env.UI.Donef("built %s", path)
		return false, nil
	}
	return false, s.findHomeManager(ctx, path)
}

// nothingToDo tells whether the machine has this system already.
func (s *session) nothingToDo(path string) bool {
	same := s.before.running == path && (s.before.boots == path || s.r.action == nix.Test)
	return same && !s.r.bootloader && !s.r.reboot && s.r.action != nix.Build
}

// confirm asks for the go-ahead.
func (s *session) confirm(ctx context.Context) (done bool, err error) {
	if len(s.report.Ephemeral) > 0 && !s.r.allowWipe {
		if ok, err := s.confirmWipe(ctx); err != nil || !ok {
			return s.declined(err)
		}
	}
	question := title(s.r.intent()) + "?"
	switch {
	case s.r.rollback:
		question = "Go back to the generation before?"
		if err := s.findHomeManager(ctx, settings.RunningSystem); err != nil {
			return false, err
		}
	case s.r.targetHost != "":
		s.env.UI.Infof("What changes on %s cannot be compared from here.", s.r.targetHost)
	}
	ok, err := s.env.Confirm(ctx, s.r.options, question, "")
	if err != nil || !ok {
		return s.declined(err)
	}
	return false, nil
}

// confirmWipe asks whether what the new generation no longer keeps may go.
// --yes does not answer this: what is lost here was meant to be kept.
func (s *session) confirmWipe(ctx context.Context) (bool, error) {
	const keepIt = "To keep it, add it to settings.disk.immutability.persist.paths."
	if s.r.options.Yes {
		return false, clikit.WithHint(errors.New("the new generation no longer keeps paths that hold data"),
			"%s To let it go unattended, use --allow-wipe.", keepIt)
	}
	return s.env.Ask.Confirm(ctx, prompt.Question{
		Text: "Go on, although the next boot wipes that?", Help: keepIt, Flag: "--allow-wipe",
	}, false)
}

func (s *session) declined(err error) (done bool, _ error) {
	if err != nil {
		return true, err
	}
	s.env.UI.Infof("Nothing was activated.")
	if s.upgraded {
		s.env.UI.Hintf("flake.lock has the new inputs; take them back: git -C %s checkout flake.lock", s.r.flake.Dir())
	}
	return true, nil
}

// activate runs nixos-rebuild, and tells what became of the machine when it
// fails.
func (s *session) activate(ctx context.Context, step step) error {
	s.env.UI.Stepf("%s", title(step.does))
	_, err := s.env.Host.Run(ctx, step.command)
	if err != nil {
		return s.explain(ctx, err)
	}
	s.report.Applied = true
	switch {
	case s.r.targetHost != "":
		s.env.UI.Donef("%s is updated", s.r.targetHost)
	case s.r.action == nix.Boot:
		s.env.UI.Donef("the next boot starts the new system")
	case s.r.action == nix.Test:
		s.env.UI.Donef("the machine runs the new system; the next boot starts the old one")
	default:
		s.env.UI.Donef("the machine runs the new system")
	}
	if s.before.kernel != "" && s.r.targetHost == "" && s.r.action == nix.Switch && !s.r.reboot {
		if now := currentGenerations(s.env.Host.Files); now.kernel != s.before.kernel {
			s.env.UI.Hintf("the kernel is another one: it runs after a reboot")
		}
	}
	return nil
}

// newSettings are the settings of a built system; nil where it carries none.
func (s *session) newSettings(system string) (*settings.Settings, error) {
	found, err := settings.Read(s.env.Host.Files, filepath.Join(system, settings.File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // an older configuration carries no settings, which is no error
	}
	return found, err
}
