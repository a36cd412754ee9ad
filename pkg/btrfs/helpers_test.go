package btrfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

// The tests of this package run on real file systems; btrfs-progs is the oracle.

// disk is a btrfs file system, mounted at top.
type disk struct {
	t   *testing.T
	fs  *testx.Filesystem
	top string
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	fs := testx.NewFilesystem(t, 256<<20, testx.WithMountOptions("noatime"))
	return &disk{t: t, fs: fs, top: fs.Mount}
}

func (d *disk) path(parts ...string) string {
	return filepath.Join(append([]string{d.top}, parts...)...)
}

// open opens a path on the disk until the test ends.
func (d *disk) open(path string) *os.File {
	d.t.Helper()
	f, err := os.Open(d.path(path))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { f.Close() })
	return f
}

// create makes a subvolume.
func (d *disk) create(path string) {
	d.t.Helper()
	must(d.t, btrfs.Create(d.open(filepath.Dir(path)), filepath.Base(path)))
}

func (d *disk) sync() {
	d.t.Helper()
	must(d.t, btrfs.Sync(d.open("")))
}

// sh runs a script in the top level and gives its output.
func (d *disk) sh(script string) string {
	d.t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = d.top
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (d *disk) info(path string) btrfs.Info {
	d.t.Helper()
	f, err := os.Open(d.path(path))
	must(d.t, err)
	defer f.Close()
	info, err := btrfs.ReadInfo(f)
	must(d.t, err)
	return info
}

// show is what `btrfs subvolume show` says of a subvolume, by the words before the
// colons.
func (d *disk) show(path string) map[string]string {
	d.t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(d.sh("btrfs subvolume show '" + d.path(path) + "'")) {
		if name, value, found := strings.Cut(line, ":"); found {
			out[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return out
}

func (d *disk) write(path, text string) {
	d.t.Helper()
	must(d.t, os.WriteFile(d.path(path), []byte(text), 0o644))
}

func (d *disk) read(path string) string {
	d.t.Helper()
	text, err := os.ReadFile(d.path(path))
	must(d.t, err)
	return string(text)
}

func (d *disk) exists(path string) bool {
	_, err := os.Lstat(d.path(path))
	return err == nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
