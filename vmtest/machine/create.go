package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"nixos-go/pkg/atomicfile"
	"nixos-go/pkg/run"
)

// stateSize is the virtual size of the image that only ever holds snapshots of
// memory, which do not count in it, in bytes.
const stateSize = 1 << 20

// Create makes a machine in a folder, which is made where it is missing and
// must hold no machine yet. Nothing runs.
func Create(ctx context.Context, dir string, spec Spec) (*Machine, error) {
	spec = spec.withDefaults()
	if err := spec.check(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, specFile)); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is a machine already: %w", dir, os.ErrExist)
	}
	for _, command := range spec.imageCommands() {
		command.Dir = dir
		if _, err := (&run.Local{}).Run(ctx, command); err != nil {
			return nil, fmt.Errorf("machine %s: %w", spec.Name, err)
		}
	}
	if spec.TPM {
		if err := os.Mkdir(filepath.Join(dir, tpmDir), 0o700); err != nil {
			return nil, err
		}
	}
	m := &Machine{Spec: spec, Dir: dir}
	return m, m.writeSpec()
}

// imageCommands make the images of a spec in the working directory. A pure
// function.
func (s Spec) imageCommands() []run.Command {
	image := s.Programs.image()
	create := func(file, base, format string, size int64) run.Command {
		args := append(append([]string(nil), image[1:]...), "create", "-q", "-f", "qcow2")
		if base != "" {
			args = append(args, "-b", base, "-F", format)
		}
		args = append(args, file)
		if size > 0 {
			args = append(args, strconv.FormatInt(size, 10))
		}
		return run.New(image[0], args...)
	}
	commands := []run.Command{create(stateFile, "", "", stateSize)}
	if s.Firmware != nil {
		// Not an overlay: a checkpoint of firmware variables stands by itself.
		args := append(append([]string(nil), image[1:]...), "convert", "-f", "raw", "-O", "qcow2", s.Firmware.Vars, varsFile)
		commands = append(commands, run.New(image[0], args...))
	}
	for _, d := range s.Disks {
		if !d.shown() {
			commands = append(commands, create(diskFile(d.ID), d.Base, d.baseFormat(), d.Size))
		}
	}
	return commands
}

func (m *Machine) writeSpec() error {
	b, err := json.MarshalIndent(m.Spec, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(m.path(specFile), append(b, '\n'), 0o600)
}

// Load is the machine in a folder, running or not; see [Machine.Attach].
func Load(dir string) (*Machine, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	m := &Machine{Dir: dir}
	b, err := os.ReadFile(m.path(specFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &m.Spec); err != nil {
		return nil, fmt.Errorf("%s: %w", m.path(specFile), err)
	}
	return m, nil
}

// DiskPath is the image of a disk, in the format qcow2. While the machine runs
// it is QEMU's alone. A read-only disk with a base has none.
func (m *Machine) DiskPath(id string) string { return m.path(diskFile(id)) }

// VarsPath is the image of the firmware's variables, in the format qcow2.
func (m *Machine) VarsPath() string { return m.path(varsFile) }

// ExportDisk writes a disk of a stopped machine to a raw file, sparse.
func (m *Machine) ExportDisk(ctx context.Context, id, to string) error {
	return m.convert(ctx, "qcow2", diskFile(id), "raw", to)
}

// ImportDisk replaces a disk of a stopped machine by the content of a raw file.
func (m *Machine) ImportDisk(ctx context.Context, id, from string) error {
	return m.convert(ctx, "raw", from, "qcow2", diskFile(id))
}

// ExportVars writes the firmware's variables of a stopped machine to a raw
// file.
func (m *Machine) ExportVars(ctx context.Context, to string) error {
	return m.convert(ctx, "qcow2", varsFile, "raw", to)
}

// ImportVars replaces the firmware's variables of a stopped machine.
func (m *Machine) ImportVars(ctx context.Context, from string) error {
	return m.convert(ctx, "raw", from, "qcow2", varsFile)
}

// convert runs qemu-img, which locks its files: a running machine makes it fail.
func (m *Machine) convert(ctx context.Context, fromFormat, from, toFormat, to string) error {
	for _, path := range []*string{&from, &to} {
		if !filepath.IsAbs(*path) && filepath.Base(*path) != *path {
			absolute, err := filepath.Abs(*path)
			if err != nil {
				return err
			}
			*path = absolute
		}
	}
	image := m.Spec.Programs.image()
	args := append(append([]string(nil), image[1:]...), "convert", "-f", fromFormat, "-O", toFormat, from, to)
	command := run.New(image[0], args...)
	command.Dir = m.Dir
	_, err := (&run.Local{}).Run(ctx, command)
	return err
}
