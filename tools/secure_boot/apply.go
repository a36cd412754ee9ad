package secureboottool

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/run"
	"nixos-go/pkg/secureboot"
	"nixos-go/pkg/settings"
)

// Result is the result of enable and disable.
type Result struct {
	Action  Action `json:"action"`
	Changed bool   `json:"changed"`
	// Error is what went wrong, Left what could not be put back.
	Error   string   `json:"error,omitempty"`
	Left    []string `json:"left,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Next    string   `json:"next,omitempty"`
}

// session is one change.
type session struct {
	*tool

	options clikit.Options
	facts   Facts
	plan    Plan
	store   Store
	flake   nix.Flake
	removed []string
}

// step is one part of a change.
type step struct {
	kind, text string
	do         func(context.Context) error
}

func (s *session) steps() []step {
	rebuild := step{"rebuild", "rebuilding the system for the next boot", s.rebuild}
	target := step{"target", fmt.Sprintf("setting the target to %s", s.plan.Target), s.setTarget}
	if s.plan.Action == Disable {
		return []step{target, rebuild, {"verify", "checking what systemd-boot needs", s.verifyStandard}}
	}
	var steps []step
	if s.plan.CreateKeys {
		steps = append(steps, step{"keys", "making keys in " + s.plan.Keys, s.createKeys})
	}
	steps = append(steps, target, rebuild, step{"verify", "verifying the signatures on " + s.plan.ESP, s.verifySecure})
	if s.plan.Enrol {
		steps = append(steps, step{"enrol", "giving the keys to the firmware", s.enrol})
	}
	return steps
}

// apply copies the boot files, writes the journal and does the steps. A
// failure puts everything back; once the firmware has the keys there is no way
// back but the firmware's own, and none is needed: everything is signed and
// was verified.
func (s *session) apply(ctx context.Context) error {
	s.env.UI.Stepf("copying the boot files of %s", s.plan.ESP)
	s.hook("begin", false)
	err := s.store.Begin(Journal{
		Action: s.plan.Action, Started: time.Now().UTC(), Flake: s.facts.Flake,
		Target: s.facts.Config.Target, Generation: s.facts.Generation, Enrolled: s.facts.Enrolled(), ESP: s.plan.ESP,
	})
	s.hook("begin", true)
	if err != nil {
		return err
	}
	for _, st := range s.steps() {
		err := context.Cause(ctx)
		if err == nil {
			s.env.UI.Stepf("%s", st.text)
			s.hook(st.kind, false)
			err = st.do(ctx)
			s.hook(st.kind, true)
		}
		switch {
		case errors.Is(err, errUnknownFirmware):
			return clikit.WithHint(errors.Join(err, s.store.End()),
				"everything is signed and verified, so the machine boots with the keys and without; %s status tells more after a boot", name)
		case err != nil:
			return s.fail(context.WithoutCancel(ctx), fmt.Errorf("%s: %w", st.text, err))
		}
	}
	s.clean(s.plan.Action, s.plan.ESP)
	if err := s.store.End(); err != nil {
		return err
	}
	return s.tell()
}

func (s *session) hook(kind string, done bool) {
	if s.hooks.Step != nil {
		s.hooks.Step(kind, done)
	}
}

// fail puts back what was, and says what is the case now.
func (s *session) fail(ctx context.Context, cause error) error {
	journal, err := s.store.Load()
	if err == nil && journal == nil {
		err = errors.New("the journal is gone")
	}
	var left []string
	if err != nil {
		left = append(left, err.Error())
	} else {
		left = s.putBack(ctx, journal)
	}
	s.env.UI.Errorf("%v", cause)
	if len(left) == 0 {
		s.env.UI.Infof("the configuration, the boot files and the default generation are as they were before")
	}
	if s.plan.CreateKeys && s.facts.Keys != nil {
		s.env.UI.Infof("the new keys stay in %s; the firmware does not have them", s.plan.Keys)
	}
	for _, text := range left {
		s.env.UI.Errorf("not put back: %s", text)
	}
	if len(left) > 0 {
		s.env.UI.Hintf("mend the cause and run %s %s again: it puts back what is left before it begins; do not boot before", name, s.plan.Action)
	}
	if s.options.JSON {
		if err := s.env.UI.JSON(Result{Action: s.plan.Action, Error: cause.Error(), Left: left}); err != nil {
			return err
		}
	}
	return clikit.ErrReported
}

// putBack puts the boot files, the target and the default generation back, and
// tells what it could not. Boot files come first: they decide whether the
// machine boots.
func (s *session) putBack(ctx context.Context, j *Journal) []string {
	var left []string
	try := func(what string, err error) {
		if err != nil {
			left = append(left, what+": "+err.Error())
		}
	}
	s.env.UI.Stepf("putting the boot files of %s back", j.ESP)
	s.hook("undo", false)
	try("the boot files", secureboot.Restore(j.ESP, s.store.copyFolder(), j.Files))
	s.hook("undo", true)
	try("the target", s.putTargetBack(j))
	try("the default generation", s.putGenerationBack(ctx, j))
	if len(left) == 0 {
		try("the journal", s.store.End())
	}
	return left
}

func (s *session) putTargetBack(j *Journal) error {
	config, err := settings.ReadConfig(j.Flake)
	if err != nil {
		return err
	}
	if config.Target == j.Target {
		return nil
	}
	config.Target = j.Target
	return settings.WriteConfig(j.Flake, config)
}

func (s *session) putGenerationBack(ctx context.Context, j *Journal) error {
	now, err := defaultGeneration(s.env.Host.Files)
	if err != nil {
		return err
	}
	if j.Generation == 0 || now == j.Generation {
		return nil
	}
	_, err = s.env.Host.Run(ctx, run.New("nix-env", "--profile", profile, "--switch-generation", strconv.Itoa(j.Generation)))
	return err
}

// resume finishes what a run that was cut off has left: it is put back, unless
// that run has given the keys to the firmware, when going back would leave a
// machine that does not boot. By then everything was signed and verified. Keys
// that the firmware had before the run say nothing about how far it got.
func (s *session) resume(ctx context.Context) error {
	j := s.facts.Journal
	if j == nil {
		return nil
	}
	if j.Action == Enable && !j.Enrolled && s.facts.Enrolled() && s.facts.Config.Target == settings.SecureBoot {
		s.env.UI.Infof("an earlier run was cut off after the firmware had taken the keys; the rest is done now")
		s.clean(j.Action, j.ESP)
		return s.store.End()
	}
	s.env.UI.Infof("an earlier run (%s, %s) was cut off: first, everything is put back", j.Action, j.Started.Format(time.DateTime))
	if left := s.putBack(ctx, j); len(left) > 0 {
		return fmt.Errorf("not put back: %s", strings.Join(left, "; not put back: "))
	}
	return nil
}

func (s *session) createKeys(ctx context.Context) error {
	if _, err := s.env.Host.Run(ctx, run.New("sbctl", "create-keys")); err != nil {
		return err
	}
	keys, err := secureboot.ReadKeys(s.env.Host.Files, s.plan.Keys)
	if errors.Is(err, secureboot.ErrNoKeys) {
		return fmt.Errorf("sbctl has made its keys somewhere else than in %s (settings.boot.pkiBundle); /etc/sbctl/sbctl.conf says where: %w", s.plan.Keys, err)
	}
	if err != nil {
		return err
	}
	s.facts.Keys = &keys
	return nil
}

func (s *session) setTarget(context.Context) error {
	config, err := settings.ReadConfig(s.facts.Flake)
	if err != nil {
		return err
	}
	config.Target = s.plan.Target
	return settings.WriteConfig(s.facts.Flake, config)
}

func (s *session) rebuild(ctx context.Context) error {
	rebuild := nix.Rebuild{
		Action: nix.Boot, InstallBootloader: true,
		Configuration: settings.Configuration(s.facts.Config.Host(), s.plan.Target),
	}
	if _, err := s.env.Host.Run(ctx, rebuild.Command(s.flake)); err != nil {
		return err
	}
	var err error
	s.facts.Generation, err = defaultGeneration(s.env.Host.Files)
	return err
}

func (s *session) verifySecure(context.Context) error {
	own, trusted := s.facts.certificates()
	report, err := secureboot.Inspect(s.plan.ESP, own, trusted)
	if err != nil {
		return err
	}
	s.facts.Report = &report
	return s.verified(report)
}

func (s *session) verifyStandard(context.Context) error {
	report, err := secureboot.InspectStandard(s.plan.ESP)
	if err != nil {
		return err
	}
	return s.verified(report)
}

// verified wants a sound ESP on which the default generation is.
func (s *session) verified(report secureboot.Report) error {
	problems := report.Problems
	if !s.facts.hasDefault(report.Generations) {
		problems = append(problems, fmt.Sprintf("the default generation, %d, is not in the boot menu", s.facts.Generation))
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("the machine would not boot like this:\n  %s", strings.Join(problems, "\n  "))
}

// errUnknownFirmware is a firmware that may have taken the keys or not.
// Nothing is put back then: what is signed and verified boots either way.
var errUnknownFirmware = errors.New("whether the firmware has the keys cannot be read")

// enrol gives the keys to the firmware and reads them back. What sbctl says
// does not count, what the firmware has does: with a platform key in place,
// going back would leave a machine that does not boot.
func (s *session) enrol(ctx context.Context) error {
	flag := "--microsoft"
	if !s.plan.Microsoft {
		flag = "--yes-this-might-brick-my-machine"
	}
	_, runErr := s.env.Host.Run(ctx, run.New("sbctl", "enroll-keys", flag))
	firmware, err := secureboot.ReadState(s.env.Host.Files)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnknownFirmware, errors.Join(runErr, err))
	}
	s.facts.Firmware = &firmware
	switch {
	case s.facts.Enrolled():
		if runErr != nil {
			s.env.UI.Warnf("sbctl reported a failure, but the firmware has the keys: %v", runErr)
		}
		return nil
	case runErr != nil:
		return runErr
	default:
		return errors.New("sbctl ended well, but the firmware does not have the keys")
	}
}

// clean removes what the earlier method left. The machine boots with or
// without it, so that a failure is a warning.
func (s *session) clean(action Action, esp string) {
	s.hook("clean", false)
	defer s.hook("clean", true)
	stale, err := secureboot.Stale(esp, action == Enable)
	if err == nil {
		err = secureboot.Remove(esp, stale)
	}
	if err != nil {
		s.env.UI.Warnf("old boot files could not be removed: %v", err)
		return
	}
	s.removed = stale
	for _, file := range stale {
		s.env.UI.Infof("removed %s", path.Join(esp, file))
	}
}

func (s *session) tell() error {
	next := "boot again; sudo nixos-secure-boot status tells whether Secure Boot is active"
	if s.plan.Action == Disable {
		s.env.UI.Donef("the next boot is systemd-boot's, without signatures")
		next = "boot again"
	} else {
		s.env.UI.Donef("everything that boots is signed and verified, and the firmware has your keys")
		if !s.plan.Enrol {
			next = `boot into the firmware's setup (systemctl reboot --firmware-setup) and set "Secure Boot" to Enabled`
		}
	}
	for _, note := range s.plan.Notes {
		s.env.UI.Infof("%s", note)
	}
	s.env.UI.Hintf("%s", next)
	if s.options.JSON {
		return s.env.UI.JSON(Result{
			Action: s.plan.Action, Changed: true, Removed: s.removed, Notes: s.plan.Notes, Next: next,
		})
	}
	return nil
}
