package full

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"nixos-go/vmtest/machine"
)

// WriteDisk writes a copy of the guest's disk with files in its EFI partition,
// for machines that firmware boots. files are names there to files of the host.
func (g Guest) WriteDisk(ctx context.Context, files map[string]string, out string) (err error) {
	disk, err := os.Create(out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	if err := disk.Truncate(diskSize); err != nil {
		return err
	}
	if err := copyData(g.Disk, disk, func([]byte, int64) {}); err != nil {
		return err
	}
	esp := filepath.Join(filepath.Dir(out), "esp.fat")
	if err := BuildESP(ctx, esp, files); err != nil {
		return err
	}
	return errors.Join(copyData(esp, &section{disk, espStart}, func([]byte, int64) {}), os.Remove(esp))
}

// Firmware makes a machine one that UEFI firmware boots, in setup mode at first,
// with a TPM.
func (e Emulator) Firmware(s *machine.Spec) {
	s.Type = "q35,smm=on"
	s.Firmware = &machine.Firmware{Code: e.Code, Vars: e.Vars, SecureFlash: true}
	s.TPM = true
}
