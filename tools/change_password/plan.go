package changepassword

import (
	"errors"
	"fmt"
	"slices"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/tpm2"
)

// Want is what the owner asked for.
type Want struct {
	Disk, Account, TPM2 bool
}

// Plan is what is going to be done. Which slot the present passphrase opens is
// only known once it has been typed.
type Plan struct {
	Disk    *DiskPlan    `json:"disk,omitempty"`
	Account *AccountPlan `json:"account,omitempty"`
	TPM2    *TPM2Plan    `json:"tpm2,omitempty"`
}

// DiskPlan is the change of the passphrase.
type DiskPlan struct {
	Device string `json:"device"`
	// NewSlot is the free slot that the new passphrase gets.
	NewSlot int `json:"newSlot"`
	// OldSlot is the slot of the present passphrase, -1 before it was typed.
	OldSlot int `json:"oldSlot"`
	// KeepOld says why the old slot stays, "" if it is removed.
	KeepOld string `json:"keepOld,omitempty"`
	// Added says that the new passphrase opens NewSlot already: an earlier run
	// was cut off after it had added it.
	Added bool `json:"added,omitempty"`
}

// AccountPlan is the change of the account's password.
type AccountPlan struct {
	Name     string `json:"name"`
	HashFile string `json:"hashFile"`
}

// TPM2Plan is the new enrolment.
type TPM2Plan struct {
	Policy tpm2.Policy `json:"policy"`
}

// Reasons not to begin.
var (
	errNoTyped = errors.New("no key slot of the disk holds a passphrase")
	errNoTPM2  = errors.New("no TPM2 is enrolled on the disk")
)

// MakePlan plans from what was read. It asks nothing and changes nothing.
func MakePlan(want Want, s *settings.Settings, device string, h *luks.Header) (Plan, error) {
	var plan Plan
	if want.Account {
		plan.Account = &AccountPlan{Name: s.User.Admin.Name, HashFile: s.Secrets.HashedPasswordFile}
	}
	if want.Disk {
		if len(h.Typed()) == 0 {
			return plan, fmt.Errorf("%s: %w", device, errNoTyped)
		}
		slot, err := h.FreeSlot()
		if err != nil {
			return plan, fmt.Errorf("%s: %w", device, err)
		}
		plan.Disk = &DiskPlan{Device: device, NewSlot: slot, OldSlot: -1}
	}
	if want.TPM2 {
		if h == nil {
			return plan, errNoTPM2
		}
		tokens := h.TokensOf(luks.TokenTPM2)
		if len(tokens) == 0 {
			return plan, fmt.Errorf("%s: %w", device, errNoTPM2)
		}
		token, err := tpm2.ParseToken(h.Tokens[tokens[0]].Raw)
		if err != nil {
			return plan, fmt.Errorf("%s: %w", device, err)
		}
		if token.Signed || token.PCRLock || len(token.PCRs) == 0 {
			return plan, fmt.Errorf("%s: the TPM's policy was not made by nixos-tpm2: enrol it again as it was made", device)
		}
		plan.TPM2 = &TPM2Plan{Policy: tpm2.PolicyOf(token)}
	}
	return plan, nil
}

// from says which slot the present passphrase opens.
func (d *DiskPlan) from(h *luks.Header, slot int) {
	d.OldSlot = slot
	if h.KindOf(slot) == luks.Recovery {
		d.KeepOld = "it holds the recovery key"
	}
}

// Lines are the steps for a person.
func (p Plan) Lines() []string {
	var lines []string
	if p.Disk != nil {
		lines = append(lines, fmt.Sprintf("disk: add the new passphrase to key slot %d of %s and test it", p.Disk.NewSlot, p.Disk.Device))
	}
	if p.Account != nil {
		lines = append(lines, fmt.Sprintf("account: write the hash of %s's new password to %s", p.Account.Name, p.Account.HashFile),
			"account: activate it, and check that the system has it")
	}
	if p.Disk != nil {
		lines = append(lines, "disk: remove the key slot of the old passphrase (a recovery key stays)")
	}
	if p.TPM2 != nil {
		lines = append(lines, "TPM: wipe its key slot, then enrol it again: "+p.TPM2.Policy.String())
	}
	return lines
}

// others are the typed slots that a change leaves as they are.
func others(h *luks.Header, plan *DiskPlan) []int {
	return slices.DeleteFunc(h.Typed(), func(slot int) bool {
		return slot == plan.NewSlot || (slot == plan.OldSlot && plan.KeepOld == "")
	})
}
