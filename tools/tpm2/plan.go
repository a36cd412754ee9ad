package tpm2tool

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/tpm2"
)

// Want is what the owner asked for.
type Want struct {
	PCRs         []int
	PIN          bool
	Insecure     bool
	RecoveryKey  bool
	HeaderBackup string
}

// Plan is what enabling does.
type Plan struct {
	Device       string      `json:"device"`
	Policy       tpm2.Policy `json:"policy"`
	HeaderBackup string      `json:"headerBackup,omitempty"`
	// RecoverySlot is the slot of the new recovery key, -1 for none.
	RecoverySlot int `json:"recoverySlot"`
	// Wipes are the slots that the TPM has now.
	Wipes []int `json:"wipes"`
	// Warnings are what the owner has to know before.
	Warnings []string `json:"warnings,omitempty"`
}

// RefusedError is a refusal, with what to do about it.
type RefusedError struct {
	Code   Code
	Reason error
	Cure   string
}

// Error is the reason.
func (e *RefusedError) Error() string { return e.Reason.Error() }

// Unwrap is the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }

// Code names a refusal for programs and tests.
type Code string

// The refusals.
const (
	NoTPM           Code = "no-tpm"
	NotConfigured   Code = "not-configured"
	NoSecureBoot    Code = "no-secure-boot"
	PCRsNotMeasured Code = "pcrs-not-measured"
	NoOtherWay      Code = "no-other-way"
	BadPCRs         Code = "bad-pcrs"
)

func refuse(code Code, reason error, cure string) error {
	return &RefusedError{Code: code, Reason: reason, Cure: cure}
}

// MakePlan plans from what was seen, or refuses.
func MakePlan(f Facts, want Want) (Plan, error) {
	plan := Plan{
		Device: f.Device, HeaderBackup: want.HeaderBackup, RecoverySlot: -1,
		Policy: tpm2.Policy{PCRs: want.PCRs, VolumeKeyUnmeasured: true, PIN: want.PIN},
		Wipes:  f.Header.SlotsOf(luks.TokenTPM2),
	}
	if want.Insecure {
		plan.Policy.PCRs, plan.Policy.VolumeKeyUnmeasured = []int{tpm2.PCRSecureBoot}, false
	}
	if err := check(f, want, plan.Policy); err != nil {
		return plan, err
	}
	if want.Insecure {
		plan.Warnings = append(plan.Warnings, insecureWarning(f))
	}
	if want.RecoveryKey {
		slot, err := f.Header.FreeSlot()
		if err != nil {
			return plan, err
		}
		plan.RecoverySlot = slot
	}
	return plan, nil
}

// insecureWarning says in words what is left of the protection.
func insecureWarning(f Facts) string {
	text := "with PCR 7 alone the disk is only safe from somebody who takes it out of this machine. "
	if f.Firmware == nil || !f.Firmware.SecureBoot {
		return text + "Secure Boot is off: whoever boots anything at all on this machine, from a USB stick, gets the disk's key"
	}
	return text + "Whoever can change the kernel's command line, or swaps the partition for one of their own, gets the disk's key"
}

func check(f Facts, want Want, policy tpm2.Policy) error {
	if f.NoTPM != nil {
		return refuse(NoTPM, f.NoTPM, "look for TPM, fTPM (AMD) or PTT (Intel) in the firmware's setup, and switch it on")
	}
	if slices.Contains(policy.PCRs, tpm2.PCRVolumeKey) {
		return refuse(BadPCRs, errors.New("PCR 15 is always bound at zero; its present value would never come again at boot"),
			"leave 15 out of --pcrs")
	}
	if !f.Settings.TPM.Enable {
		return refuse(NotConfigured, errors.New("the configuration does not ask the TPM at boot (settings.tpm.enable is false)"),
			"set settings.tpm.enable = true; in the host's file, run nixos-update, and boot again")
	}
	if !want.Insecure && !f.SecureBootActive() {
		return refuse(NoSecureBoot, noSecureBoot(f), "sudo nixos-secure-boot enable, boot again, then run this; "+
			"or --insecure, which binds to PCR 7 alone and says what that means")
	}
	if slices.Contains(policy.PCRs, tpm2.PCRSecureBoot) && len(bytes.Trim(f.PCRs[tpm2.PCRSecureBoot], "\x00")) == 0 {
		return refuse(PCRsNotMeasured, errors.New("PCR 7 is empty: the firmware measured nothing, so the TPM could not tell this machine from another"),
			"update the firmware; a virtual machine needs a TPM that its firmware knows")
	}
	if len(f.Header.Typed()) == 0 {
		return refuse(NoOtherWay, errors.New("the disk has neither a passphrase nor a recovery key: if the TPM ever refuses, nobody could open it"),
			"systemd-cryptenroll --unlock-tpm2-device=auto --recovery-key "+f.Device+" adds a recovery key")
	}
	return nil
}

// noSecureBoot says what is missing.
func noSecureBoot(f Facts) error {
	switch {
	case f.Firmware == nil:
		return errors.New("this machine was not booted by UEFI")
	case !f.Firmware.SecureBoot:
		return errors.New("the system was not booted under Secure Boot: anybody could boot anything here, and the TPM would not notice")
	default:
		return fmt.Errorf("the system was booted under Secure Boot, but not by lanzaboote (%s): "+
			"the command line is not signed, and PCR 12 changes with every generation", loaderOf(f))
	}
}

func loaderOf(f Facts) string {
	for _, name := range []string{f.Firmware.Stub, f.Firmware.Loader} {
		if name != "" {
			return name
		}
	}
	return "an unknown loader"
}

// Lines are the steps for a person.
func (p Plan) Lines() []string {
	var lines []string
	if p.HeaderBackup != "" {
		lines = append(lines, "save the header of "+p.Device+" to "+p.HeaderBackup)
	}
	if p.RecoverySlot >= 0 {
		lines = append(lines, fmt.Sprintf("add a recovery key to key slot %d, test it, and show it once", p.RecoverySlot))
	}
	for _, slot := range p.Wipes {
		lines = append(lines, fmt.Sprintf("wipe key slot %d, which the TPM has now", slot))
	}
	return append(lines, "enrol the TPM: "+p.Policy.String(), "check that what was enrolled would unlock at the next boot")
}
