package tpm2tool

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/tpm2"
)

func (t *tool) disable(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	if err := t.env.RequireRoot(name + " disable"); err != nil {
		return err
	}
	s := &session{tool: t, options: clikit.OptionsOf(c)}
	defer s.wipe()
	var err error
	if s.facts, s.volume, err = t.look(c); err != nil {
		return err
	}
	s.plan = Plan{Device: s.facts.Device, RecoverySlot: -1, Wipes: s.facts.Header.SlotsOf(luks.TokenTPM2)}
	if len(s.facts.Header.TokensOf(luks.TokenTPM2)) == 0 {
		s.env.UI.Infof("no TPM is enrolled on %s", s.volume.Device)
		if s.options.JSON {
			return s.env.UI.JSON(Result{Action: "disable", Device: s.volume.Device, Slots: slotLines(s.facts.Header)})
		}
		return nil
	}
	if len(s.facts.Header.Typed()) == 0 {
		return clikit.WithHint(fmt.Errorf("the TPM is the only way into %s: %w", s.volume.Device, luks.ErrLastWay),
			"systemd-cryptenroll --unlock-tpm2-device=auto --recovery-key %s adds a recovery key", s.volume.Device)
	}
	if s.options.DryRun {
		return s.dryRunDisable()
	}
	if err := s.askPassphrase(c); err != nil {
		return err
	}
	if err := s.env.Agree(c.Context, s.options, "Remove the TPM's key slots?", ""); err != nil {
		return err
	}
	s.env.UI.Stepf("wiping the TPM's key slots")
	s.hook("wipe", false)
	err = tpm2.Enrolment{Volume: s.volume, TPM: t.hooks.TPM}.Remove(c.Context)
	s.hook("wipe", true)
	if err != nil {
		return s.fail("disable", err)
	}
	return s.tell("disable", nil)
}

func (s *session) dryRunDisable() error {
	if s.options.JSON {
		return s.env.UI.JSON(s.plan)
	}
	for _, slot := range s.plan.Wipes {
		if err := s.env.UI.Printf("wipe key slot %d, which the TPM has now", slot); err != nil {
			return err
		}
	}
	return nil
}
