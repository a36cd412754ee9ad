package tpm2tool

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/tpm2"
	"nixos-go/pkg/ui"
)

// Status is the result of `nixos-tpm2 status`.
type Status struct {
	Device string       `json:"device"`
	UUID   string       `json:"uuid"`
	Slots  []SlotStatus `json:"slots"`
	// TPM is null without one; then NoTPM says why.
	TPM   *tpm2.Info `json:"tpm"`
	NoTPM string     `json:"noTpm,omitempty"`
	// SecureBoot and Lanzaboote tell how the system was booted.
	SecureBoot bool `json:"secureBoot"`
	Lanzaboote bool `json:"lanzaboote"`
	Configured bool `json:"configured"`
	// Unlocks tells whether a token matches the PCRs as they are now.
	Unlocks tpm2.Verdict `json:"unlocks"`
	// VolumeKey tells whether the disk's key was measured in this boot.
	VolumeKey tpm2.VolumeKey `json:"volumeKey"`
	// RoguePartition is closed, open or unknown.
	RoguePartition Guard `json:"roguePartition"`
	// Why explains the guard in words.
	Why  string `json:"why"`
	Next string `json:"next"`
}

// SlotStatus explains one key slot.
type SlotStatus struct {
	Slot  int         `json:"slot"`
	Kind  luks.Kind   `json:"kind"`
	KDF   string      `json:"kdf"`
	Token *tpm2.Token `json:"token,omitempty"`
	// Verdict is of a TPM's slot: whether the PCRs match now.
	Verdict tpm2.Verdict `json:"verdict,omitempty"`
	// Guarded tells whether the policy wants PCR 15 at zero.
	Guarded bool   `json:"guarded,omitempty"`
	Words   string `json:"words"`
}

// Guard tells whether the attack by a swapped partition is closed: whoever
// puts a volume of their own in the place of the root gets it opened, boots
// into it, and asks the TPM for the real one's key.
type Guard string

// The states of the guard.
const (
	Closed       Guard = "closed"
	Open         Guard = "open"
	GuardUnknown Guard = "unknown"
	NotNeeded    Guard = "not-needed"
)

func (t *tool) status(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	if err := t.env.RequireRoot(name + " status"); err != nil {
		return err
	}
	facts, _, err := t.look(c)
	if err != nil {
		return err
	}
	status, err := MakeStatus(facts)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return t.env.UI.JSON(status)
	}
	return t.show(status)
}

// MakeStatus draws the conclusions.
func MakeStatus(f Facts) (Status, error) {
	s := Status{
		Device: f.Device, UUID: f.Header.UUID, TPM: f.TPM, Configured: f.Settings.TPM.Enable,
		Slots: []SlotStatus{}, Unlocks: tpm2.Unknown,
		VolumeKey: tpm2.KeyUnconfirmed,
	}
	if f.NoTPM != nil {
		s.NoTPM = f.NoTPM.Error()
	} else {
		s.VolumeKey = tpm2.JudgeVolumeKey(f.PCRs[tpm2.PCRVolumeKey], f.Measured, f.Settings.Disk.Encryption.Mapper)
	}
	if f.Firmware != nil {
		s.SecureBoot, s.Lanzaboote = f.Firmware.SecureBoot, f.Firmware.Lanzaboote()
	}
	for _, slot := range f.Header.SlotNumbers() {
		one, err := slotStatus(f, slot)
		if err != nil {
			return s, err
		}
		s.Slots = append(s.Slots, one)
	}
	s.judge()
	s.Next = next(f, s)
	return s, nil
}

func slotStatus(f Facts, slot int) (SlotStatus, error) {
	s := SlotStatus{Slot: slot, Kind: f.Header.KindOf(slot), KDF: f.Header.Slots[slot].KDF}
	switch s.Kind {
	case luks.Passphrase:
		s.Words = "a passphrase that a person types"
	case luks.Recovery:
		s.Words = "a recovery key that a person types"
	case luks.OtherToken:
		s.Words = "another token (FIDO2, PKCS#11 or the like)"
	case luks.TPM2:
		return tpmSlot(f, s)
	}
	if f.Header.Slots[slot].Ignored {
		s.Words += ", tried only when asked for by number"
	}
	return s, nil
}

// tpmSlot finds the token of a TPM's slot and compares it with the PCRs.
func tpmSlot(f Facts, s SlotStatus) (SlotStatus, error) {
	for _, number := range f.Header.TokensOf(luks.TokenTPM2) {
		raw := f.Header.Tokens[number]
		if len(raw.Slots) == 0 || raw.Slots[0] != s.Slot {
			continue
		}
		token, err := tpm2.ParseToken(raw.Raw)
		if err != nil {
			return s, fmt.Errorf("token %d: %w", number, err)
		}
		s.Token = &token
	}
	if s.Token == nil {
		s.Verdict, s.Words = tpm2.Unknown, "the TPM, by a token that is not understood here"
		return s, nil
	}
	s.Words = "the TPM, bound to " + tpm2.PolicyOf(*s.Token).String()
	s.Verdict = tpm2.Unknown
	if f.TPM != nil && s.Token.Bank == tpm2.SHA256 {
		var err error
		if s.Verdict, s.Guarded, err = s.Token.Judge(f.PCRs); err != nil {
			return s, err
		}
	}
	if len(s.Token.PCRs) == 0 && s.Verdict == tpm2.Matches {
		s.Words = "the TPM, bound to no PCR at all: whoever boots this machine gets the key"
	}
	s.Words += verdictWords(s)
	return s, nil
}

func verdictWords(s SlotStatus) string {
	switch s.Verdict {
	case tpm2.Matches:
		return "; it matches the machine as it is now"
	case tpm2.Differs:
		return "; it does not match the machine as it is now: the boot will ask for a passphrase"
	case tpm2.Unknown:
		return "; whether it matches only the TPM itself can tell"
	}
	return ""
}

// judge sums up over the TPM's slots.
func (s *Status) judge() {
	tokens, guarded := 0, 0
	for _, slot := range s.Slots {
		if slot.Kind != luks.TPM2 {
			continue
		}
		tokens++
		if slot.Guarded {
			guarded++
		}
		if slot.Verdict == tpm2.Matches || (slot.Verdict == tpm2.Differs && s.Unlocks != tpm2.Matches) {
			s.Unlocks = slot.Verdict
		}
	}
	s.RoguePartition, s.Why = guard(tokens, guarded, s)
}

func guard(tokens, guarded int, s *Status) (Guard, string) {
	switch {
	case tokens == 0:
		return NotNeeded, "the TPM holds no key of this disk"
	case s.Unlocks == tpm2.Differs:
		return GuardUnknown, "the enrolled policy does not match the machine now, so what it was made for cannot be told"
	case guarded < tokens && s.Unlocks == tpm2.Matches:
		return Open, "the TPM gives the key also after another volume was opened: PCR 15 at zero is not part of the policy"
	case guarded < tokens:
		return GuardUnknown, "the policy is of a kind that only the TPM itself can judge"
	case s.VolumeKey == tpm2.KeyMeasured:
		return Closed, "the disk's key was measured into PCR 15 at this boot, and the TPM gives it only while PCR 15 is zero"
	case s.VolumeKey == tpm2.KeyUnmeasured && s.Configured:
		return Open, "the TPM wants PCR 15 at zero, but this boot did not measure the disk's key into it: " +
			"boot a generation that has settings.tpm.enable (tpm2-measure-pcr=yes)"
	case s.VolumeKey == tpm2.KeyUnmeasured:
		return Open, "the TPM wants PCR 15 at zero, but the boot does not measure the disk's key: set settings.tpm.enable = true"
	default:
		return GuardUnknown, "PCR 15 is not zero, but systemd's log (" + tpm2.MeasureLog + ") does not explain its value"
	}
}

func next(f Facts, s Status) string {
	_, err := MakePlan(f, Want{PCRs: []int{tpm2.PCRSecureBoot, tpm2.PCRCommandLine}})
	if refused, ok := errors.AsType[*RefusedError](err); ok && s.RoguePartition != Closed {
		return refused.Cure
	}
	switch {
	case s.RoguePartition == NotNeeded:
		return "sudo nixos-tpm2 enable --recovery-key"
	case s.Unlocks == tpm2.Differs:
		return "if you changed the firmware or its keys yourself: sudo nixos-tpm2 enable enrols the machine as it is now"
	case s.RoguePartition == Open:
		return "sudo nixos-tpm2 enable"
	default:
		return "nothing to do"
	}
}

func (t *tool) show(s Status) error {
	u := t.env.UI
	if err := u.Printf("%s", u.Out(ui.Bold, s.Device+"  LUKS2, UUID "+s.UUID)); err != nil {
		return err
	}
	table := &ui.Table{Head: []string{"  SLOT", "OPENED BY"}}
	for _, slot := range s.Slots {
		table.Row("  "+strconv.Itoa(slot.Slot), slot.Words)
	}
	if err := u.Table(table); err != nil {
		return err
	}
	chip := s.NoTPM
	if s.TPM != nil {
		banks := make([]string, len(s.TPM.Banks))
		for i, bank := range s.TPM.Banks {
			banks[i] = string(bank)
		}
		chip = fmt.Sprintf("%s, firmware %s, PCR banks %s", s.TPM.Manufacturer, s.TPM.Firmware, strings.Join(banks, " "))
	}
	lines := []string{
		"  TPM:         " + chip,
		"  Secure Boot: " + bootWords(s),
		"  at boot:     " + unlockWords(s),
		"  volume key:  " + keyWords(s.VolumeKey),
		"  swapped partition: " + guardWords(s),
		"  next:        " + s.Next,
	}
	return u.Print(strings.Join(lines, "\n"))
}

func bootWords(s Status) string {
	switch {
	case s.SecureBoot && s.Lanzaboote:
		return "active, with lanzaboote"
	case s.SecureBoot:
		return "active, without lanzaboote"
	default:
		return "not active"
	}
}

func unlockWords(s Status) string {
	switch {
	case s.RoguePartition == NotNeeded:
		return "the passphrase is asked for"
	case !s.Configured:
		return "the passphrase is asked for: settings.tpm.enable is false"
	case s.Unlocks == tpm2.Matches:
		return "the TPM unlocks the disk, as things are now"
	case s.Unlocks == tpm2.Differs:
		return "the passphrase is asked for: the machine differs from the one that was enrolled"
	default:
		return "cannot be told from here"
	}
}

func keyWords(k tpm2.VolumeKey) string {
	switch k {
	case tpm2.KeyMeasured:
		return "measured into PCR 15 at this boot"
	case tpm2.KeyUnmeasured:
		return "not measured at this boot"
	case tpm2.KeyUnconfirmed:
		return "cannot be told: nothing confirms what PCR 15 holds"
	}
	return string(k)
}

func guardWords(s Status) string {
	switch s.RoguePartition {
	case Closed:
		return "no danger: " + s.Why
	case Open:
		return "a danger: " + s.Why
	case NotNeeded:
		return "no danger: " + s.Why
	case GuardUnknown:
	}
	return "cannot be told: " + s.Why
}

// slotLines are the key slots in a few words each, for the end of a failure.
func slotLines(h *luks.Header) []string {
	slots := h.SlotNumbers()
	lines := make([]string, 0, len(slots))
	for _, slot := range slots {
		lines = append(lines, fmt.Sprintf("key slot %d: %s", slot, h.KindOf(slot)))
	}
	return lines
}
