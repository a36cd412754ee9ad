package tpm2tool

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/secureboot"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/tpm2"
)

// Facts are what was seen of the machine. What the plan and the status say
// follows from them alone.
type Facts struct {
	Settings *settings.Settings
	Header   *luks.Header
	Device   string
	// Firmware is nil where the machine was not booted by UEFI.
	Firmware *secureboot.State
	// TPM is nil where NoTPM says why there is none.
	TPM   *tpm2.Info
	NoTPM error
	// PCRs are the values of the SHA-256 bank.
	PCRs map[int][]byte
	// Measured is systemd's log of measurements, nil where there is none.
	Measured []tpm2.Measured
}

// look reads everything. A machine without a TPM or without UEFI is no error
// here: the status explains it, and enabling refuses.
func (t *tool) look(c *cli.Context) (Facts, luks.Volume, error) {
	var f Facts
	var err error
	if f.Settings, err = flake.Settings(c.Context, t.env, c.String("flake")); err != nil {
		return f, luks.Volume{}, err
	}
	volume, err := luks.Of(f.Settings, t.env.Host, c.String("device"))
	if err != nil {
		return f, volume, err
	}
	f.Device = volume.Device
	if f.Header, err = readHeader(volume); err != nil {
		return f, volume, err
	}
	firmware, err := secureboot.ReadState(t.env.Host.Files)
	switch {
	case err == nil:
		f.Firmware = &firmware
	case !errors.Is(err, secureboot.ErrNoUEFI):
		return f, volume, err
	}
	if err := t.lookAtTPM(&f); err != nil {
		return f, volume, err
	}
	return f, volume, t.readMeasured(&f)
}

func (t *tool) lookAtTPM(f *Facts) error {
	device, err := t.hooks.Open(t.env.Host.Files)
	if errors.Is(err, tpm2.ErrNoTPM) || errors.Is(err, tpm2.ErrOldTPM) {
		f.NoTPM = err
		return nil
	}
	if err != nil {
		return err
	}
	defer device.Close()
	info, err := device.Describe()
	if err != nil {
		return err
	}
	f.TPM = &info
	all := make([]int, 24)
	for i := range all {
		all[i] = i
	}
	f.PCRs, err = device.ReadPCRs(tpm2.SHA256, all...)
	return err
}

func (t *tool) readMeasured(f *Facts) error {
	log, err := t.env.Host.Files.Open(tpm2.MeasureLog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer log.Close()
	f.Measured, err = tpm2.ParseMeasureLog(log)
	return err
}

// readHeader refuses what is not LUKS2 and not sound.
func readHeader(v luks.Volume) (*luks.Header, error) {
	h, err := v.Header()
	if version, ok := errors.AsType[luks.VersionError](err); ok {
		return nil, clikit.WithHint(err, "a TPM needs LUKS2. LUKS%d can be converted offline, from a live system: "+
			"cryptsetup convert --type luks2 %s", int(version), v.Device)
	}
	if err != nil {
		return nil, err
	}
	if h.OneCopy {
		return nil, clikit.WithHint(fmt.Errorf("%s: one of the two copies of the header is damaged", v.Device),
			"cryptsetup repair %s", v.Device)
	}
	return h, nil
}

// SecureBootActive tells whether lanzaboote booted this system under Secure
// Boot: only then does PCR 7 stand for the owner's own keys, and the command
// line is part of what is signed.
func (f Facts) SecureBootActive() bool {
	return f.Firmware != nil && f.Firmware.SecureBoot && f.Firmware.Lanzaboote()
}
