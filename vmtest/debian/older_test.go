package debian

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A fetch takes older versions of the same set away, and of no other.
func TestFetchForgetsOlder(t *testing.T) {
	c := Cache{Dir: t.TempDir(), Runner: newOffline(true), mirror: &mirror{uri: "http://mirror.example/debian", signedBy: defaultKeyring}}
	trees := filepath.Join(c.Dir, "trees")
	long := time.Now().Add(-1000 * time.Hour)
	for _, name := range []string{
		"trixie-amd64-tool-0123456789ab", "bookworm-amd64-tool-0123456789ab", "trixie-arm64-tool-0123456789ab",
		"trixie-amd64-tool-more-0123456789ab", ".unpacking-7",
	} {
		path := filepath.Join(trees, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	set := Set{Suite: "trixie", Arch: "amd64", Packages: []string{"tool"}, Depends: true, Without: []string{"gone"}}
	tree, err := c.Fetch(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(trees, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, path := range found {
		got = append(got, filepath.Base(path))
	}
	used := ".used-" + filepath.Base(tree.Root)
	want := []string{
		used, "bookworm-amd64-tool-0123456789ab", filepath.Base(tree.Root),
		"trixie-amd64-tool-more-0123456789ab", "trixie-arm64-tool-0123456789ab",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the cache after a fetch (-want +got):\n%s", diff)
	}
	// The one in use stays as long as there is no other.
	if err := os.Chtimes(filepath.Join(trees, used), long, long); err != nil {
		t.Fatal(err)
	}
	if again, err := c.Fetch(t.Context(), set); err != nil || again.Root != tree.Root {
		t.Errorf("the second time: %+v, %v", again, err)
	}
}

// A kernel has its version in its name.
func TestKind(t *testing.T) {
	for tree, want := range map[string]string{
		"/c/bookworm-amd64-linux-image-6.1.0-50-cloud-amd64-9f8e7d6c5b4a": "bookworm-amd64-linux-image-cloud-amd64",
		"/c/bookworm-amd64-linux-image-6.1.0-9-cloud-amd64-0123456789ab":  "bookworm-amd64-linux-image-cloud-amd64",
		"/c/trixie-amd64-qemu-system-x86-a12b3c4d5e6f":                    "trixie-amd64-qemu-system-x86",
	} {
		if got := kind(tree); got != want {
			t.Errorf("kind(%s) = %s, want %s", tree, got, want)
		}
	}
}
