package full

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"

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

// EditESP runs a command of mtools on the EFI partition of a raw disk image:
// "mcopy", "-o", "FILE", "::/EFI/…".
func EditESP(ctx context.Context, disk, program string, args ...string) error {
	return mtools(ctx, program, disk+"@@"+strconv.Itoa(espStart), args...)
}

// MainPartition copies the encrypted partition of a raw disk image into a file of
// its own.
func MainPartition(disk, out string) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := f.Truncate(mainSize); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(copyPartition(disk, f, 0), f.Close())
}

// ReplaceMain overwrites the encrypted partition of a raw disk image by that of
// the guest's own disk, as it was installed.
func (g Guest) ReplaceMain(disk string) error {
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(copyPartition(g.Disk, f, mainStart), f.Close())
}

// copyPartition writes the encrypted partition of a disk image at an offset.
func copyPartition(disk string, to *os.File, at int64) error {
	return copyRange(disk, &section{to, at - mainStart}, mainStart, mainStart+mainSize, func([]byte, int64) {})
}
