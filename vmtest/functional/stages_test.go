package functional

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/vmtest"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/host"
	"nixos-go/vmtest/machine"
	"nixos-go/vmtest/stage"
)

// The stages of this lane, one after the other.
const (
	// fullStage is a machine of the host as it was installed, never booted, with
	// what it boots from beside it.
	fullStage = "full"
	// bootedStage is that machine in the middle of its life: its first boot is
	// over, its first reset has compared everything and found nothing, all units
	// are up. It has the memory, so a test goes on from there in a second.
	bootedStage = "booted"

	checkpointName = "checkpoint"
)

// source is what makes the stages.
//
//go:embed stages_test.go
var source string

// ingredients are what the stage full is made from: the images, by what a
// checkpoint knows them by, and all that is built of the project.
func ingredients(t *testing.T, l *host.Host) []string {
	t.Helper()
	info, err := os.Stat(l.Guest.Disk)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := json.Marshal(l.Plan)
	if err != nil {
		t.Fatal(err)
	}
	tools, err := digest(filepath.Join(l.Dir, "tools"))
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		l.Guest.Disk, info.ModTime().String(), l.Guest.Kernel, string(plan), l.Units[full.ResetUnit], tools,
		strings.Join(l.Emulator.Programs.QEMU, " "), string(vmtest.Accel(t)), source,
	}
}

// digest is that of all that is in a folder.
func digest(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %s\n", relative, info.Mode())
		switch {
		case info.Mode().IsRegular():
			return copyInto(sum, name)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			fmt.Fprintf(sum, "%q\n", target)
			return err
		}
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

func copyInto(to io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, f)
	return errors.Join(err, f.Close())
}

// makeFull fills the folder of the stage full.
func makeFull(t *testing.T, dir string) error {
	t.Helper()
	ctx, b := vmtest.Context(t), plainBox(t)
	tools, initrd := filepath.Join(dir, "tools.ext4"), filepath.Join(dir, "initrd.cpio")
	if _, err := (&run.Local{}).Run(ctx, run.New("cp", "--sparse=always", b.host.Tools.Disk, tools)); err != nil {
		return err
	}
	boot := b.Boot
	boot.Plan = b.planFile()
	if err := b.host.Guest.WriteInitrd(boot, initrd); err != nil {
		return err
	}
	spec := b.host.Spec(fullStage, initrd)
	spec.Accel = vmtest.Accel(t)
	setTools(&spec, tools)
	m, err := machine.Create(ctx, filepath.Join(vmtest.Dir(t), "machine"), spec)
	if err != nil {
		return err
	}
	return m.Checkpoint(ctx, filepath.Join(dir, checkpointName))
}

// setTools makes a machine find the programs of the project on another image.
func setTools(s *machine.Spec, image string) {
	for i := range s.Disks {
		if s.Disks[i].ID == full.ToolsDisk {
			s.Disks[i].Base = image
		}
	}
}

// makeBooted fills the folder of the stage booted.
func makeBooted(t *testing.T, dir, before string) error {
	t.Helper()
	b := plainBox(t)
	b.goOn(filepath.Join(before, checkpointName))
	r := b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	for i := range r.Volumes {
		if r.Volumes[i].Way != reset.WayFull {
			t.Errorf("the first boot of %s went the way %s, want %s", r.Volumes[i].Name, r.Volumes[i].Way, reset.WayFull)
		}
	}
	// Nothing of the boot is still under way.
	if got := b.sh("systemctl is-system-running --wait || true; sync"); got != "running\n" {
		t.Errorf("the system is %q after its first boot, want running; failed: %s", got, b.sh("systemctl list-units --failed --plain --no-legend"))
	}
	if t.Failed() {
		return errors.New("the first boot is not as it should be")
	}
	return errors.Join(b.Checkpoint(vmtest.Context(t), filepath.Join(dir, checkpointName)), b.Stop())
}

// goOn makes the machine out of a checkpoint and starts it.
func (b *box) goOn(checkpoint string) {
	b.t.Helper()
	m, err := machine.FromCheckpoint(vmtest.Context(b.t), checkpoint, filepath.Join(vmtest.Dir(b.t), "machine"), func(s *machine.Spec) {
		s.Name = nameOf(b.t)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	vmtest.Watch(b.t, m)
	b.Machine = m
	b.start()
}

// booted is a machine with the host's own plan whose first boot is over: it runs.
// What it boots next is as today's sources have it, whenever the stage was made.
func booted(t *testing.T) *box {
	t.Helper()
	b := plainBox(t)
	store := vmtest.Stages(t)
	_, err := store.Ensure(vmtest.Context(t), stage.Stage{
		Name: fullStage, Inputs: ingredients(t, b.host),
		Make: func(_ context.Context, dir, _ string) error { return makeFull(t, dir) }, //nolint:contextcheck // the test's own
	})
	if err != nil {
		t.Fatal(err)
	}
	err = store.Use(vmtest.Context(t), stage.Stage{
		Name: bootedStage, After: fullStage,
		Make: func(_ context.Context, dir, before string) error { return makeBooted(t, dir, before) }, //nolint:contextcheck // the test's own
	}, func(dir string) error {
		b.goOn(filepath.Join(dir, checkpointName))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
