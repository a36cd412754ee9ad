package full

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"nixos-go/vmtest/cpio"
)

// Boot is what a generation brings to the boot: what may differ from one boot
// of a machine to the next.
type Boot struct {
	// Reset is the program initrd-reset; empty leaves the reset out.
	Reset string
	// Unit is the text of immutability.service.
	Unit string
	// Plan is the content of /etc/immutability/plan.json; nil: no such file.
	Plan []byte
	// Crypttab are the options of the disk in crypttab(5); empty: "none".
	Crypttab string
	// Live is a boot without an encrypted disk.
	Live bool
	// Files are further files of the initrd, names to contents.
	Files map[string]string
}

// crypttab opens the main partition as /dev/mapper/root, as the modules do.
func (b Boot) crypttab() string {
	options := b.Crypttab
	if options == "" {
		options = "luks"
	}
	return "root /dev/disk/by-partlabel/" + labelMain + " none " + options + "\n"
}

// WriteInitrd writes the initrd of a boot: the common one, followed by an
// archive that lays more over it (the kernel unpacks one after the other).
func (g Guest) WriteInitrd(b Boot, out string) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	base, err := os.Open(g.initrd)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.Copy(f, base)
	err = errors.Join(err, base.Close())
	if err == nil {
		w := cpio.NewWriter(f)
		err = errors.Join(b.fill(w), w.Close())
	}
	return errors.Join(err, f.Close())
}

func (b Boot) fill(w *cpio.Writer) error {
	var err error
	if !b.Live {
		err = w.File("etc/crypttab", 0o600, []byte(b.crypttab()))
	}
	if b.Reset != "" {
		program, e := os.ReadFile(b.Reset)
		err = errors.Join(err, e,
			// NixOS has it in the store; the unit of the tests names this path.
			w.File("usr/bin/initrd-reset", 0o755, program),
			w.File("etc/systemd/system/immutability.service", 0o644, []byte(b.Unit)),
			w.Symlink("etc/systemd/system/initrd.target.wants/immutability.service", "../immutability.service"))
	}
	if b.Plan != nil {
		err = errors.Join(err, w.File("etc/immutability/plan.json", 0o644, b.Plan))
	}
	for name, content := range b.Files {
		err = errors.Join(err, w.File(name, 0o644, []byte(content)))
	}
	return err
}

// Units reads the units that the NixOS modules install, as text. A test under
// nix/ holds these files to be what Nix makes of nix/lib/units.nix.
func Units(project string) (map[string]string, error) {
	found, err := filepath.Glob(filepath.Join(project, "nix", "tests", "golden", "*"))
	if err != nil {
		return nil, err
	}
	units := map[string]string{}
	for _, name := range found {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		units[filepath.Base(name)] = string(b)
	}
	return units, nil
}

// NoticeProgram is what the unit immutability-notice runs in the tests: the
// script of the module with the line that NixOS writes above it.
func NoticeProgram(project string) (string, error) {
	b, err := os.ReadFile(filepath.Join(project, "nix", "lib", "notice.sh"))
	return "#!/bin/sh -e\n" + string(b), err
}
