package powercut

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

// identity is the file system id of a mounted image.
func identity(t *testing.T, mount string) btrfs.UUID {
	t.Helper()
	top, err := os.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	fs, err := btrfs.ReadFilesystem(top)
	if err != nil {
		t.Fatal(err)
	}
	return fs.ID
}

func openImage(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestRenewIdentity: three copies of one disk, an older one among them, are three
// file systems to the kernel, and whole.
func TestRenewIdentity(t *testing.T) {
	testx.NeedBtrfs(t)
	image := newBase(t, 256<<20)
	mkfs(t, image)
	older := filepath.Join(t.TempDir(), "older")
	if err := copyFile(older, image); err != nil {
		t.Fatal(err)
	}
	var first btrfs.UUID
	err := withImage(image, func(mount string) error {
		first = identity(t, mount)
		return os.WriteFile(filepath.Join(mount, "file"), []byte("text"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[btrfs.UUID]bool{first: true}
	for range 2 {
		if err := renewIdentity(openImage(t, older)); err != nil {
			t.Fatalf("renewIdentity = %v", err)
		}
		if out, err := exec.Command("btrfs", "check", "--readonly", older).CombinedOutput(); err != nil {
			t.Fatalf("btrfs check: %v\n%s", err, out)
		}
		err := withImage(image, func(string) error {
			return withImage(older, func(mount string) error {
				id := identity(t, mount)
				if seen[id] {
					t.Errorf("renewIdentity gave %v again", id)
				}
				seen[id] = true
				return nil
			})
		})
		if err != nil {
			t.Fatalf("mount both: %v", err)
		}
	}
}

func TestRenewIdentityLeavesTheRest(t *testing.T) {
	testx.NeedBtrfs(t)
	name := newBase(t, 256<<20)
	mkfs(t, name)
	image := openImage(t, name)
	// The first superblock is torn, the second is whole.
	if _, err := image.WriteAt([]byte("torn"), superPlaces[0]+1000); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := renewIdentity(image); err != nil {
		t.Fatalf("renewIdentity = %v", err)
	}
	after, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	second := superPlaces[1]
	if bytes.Equal(before[second:second+superSize], after[second:second+superSize]) {
		t.Error("renewIdentity left the whole superblock as it was")
	}
	copy(after[second:second+superSize], before[second:])
	if !bytes.Equal(before, after) {
		t.Error("renewIdentity changed something else than the whole superblock")
	}

	small := newBase(t, 1<<20)
	if err := renewIdentity(openImage(t, small)); err != nil {
		t.Errorf("renewIdentity(a small disk that is no btrfs) = %v, want nil", err)
	}
}
