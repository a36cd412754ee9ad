package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"nixos-go/pkg/atomicfile"
)

// checkpointVersion is the version of the manifest.
const checkpointVersion = 1

// memoryTag names the snapshot in the images of a checkpoint with memory.
const memoryTag = "checkpoint"

// ErrBase says that a checkpoint cannot be used any more: what it was made on is
// not there as it was.
var ErrBase = errors.New("the checkpoint has to be made anew")

// Manifest is what a checkpoint says of itself.
type Manifest struct {
	Version int `json:"version"`
	// Spec is the machine's.
	Spec Spec `json:"spec"`
	// Memory says that the machine was running: it goes on where it was, which
	// needs the same QEMU and the same spec.
	Memory bool `json:"memory"`
	// QEMU is the version that saved the memory.
	QEMU string `json:"qemu,omitempty"`
	// Bases tell the images below the disks, by the disks' ids: an overlay is of
	// use over the very image that it was made on.
	Bases map[string]Base `json:"bases,omitempty"`
}

// Base is how an image below an overlay is known again.
type Base struct {
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
}

// readBases looks at the images below the disks that are written.
func (s Spec) readBases() (map[string]Base, error) {
	bases := map[string]Base{}
	for _, d := range s.Disks {
		if d.Base == "" || d.ReadOnly {
			continue
		}
		info, err := os.Stat(d.Base)
		if err != nil {
			return nil, fmt.Errorf("the image below disk %s: %w", d.ID, err)
		}
		bases[d.ID] = Base{Bytes: info.Size(), Modified: info.ModTime()}
	}
	return bases, nil
}

// Checkpoint copies the whole machine, disks, firmware variables, the TPM's
// state, into a folder that must not exist and appears when all is there. Of a
// running machine it has the memory too; that goes on afterwards.
func (m *Machine) Checkpoint(ctx context.Context, dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("checkpoint %s: %w", dir, os.ErrExist)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".checkpoint-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	manifest := Manifest{Version: checkpointVersion, Spec: m.Spec}
	if manifest.Bases, err = m.Spec.readBases(); err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	if m.Running() {
		manifest.Memory, manifest.QEMU = true, m.QMP().Version.String()
		err = m.Within(ctx, func(ctx context.Context) error { return m.copyRunning(ctx, work) })
	} else {
		err = m.copyState(work)
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", dir, err)
	}
	b, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(work, manifestFile), append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(work, dir)
}

// copyRunning copies while the processors stand still: stopping writes back
// what QEMU holds of its images.
func (m *Machine) copyRunning(ctx context.Context, to string) (err error) {
	if err := m.QMP().Do(ctx, "stop", nil, nil); err != nil {
		return err
	}
	defer func() {
		// Whatever went wrong, and even if it was the end of ctx.
		err = errors.Join(err, m.QMP().Do(context.WithoutCancel(ctx), "cont", nil, nil))
	}()
	if err := m.snapshotJob(ctx, "snapshot-save", memoryTag); err != nil {
		return err
	}
	return errors.Join(m.copyState(to), m.snapshotJob(ctx, "snapshot-delete", memoryTag))
}

// stateFiles are the files that are the machine, beside the TPM's.
func (s Spec) stateFiles() []string {
	files := []string{stateFile}
	if s.Firmware != nil {
		files = append(files, varsFile)
	}
	for _, d := range s.Disks {
		if !d.shown() {
			files = append(files, diskFile(d.ID))
		}
	}
	return files
}

func (m *Machine) copyState(to string) error {
	for _, name := range m.Spec.stateFiles() {
		if err := copyFile(filepath.Join(to, name), m.path(name)); err != nil {
			return err
		}
	}
	if !m.Spec.TPM {
		return nil
	}
	return copyTPM(filepath.Join(to, tpmDir), m.path(tpmDir))
}

// copyTPM copies a TPM's state: a few small files, and no lock.
func copyTPM(to, from string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || entry.Name()[0] == '.' {
			continue
		}
		if err := copyFile(filepath.Join(to, entry.Name()), filepath.Join(from, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ReadManifest reads what a checkpoint says of itself.
func ReadManifest(dir string) (Manifest, error) {
	var manifest Manifest
	path := filepath.Join(dir, manifestFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return manifest, err
	}
	if err := json.Unmarshal(b, &manifest); err != nil {
		return manifest, fmt.Errorf("%s: %w", path, err)
	}
	if manifest.Version != checkpointVersion {
		return manifest, fmt.Errorf("%s: version %d, want %d", path, manifest.Version, checkpointVersion)
	}
	return manifest, nil
}

// FromCheckpoint makes a machine in a folder out of a checkpoint, which stays
// as it is. change may alter what is not in the checkpoint's files (the kernel,
// devices, further disks); nil alters nothing. With memory in the checkpoint
// nothing may change that the guest could see, and [Machine.Start] goes on from
// there.
func FromCheckpoint(ctx context.Context, checkpoint, dir string, change func(*Spec)) (*Machine, error) {
	manifest, err := ReadManifest(checkpoint)
	if err != nil {
		return nil, err
	}
	spec := manifest.Spec
	spec.Disks = slices.Clone(spec.Disks)
	if change != nil {
		change(&spec)
	}
	if err := manifest.checkBases(spec); err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", checkpoint, err)
	}
	m, err := Create(ctx, dir, spec)
	if err != nil {
		return nil, err
	}
	for _, name := range manifest.Spec.stateFiles() {
		if err := copyFile(m.path(name), filepath.Join(checkpoint, name)); err != nil {
			return nil, err
		}
	}
	if manifest.Spec.TPM {
		if err := os.RemoveAll(m.path(tpmDir)); err != nil {
			return nil, err
		}
		if err := copyTPM(m.path(tpmDir), filepath.Join(checkpoint, tpmDir)); err != nil {
			return nil, err
		}
	}
	if manifest.Memory {
		m.load, m.loadFrom = memoryTag, manifest.QEMU
	}
	return m, nil
}

// checkBases says which image a checkpoint needs and does not find any more, be it
// that there is another one in its place.
func (m Manifest) checkBases(spec Spec) error {
	for _, d := range spec.Disks {
		if d.Base == "" {
			continue
		}
		info, err := os.Stat(d.Base)
		if err != nil {
			return fmt.Errorf("the image below disk %s is gone: %w", d.ID, err)
		}
		base, known := m.Bases[d.ID]
		if known && (base.Bytes != info.Size() || !base.Modified.Equal(info.ModTime())) {
			return fmt.Errorf("the image below disk %s, %s, is another one now: %w", d.ID, d.Base, ErrBase)
		}
	}
	return nil
}
