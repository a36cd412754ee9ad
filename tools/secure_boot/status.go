package secureboottool

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/secureboot"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// Status is the result of `nixos-secure-boot status`.
type Status struct {
	// Firmware is null where the machine was not booted by UEFI.
	Firmware *secureboot.State `json:"firmware"`
	Keys     KeyStatus         `json:"keys"`
	// Configured is the target in config.json.
	Configured settings.Target `json:"configured"`
	Generation int             `json:"generation"`
	ESP        ESPStatus       `json:"esp"`
	// Active tells whether this boot was checked with the owner's keys.
	Active bool `json:"active"`
	// CutOff is a change that was cut off.
	CutOff     *Action     `json:"cutOff,omitempty"`
	OptionROMs []OptionROM `json:"optionRoms,omitempty"`
	Next       string      `json:"next"`
}

// KeyStatus is what is known of the owner's keys.
type KeyStatus struct {
	Folder   string `json:"folder"`
	Exist    bool   `json:"exist"`
	Enrolled bool   `json:"enrolled"`
	Kept     bool   `json:"kept"`
	// Microsoft tells whether Microsoft's certificates are in the firmware.
	Microsoft bool `json:"microsoft"`
}

// ESPStatus is what is on the EFI partition.
type ESPStatus struct {
	secureboot.Report

	Path  string `json:"path"`
	Error string `json:"error,omitempty"`
}

func (t *tool) status(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	if err := t.env.RequireRoot(name + " status"); err != nil {
		return err
	}
	facts, err := t.look(c)
	if err != nil {
		return err
	}
	status := MakeStatus(&facts)
	if c.Bool("json") {
		return t.env.UI.JSON(status)
	}
	return t.show(&facts, status)
}

// MakeStatus draws the conclusions.
func MakeStatus(f *Facts) Status {
	s := Status{
		Firmware: f.Firmware, Configured: f.Config.Target, Generation: f.Generation, Active: f.Active(),
		Keys: KeyStatus{Folder: f.Settings.Boot.PKIBundle, Exist: f.Keys != nil, Enrolled: f.Enrolled(), Kept: !slices.Contains(f.NotKept, f.Settings.Boot.PKIBundle)},
		ESP:  ESPStatus{Path: f.ESP}, OptionROMs: f.OptionROMs, Next: next(f),
	}
	if f.Firmware != nil {
		for _, certificate := range f.Firmware.DB {
			s.Keys.Microsoft = s.Keys.Microsoft || certificate.Microsoft
		}
	}
	if f.ESPError != nil {
		s.ESP.Error = f.ESPError.Error()
	} else {
		s.ESP.Report = *f.Report
	}
	if f.Journal != nil {
		s.CutOff = &f.Journal.Action
	}
	return s
}

// next is the one thing to do next.
func next(f *Facts) string {
	switch {
	case f.Journal != nil:
		return fmt.Sprintf("a run was cut off: sudo %s %s settles what it left, then begins anew", name, f.Journal.Action)
	case f.Firmware == nil:
		return "there is no Secure Boot without UEFI"
	case f.ESPError != nil:
		return "mount the EFI partition, or name its place: --esp DIR"
	case f.Firmware.SecureBoot && !f.Report.Sound():
		return "the next boot may be refused: sudo nixos-update --rebuild-filesystem installs the boot files anew; then look again"
	case f.Active():
		return "nothing to do; sudo nixos-tpm2 enable lets the TPM unlock the disk"
	case f.Config.Target == settings.SecureBoot && f.Enrolled():
		return `switch Secure Boot on in the firmware's setup: systemctl reboot --firmware-setup`
	case f.Firmware.SetupMode || f.Enrolled():
		return "sudo nixos-secure-boot enable"
	default:
		return "put the firmware into setup mode first; sudo nixos-secure-boot enable says how"
	}
}

func (t *tool) show(f *Facts, s Status) error {
	u := t.env.UI
	lines := []string{
		"firmware:      " + firmwareWords(s.Firmware),
		"keys:          " + keyWords(s.Keys),
		"configuration: " + f.Config.Configuration(),
	}
	if s.Firmware != nil {
		lines = append(lines, "certificates:  "+strings.Join(certificateNames(s.Firmware.DB), ", "),
			"booted by:     "+bootedBy(s.Firmware))
	}
	if err := u.Print(strings.Join(lines, "\n")); err != nil {
		return err
	}
	if err := t.showESP(s); err != nil {
		return err
	}
	return u.Print("next:          " + s.Next)
}

func (t *tool) showESP(s Status) error {
	u := t.env.UI
	if s.ESP.Error != "" {
		return u.Print("boot files:    " + s.ESP.Error)
	}
	table := &ui.Table{Head: []string{"BOOT FILE", "SIGNED BY"}}
	for _, f := range s.ESP.Files {
		table.Row(ui.Printable(f.Path), fileWords(f, s.Configured == settings.SecureBoot || s.Firmware != nil && s.Firmware.SecureBoot))
	}
	return u.Table(table)
}

// fileWords tells who signed a file. A problem is marked where it matters: on
// a machine that is to boot under Secure Boot.
func fileWords(f secureboot.File, secure bool) string {
	switch {
	case f.Problem != "" && f.Role == secureboot.Other:
		return f.Problem + " (not NixOS's)"
	case f.Problem != "" && secure:
		return "! " + f.Problem
	case f.Problem != "":
		return f.Problem
	case f.Signer != "":
		return f.Signer
	case f.Vouched:
		return "nobody; a signed stub vouches for it"
	default:
		return "nobody"
	}
}

func firmwareWords(s *secureboot.State) string {
	switch {
	case s == nil:
		return "no UEFI"
	case s.SecureBoot:
		return "Secure Boot is on"
	case s.SetupMode:
		return "in setup mode, ready for keys"
	default:
		return "Secure Boot is off, not in setup mode"
	}
}

func keyWords(k KeyStatus) string {
	if !k.Exist {
		return "none yet in " + k.Folder
	}
	words := []string{"in " + k.Folder}
	if k.Enrolled {
		words = append(words, "enrolled")
	} else {
		words = append(words, "not in the firmware")
	}
	if !k.Kept {
		words = append(words, "LOST AT THE NEXT BOOT: the folder does not persist")
	}
	return strings.Join(words, ", ")
}

func certificateNames(list []secureboot.Certificate) []string {
	if len(list) == 0 {
		return []string{"none"}
	}
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = ui.Printable(c.Name)
	}
	return names
}

func bootedBy(s *secureboot.State) string {
	var parts []string
	for _, text := range []string{s.Loader, s.Stub, s.Entry} {
		if text != "" {
			parts = append(parts, ui.Printable(text))
		}
	}
	if len(parts) == 0 {
		return "a boot loader that does not say"
	}
	return strings.Join(parts, ", ")
}
