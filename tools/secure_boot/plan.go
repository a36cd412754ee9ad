package secureboottool

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nixos-go/pkg/settings"
)

// Plan is a change of the boot method.
type Plan struct {
	Action Action `json:"action"`
	// Target is what config.json will say.
	Target settings.Target `json:"target"`
	// CreateKeys and Enrol tell whether keys have to be made and given to the
	// firmware.
	CreateKeys bool   `json:"createKeys"`
	Enrol      bool   `json:"enrol"`
	Microsoft  bool   `json:"microsoft"`
	Keys       string `json:"keys"`
	ESP        string `json:"esp"`
	// Done says that nothing is to be done.
	Done string `json:"done,omitempty"`
	// Notes are what the owner should know before.
	Notes []string `json:"notes,omitempty"`
}

// RefusedError is a refusal, with the steps to take.
type RefusedError struct {
	Code   Code
	Reason error
	Steps  []string
}

// Error is the reason.
func (e *RefusedError) Error() string { return e.Reason.Error() }

// Unwrap is the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }

// Code names a refusal.
type Code string

// The refusals.
const (
	NoUEFI       Code = "no-uefi"
	NoSetupMode  Code = "no-setup-mode"
	NotKept      Code = "not-kept"
	NoESP        Code = "no-esp"
	StillActive  Code = "still-active"
	NotConfirmed Code = "not-confirmed"
)

func refuse(code Code, reason string, steps ...string) error {
	return &RefusedError{Code: code, Reason: errors.New(reason), Steps: steps}
}

// toSetupMode are the steps into setup mode, with the words of the common
// firmwares.
var toSetupMode = []string{
	"systemctl reboot --firmware-setup",
	`in the firmware's setup, look for "Secure Boot" below Security, Boot or Windows OS Configuration, and set its mode to Custom`,
	`there, delete the keys: "Reset to Setup Mode", "Clear Secure Boot Keys" or "Delete all Secure Boot variables" ` +
		`(only the platform key, PK, has to go; do not choose to install the factory keys)`,
	"save, boot NixOS, and run sudo nixos-secure-boot enable again",
}

// toOff are the steps that switch Secure Boot off.
var toOff = []string{
	"systemctl reboot --firmware-setup",
	`in the firmware's setup, set "Secure Boot" to Disabled and save; the signed system boots like that, too`,
	"run sudo nixos-secure-boot disable again",
}

// PlanEnable plans to switch Secure Boot on, or refuses.
func PlanEnable(f *Facts, microsoft bool) (Plan, error) {
	plan := Plan{
		Action: Enable, Target: settings.SecureBoot, Microsoft: microsoft,
		CreateKeys: f.Keys == nil, Enrol: !f.Enrolled(), Keys: f.Settings.Boot.PKIBundle, ESP: f.ESP,
	}
	switch {
	case f.Firmware == nil:
		return plan, refuse(NoUEFI, "this machine was not booted by UEFI, so there is no Secure Boot",
			"switch CSM or legacy boot off in the firmware's setup; NixOS has to be installed for UEFI")
	case f.ESPError != nil:
		return plan, refuse(NoESP, f.ESPError.Error(), "mount the EFI partition, or name its place: --esp DIR")
	case f.Active() && f.Config.Target == settings.SecureBoot && f.Report.Sound() && f.hasDefault(f.Report.Generations):
		plan.Done = "Secure Boot is active already, and everything is signed"
		plan.Enrol = false
		return plan, nil
	case plan.Enrol && !f.Firmware.SetupMode:
		return plan, refuse(NoSetupMode, "the firmware is not in setup mode, so it takes no new keys", toSetupMode...)
	case len(f.NotKept) > 0:
		return plan, refuseNotKept(f)
	}
	if !plan.Enrol {
		plan.Notes = append(plan.Notes, "the firmware has your keys already")
	}
	return plan, nil
}

// refuseNotKept refuses to rely on what the next boot wipes.
func refuseNotKept(f *Facts) error {
	reason := "the next boot would wipe " + strings.Join(f.NotKept, " and ")
	if slices.Contains(f.NotKept, f.Settings.Boot.PKIBundle) {
		reason += ": without the keys nothing could be signed any more"
	}
	quoted := make([]string, len(f.NotKept))
	for i, folder := range f.NotKept {
		quoted[i] = strconv.Quote(folder)
	}
	return refuse(NotKept, reason, fmt.Sprintf(
		"add settings.disk.immutability.persist.paths = [ %s ]; to the host's file, and run nixos-update", strings.Join(quoted, " ")))
}

// hasDefault tells whether the default generation is among those.
func (f *Facts) hasDefault(generations []int) bool {
	return f.Generation == 0 || slices.Contains(generations, f.Generation)
}

// PlanDisable plans to switch back to systemd-boot, or refuses.
func PlanDisable(f *Facts) (Plan, error) {
	plan := Plan{Action: Disable, Target: settings.StandardBoot, Keys: f.Settings.Boot.PKIBundle, ESP: f.ESP}
	switch {
	case f.ESPError != nil:
		return plan, refuse(NoESP, f.ESPError.Error(), "mount the EFI partition, or name its place: --esp DIR")
	case f.Firmware != nil && f.Firmware.SecureBoot:
		return plan, refuse(StillActive, "Secure Boot is still on in the firmware: it would refuse the unsigned boot loader, and the machine would not boot", toOff...)
	case f.Config.Target == settings.StandardBoot && f.Standard.Sound() && len(f.Report.Generations) == 0:
		plan.Done = "this machine boots without Secure Boot already"
		return plan, nil
	case slices.Contains(f.NotKept, Folder):
		return plan, refuseNotKept(f)
	}
	if note := keysStay(f, plan.Keys); note != "" {
		plan.Notes = append(plan.Notes, note)
	}
	if f.Settings.TPM.Enable {
		plan.Notes = append(plan.Notes, "a TPM that was enrolled under Secure Boot no longer unlocks the disk: have the passphrase at hand, "+
			"and run sudo nixos-tpm2 disable")
	}
	return plan, nil
}

// keysStay tells where the owner's keys stay after a disable, and what the next
// enable takes; "" where there are none.
func keysStay(f *Facts, folder string) string {
	switch {
	case f.Keys == nil:
		return ""
	case f.Enrolled():
		return "the keys stay in " + folder + " and in the firmware: sudo nixos-secure-boot enable needs no setup mode later"
	case f.Firmware != nil && f.Firmware.SetupMode:
		return "the keys stay in " + folder + "; the firmware does not have them: it is in setup mode, and sudo nixos-secure-boot enable gives them to it again"
	default:
		return "the keys stay in " + folder + "; the firmware does not have them: sudo nixos-secure-boot enable needs setup mode later"
	}
}

// Lines are the steps for a person.
func (p Plan) Lines(flake string) []string {
	var lines []string
	if p.CreateKeys {
		lines = append(lines, "make keys in "+p.Keys+" (sbctl)")
	}
	lines = append(lines,
		"copy the boot files of "+p.ESP+" to "+Folder,
		fmt.Sprintf("set the target in %s/%s to %s", flake, settings.ConfigName, p.Target),
		"rebuild the system for the next boot (nixos-rebuild boot)",
	)
	if p.Action == Disable {
		return append(lines, "check that systemd-boot, its entries and their files are all there",
			"remove the signed images that are no longer used")
	}
	lines = append(lines, "verify the boot loader, the stubs, and the kernels and initrds that they vouch for")
	if p.Enrol {
		certificates := "with Microsoft's certificates"
		if !p.Microsoft {
			certificates = "WITHOUT Microsoft's certificates"
		}
		lines = append(lines, "give the keys to the firmware, "+certificates+", and read them back")
	}
	return append(lines, "remove the boot entries that the firmware would refuse from now on")
}

// confirmation is what has to be typed before Microsoft's certificates are
// left out.
const confirmation = "without Microsoft"

// romWarning names what would not run any more.
func romWarning(f *Facts) string {
	switch {
	case len(f.OptionROMs) > 0:
		names := make([]string, len(f.OptionROMs))
		for i, rom := range f.OptionROMs {
			names[i] = "  " + rom.String()
		}
		return "without Microsoft's certificates the firmware does not run the option ROMs of these devices:\n" +
			strings.Join(names, "\n") + "\n" +
			"A graphics card without its option ROM shows nothing before NixOS has loaded its driver, not even the firmware's setup. " +
			"Some machines do not start at all."
	case f.EventLogError != nil:
		return "whether a device has an option ROM signed by Microsoft cannot be told (" + f.EventLogError.Error() + "). " +
			"Without Microsoft's certificates a graphics card that has one stays dark until NixOS has loaded its driver."
	default:
		return "the firmware's event log names no option ROM, but a card that is plugged in later may have one."
	}
}
