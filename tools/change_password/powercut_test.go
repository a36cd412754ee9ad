package changepassword_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/luksfile"
	changepassword "nixos-go/tools/change_password"
	"nixos-go/vmtest/powercut"
)

// TestPowerCuts cuts the power of a disk whose passphrase is changed: after every
// flush, after every write, and with any part of the writes lost that no flush covers.
// Each time the old passphrase or the new one opens it, and the same change once more
// finishes.
func TestPowerCuts(t *testing.T) {
	if err := powercut.CanRecord(); err != nil {
		testx.Unavailable(t, err.Error())
	}
	dir := t.TempDir()
	m := newMachine(t, oldPassword)
	disk := m.image()
	base := filepath.Join(dir, "base.img")
	if err := os.Rename(disk, base); err != nil {
		t.Fatal(err)
	}
	change := func() {
		t.Helper()
		status := m.run(t.Context(), local(), answers(), changepassword.Hooks{}, "--full-disk-encryption-only")
		if status != 0 {
			t.Fatalf("change: exit status %d\n%s", status, m.err.String())
		}
	}
	err := powercut.Record(t.Context(), dir, base, func(_ context.Context, device string) error {
		err := os.Symlink(device, disk)
		change()
		return errors.Join(err, os.Remove(disk))
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := powercut.OpenRecording(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Verify(); err != nil {
		t.Fatal(err)
	}
	image, err := os.Create(filepath.Join(dir, "cut.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	seen := map[[sha256.Size]byte]bool{} // disks that are the same are tried once
	points := powercut.Selection{Flushes: true, Writes: true, Subsets: 6, Seed: 1}.Select(r.Log, false)
	for _, p := range points {
		if err := r.Image(image, p); err != nil {
			t.Fatal(err)
		}
		sum := sumOf(t, image)
		if seen[sum] {
			continue
		}
		seen[sum] = true
		opensOld := luksfile.Opens(t, image.Name(), oldPassword) >= 0
		opensNew := luksfile.Opens(t, image.Name(), newPassword) >= 0
		if !opensOld && !opensNew {
			t.Errorf("cut at %v: no passphrase opens the disk", p)
			continue
		}
		if !opensOld {
			continue // nothing is left to do
		}
		if err := os.Rename(image.Name(), disk); err != nil {
			t.Fatal(err)
		}
		change()
		if got := m.state(); got.DiskOld || !got.DiskNew {
			t.Errorf("cut at %v, and the change once more: %+v", p, got)
		}
		if err := os.Rename(disk, image.Name()); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) < 4 {
		t.Errorf("%d different disks at %d points: is anything recorded?", len(seen), len(points))
	}
	t.Logf("%d points, %d different disks", len(points), len(seen))
}

func sumOf(t *testing.T, f *os.File) [sha256.Size]byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
