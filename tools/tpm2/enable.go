package tpm2tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/passwd"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/qr"
	"nixos-go/pkg/run"
	"nixos-go/pkg/tpm2"
	"nixos-go/pkg/ui"
)

// Result is the result of enable and disable.
type Result struct {
	Action string `json:"action"`
	Device string `json:"device"`
	// Error is what went wrong, "" for nothing.
	Error  string       `json:"error,omitempty"`
	Policy *tpm2.Policy `json:"policy,omitempty"`
	// RecoveryKey is the new recovery key: the only time it is ever told.
	RecoveryKey string `json:"recoveryKey,omitempty"`
	// Slots are the key slots afterwards.
	Slots []string `json:"slots"`
}

// session is one enable or disable.
type session struct {
	*tool

	options    clikit.Options
	facts      Facts
	volume     luks.Volume
	plan       Plan
	passphrase []byte
	pin        []byte
	recovery   []byte
}

func (s *session) wipe() {
	for _, secret := range [][]byte{s.passphrase, s.pin, s.recovery} {
		run.Wipe(secret)
	}
	s.env.Redact.Wipe()
}

func (t *tool) enable(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	want, err := wantOf(c)
	if err != nil {
		return err
	}
	if err := t.env.RequireRoot(name + " enable"); err != nil {
		return err
	}
	s := &session{tool: t, options: clikit.OptionsOf(c)}
	defer s.wipe()
	if s.facts, s.volume, err = t.look(c); err != nil {
		return err
	}
	if s.plan, err = MakePlan(s.facts, want); err != nil {
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			return clikit.WithHint(err, "%s", refused.Cure)
		}
		return err
	}
	if s.options.DryRun {
		return s.dryRun()
	}
	if err := s.checkPrograms(c.Context); err != nil {
		return err
	}
	if err := s.agree(c.Context, want); err != nil {
		return err
	}
	if err := s.ask(c); err != nil {
		return err
	}
	return s.apply(c.Context)
}

func wantOf(c *cli.Context) (Want, error) {
	want := Want{
		PIN: c.Bool("pin") || c.String("pin-file") != "", Insecure: c.Bool("insecure"),
		RecoveryKey: c.Bool("recovery-key"), HeaderBackup: c.String("header-backup"),
	}
	if want.Insecure && c.IsSet("pcrs") {
		return want, clikit.Usagef("--insecure means PCR 7 alone: it goes with no --pcrs")
	}
	var err error
	if want.PCRs, err = tpm2.ParsePCRs(c.String("pcrs")); err != nil {
		return want, clikit.Usagef("--pcrs: %v", err)
	}
	return want, nil
}

// oldest is the version of systemd from which on systemd-cryptenroll takes
// values of PCRs (NEWS of systemd 255).
const oldest = 255

// checkPrograms makes sure of the version before anything is wiped.
func (s *session) checkPrograms(ctx context.Context) error {
	result, err := s.env.Host.Run(ctx, run.New("systemd-cryptenroll", "--version"))
	if err != nil {
		return err
	}
	version, err := parseVersion(string(result.Stdout))
	if err != nil {
		return err
	}
	if s.plan.Policy.VolumeKeyUnmeasured && version < oldest {
		return clikit.WithHint(fmt.Errorf("systemd %d is too old for a policy with PCR 15 at zero: %d is needed", version, oldest),
			"update NixOS, or --insecure, which binds to PCR 7 alone and says what that means")
	}
	if s.plan.HeaderBackup != "" {
		if _, err := os.Lstat(s.plan.HeaderBackup); err == nil {
			return fmt.Errorf("--header-backup %s: the file exists; name another one", s.plan.HeaderBackup)
		}
	}
	return nil
}

// parseVersion reads "systemd 258 (258.2)".
func parseVersion(text string) (int, error) {
	fields := strings.Fields(text)
	if len(fields) < 2 || fields[0] != "systemd" {
		return 0, fmt.Errorf("systemd-cryptenroll --version: %q is not understood", text)
	}
	digits := fields[1]
	for i, r := range digits {
		if r < '0' || r > '9' {
			digits = digits[:i]
			break
		}
	}
	version, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("systemd-cryptenroll --version: %q: %w", text, err)
	}
	return version, nil
}

// agree has the owner say yes to what is insecure.
func (s *session) agree(ctx context.Context, want Want) error {
	for _, text := range s.plan.Warnings {
		s.env.UI.Warnf("%s", text)
	}
	if !want.Insecure {
		return nil
	}
	return s.env.Agree(ctx, s.options, "Enrol the TPM all the same?", "")
}

// ask gets the passphrase, tests it, and gets a new PIN.
func (s *session) ask(c *cli.Context) error {
	if err := s.askPassphrase(c); err != nil {
		return err
	}
	if !s.plan.Policy.PIN {
		return nil
	}
	var err error
	if file := c.String("pin-file"); file != "" {
		s.pin, err = run.ReadSecret(file)
	} else {
		say := func(text string) { s.env.UI.Warnf("%s", text) }
		s.pin, err = prompt.NewPassword(c.Context, s.env.Ask, prompt.Question{
			Text: "New PIN for the TPM", Flag: "--pin-file FILE",
			Help: "It may be short: the TPM itself stops whoever guesses too often.",
		}, passwd.Check, say)
	}
	if err != nil {
		return clikit.Unchanged(err)
	}
	s.env.Redact.Add(s.pin)
	return passwd.Check(s.pin)
}

// askPassphrase gets a passphrase or recovery key that opens the disk: the
// proof that the owner will get in without the TPM.
func (s *session) askPassphrase(c *cli.Context) error {
	var err error
	if file := c.String("current-password-file"); file != "" {
		s.passphrase, err = run.ReadSecret(file)
	} else {
		s.passphrase, err = s.env.Ask.Password(c.Context, prompt.Question{
			Text: "Passphrase or recovery key of the disk", Flag: "--current-password-file FILE",
		})
	}
	if err != nil {
		return clikit.Unchanged(err)
	}
	s.env.Redact.Add(s.passphrase)
	s.env.UI.Stepf("testing the passphrase")
	_, err = s.volume.Opens(c.Context, s.passphrase, s.facts.Header.Typed())
	if errors.Is(err, luks.ErrWrongPassphrase) {
		return fmt.Errorf("%s: %w; nothing was changed", s.volume.Device, err)
	}
	return err
}

func (s *session) hook(kind string, done bool) {
	if s.hooks.Step != nil {
		s.hooks.Step(kind, done)
	}
}

// apply does the steps. After the first of them, an error is told together
// with the key slots that exist then.
func (s *session) apply(ctx context.Context) error {
	steps := []struct {
		kind string
		do   func(context.Context) error
	}{{"backup", s.backup}, {"recovery", s.makeRecoveryKey}, {"enrol", s.enrol}, {"verify", s.verify}}
	for _, step := range steps {
		err := context.Cause(ctx)
		if err == nil {
			s.hook(step.kind, false)
			err = step.do(ctx)
			s.hook(step.kind, true)
		}
		if err != nil {
			return s.fail("enable", err)
		}
	}
	return s.tell("enable", &s.plan.Policy)
}

func (s *session) fail(action string, cause error) error {
	s.env.UI.Errorf("%v", cause)
	if enrol, ok := errors.AsType[*tpm2.EnrolError](cause); ok && enrol.Wiped {
		s.env.UI.Infof("what the TPM had before was wiped: the next boot asks for the passphrase")
	}
	h, err := s.volume.Header()
	if err != nil {
		s.env.UI.Errorf("%v", err)
		return clikit.ErrReported
	}
	for _, line := range slotLines(h) {
		s.env.UI.Infof("%s", line)
	}
	s.env.UI.Hintf("the passphrase that you typed opens the disk; run %s %s again when the cause is mended", name, action)
	if s.options.JSON {
		result := Result{Action: action, Device: s.volume.Device, Error: cause.Error(), Slots: slotLines(h)}
		if s.plan.RecoverySlot >= 0 && h.KindOf(s.plan.RecoverySlot) == luks.Recovery {
			result.RecoveryKey = string(s.recovery) // it works, and is told nowhere else
		}
		if err := s.env.UI.JSON(result); err != nil {
			return err
		}
	}
	return clikit.ErrReported
}

func (s *session) backup(ctx context.Context) error {
	if s.plan.HeaderBackup == "" {
		return nil
	}
	s.env.UI.Stepf("saving the header to %s", s.plan.HeaderBackup)
	if _, err := s.volume.Runner.Run(ctx, s.volume.Backup(s.plan.HeaderBackup)); err != nil {
		return err
	}
	s.env.UI.Hintf("keep %s off this disk, and secret: with it, today's passphrases open the disk even after they were changed",
		s.plan.HeaderBackup)
	return nil
}

// makeRecoveryKey adds the key, tests it, shows it, and only then marks its
// slot: a slot that is marked has been seen by its owner.
func (s *session) makeRecoveryKey(ctx context.Context) error {
	if s.plan.RecoverySlot < 0 {
		return nil
	}
	s.env.UI.Stepf("adding a recovery key to key slot %d, and testing it", s.plan.RecoverySlot)
	var err error
	if s.recovery, err = luks.NewRecoveryKey(); err != nil {
		return err
	}
	s.env.Redact.Add(s.recovery)
	if err := s.volume.Add(ctx, s.plan.RecoverySlot, s.passphrase, s.recovery, true); err != nil {
		return errors.Join(err, s.takeBack(context.WithoutCancel(ctx)))
	}
	if err := s.showRecoveryKey(); err != nil {
		return err
	}
	return s.volume.MarkRecovery(ctx, s.plan.RecoverySlot)
}

// takeBack removes a recovery key that nobody has seen.
func (s *session) takeBack(ctx context.Context) error {
	h, err := s.volume.Header()
	if err != nil {
		return err
	}
	if _, there := h.Slots[s.plan.RecoverySlot]; !there {
		return nil
	}
	return s.volume.Remove(ctx, s.plan.RecoverySlot, s.passphrase)
}

func (s *session) showRecoveryKey() error {
	if s.options.JSON {
		return nil // it is part of the result
	}
	code, err := qr.Encode(s.recovery)
	if err != nil {
		return err
	}
	defer code.Wipe()
	u := s.env.UI
	u.Infof("This is the recovery key. It opens the disk when the TPM and the passphrase do not. " +
		"Write it down or scan it, keep it away from this machine: it is never shown again.")
	lines := append([]string{"", "    " + string(s.recovery), ""}, paint(u, code)...)
	return u.Print(strings.Join(lines, "\n") + "\n")
}

// black on white, whatever the terminal's own colours are
// (ECMA-48: foreground black, background bright white).
const blackOnWhite ui.Style = "30;107"

func paint(u *ui.UI, code *qr.Code) []string {
	// Without colour the terminal is taken to be dark.
	if u.Out(blackOnWhite, "x") == "x" {
		return code.Lines(false)
	}
	lines := code.Lines(true)
	for i, line := range lines {
		lines[i] = u.Out(blackOnWhite, line)
	}
	return lines
}

func (s *session) enrol(ctx context.Context) error {
	if len(s.plan.Wipes) > 0 {
		s.env.UI.Stepf("wiping what the TPM has, then enrolling: %s", s.plan.Policy)
	} else {
		s.env.UI.Stepf("enrolling the TPM: %s", s.plan.Policy)
	}
	e := tpm2.Enrolment{Volume: s.volume, Policy: s.plan.Policy, TPM: s.hooks.TPM}
	return e.Apply(ctx, s.passphrase, s.pin)
}

// verify compares the token that was written with the PCRs.
func (s *session) verify(context.Context) error {
	h, err := s.volume.Header()
	if err != nil {
		return err
	}
	now := s.facts
	now.Header = h
	status, err := MakeStatus(now)
	if err != nil {
		return err
	}
	if status.Unlocks != tpm2.Matches {
		return errors.New("the TPM was enrolled, but what stands in the header would not unlock at the next boot")
	}
	return nil
}

func (s *session) tell(action string, policy *tpm2.Policy) error {
	h, err := s.volume.Header()
	if err != nil {
		return err
	}
	if action == "enable" {
		s.env.UI.Donef("the TPM unlocks %s: %s", s.volume.Device, policy)
		s.env.UI.Hintf("boot again to try it; sudo %s status explains what is enrolled", name)
	} else {
		s.env.UI.Donef("the TPM no longer unlocks %s: the next boot asks for the passphrase", s.volume.Device)
	}
	if !s.options.JSON {
		return nil
	}
	return s.env.UI.JSON(Result{
		Action: action, Device: s.volume.Device, Policy: policy,
		RecoveryKey: string(s.recovery), Slots: slotLines(h),
	})
}

func (s *session) dryRun() error {
	if s.options.JSON {
		return s.env.UI.JSON(s.plan)
	}
	for _, text := range s.plan.Warnings {
		s.env.UI.Warnf("%s", text)
	}
	lines := s.plan.Lines()
	for i, line := range lines {
		lines[i] = fmt.Sprintf("%d. %s", i+1, line)
	}
	return s.env.UI.Print(strings.Join(lines, "\n"))
}
