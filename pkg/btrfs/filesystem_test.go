package btrfs_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

// onDisk is the transaction that the first superblock of a device names: the last
// that is on disk.
func (d *disk) onDisk() uint64 {
	d.t.Helper()
	out, err := exec.Command("btrfs", "inspect-internal", "dump-super", d.fs.Device).CombinedOutput()
	m := regexp.MustCompile(`(?m)^generation\s+(\d+)$`).FindSubmatch(out)
	if err != nil || m == nil {
		d.t.Fatalf("dump-super: %v\n%s", err, out)
	}
	n, err := strconv.ParseUint(string(m[1]), 10, 64)
	must(d.t, err)
	return n
}

func TestSync(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	top := d.open("")
	for i := range 3 {
		before := d.onDisk()
		d.write("v/file", fmt.Sprint(i))
		must(t, btrfs.Sync(top))
		if got := d.onDisk(); got <= before {
			t.Errorf("transaction on disk after Sync = %d, want more than %d", got, before)
		}
		d.write("v/file", fmt.Sprint(-i))
		transID, err := btrfs.StartSync(top)
		must(t, err)
		must(t, btrfs.WaitSync(top, transID))
		if got := d.onDisk(); got < transID {
			t.Errorf("transaction on disk after WaitSync(%d) = %d", transID, got)
		}
	}
	transID, err := btrfs.StartSync(top)
	must(t, err)
	if got := d.onDisk(); transID > got {
		t.Errorf("StartSync with nothing to do = %d, want at most %d, which is on disk", transID, got)
	}
}

func TestReadFilesystem(t *testing.T) {
	fs := testx.NewFilesystem(t, 256<<20, testx.WithDevices(3))
	d := &disk{t: t, fs: fs, top: fs.Mount}
	show := d.sh("btrfs filesystem show --raw -m .")
	var want btrfs.Filesystem
	for _, m := range regexp.MustCompile(`devid\s+(\d+) size (\d+) used \d+ path (\S+)`).FindAllStringSubmatch(show, -1) {
		id, err := strconv.ParseUint(m[1], 10, 64)
		must(t, err)
		size, err := strconv.ParseUint(m[2], 10, 64)
		must(t, err)
		want.Devices = append(want.Devices, btrfs.Device{ID: id, Bytes: size, Path: m[3]})
	}
	got, err := btrfs.ReadFilesystem(d.open(""))
	must(t, err)
	if m := regexp.MustCompile(`uuid: (\S+)`).FindStringSubmatch(show); m == nil || got.ID.String() != m[1] {
		t.Errorf("ID = %s, btrfs filesystem show says\n%s", got.ID, show)
	}
	for i := range got.Devices {
		if got.Devices[i].UUID.IsZero() || got.Devices[i].Missing() {
			t.Errorf("device %d has UUID %s, missing: %v, want one, and not missing", i, got.Devices[i].UUID, got.Devices[i].Missing())
		}
		got.Devices[i].UUID = btrfs.UUID{}
	}
	if diff := cmp.Diff(want.Devices, got.Devices); diff != "" || len(got.Devices) != 3 {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	// Ids have a gap once a device is removed.
	d.sh("btrfs device remove " + fs.Devices[1].Path + " .")
	got, err = btrfs.ReadFilesystem(d.open(""))
	if err != nil || len(got.Devices) != 2 || got.Devices[0].ID != 1 || got.Devices[1].ID != 3 {
		t.Errorf("after the second of three devices was removed: %+v, %v, want 1 and 3", got.Devices, err)
	}
}

// A device of two is ready once the driver knows the other.
func TestScanDevice(t *testing.T) {
	fs := testx.NewFilesystem(t, 256<<20, testx.WithDevices(2), testx.Unmounted())
	fs.Forget()
	first, second := fs.Devices[0].Path, fs.Devices[1].Path
	if ready, err := btrfs.DevicesReady(first); ready || err != nil {
		t.Errorf("DevicesReady with one of two devices = %v, %v, want false", ready, err)
	}
	if top, err := btrfs.Mount(first, btrfs.MountOptions{}); err == nil {
		top.Close()
		t.Error("Mount with one of two devices succeeds, want an error")
	}
	must(t, btrfs.ScanDevice(second))
	if ready, err := btrfs.DevicesReady(first); !ready || err != nil {
		t.Errorf("DevicesReady after ScanDevice of the other = %v, %v, want true", ready, err)
	}
	top, err := btrfs.Mount(first, btrfs.MountOptions{})
	must(t, err)
	top.Close()
	long := "/dev/" + string(make([]byte, 5000))
	if err := btrfs.ScanDevice(long); err == nil {
		t.Error("ScanDevice of a name of 5,000 bytes succeeds, want an error")
	}
	for name, err := range map[string]error{
		"ScanDevice(missing)":   btrfs.ScanDevice("/dev/nonexistent"),
		"DevicesReady(missing)": func() error { _, err := btrfs.DevicesReady("/dev/nonexistent"); return err }(),
	} {
		if err == nil || !regexp.MustCompile("/dev/nonexistent: no such file").MatchString(err.Error()) {
			t.Errorf("%s = %v, want an error that names the device", name, err)
		}
	}
}

func TestMissingDevice(t *testing.T) {
	fs := testx.NewFilesystem(t, 256<<20, testx.WithDevices(2), testx.Unmounted())
	fs.Detach(1)
	top, err := btrfs.Mount(fs.Device, btrfs.MountOptions{Flags: []string{"degraded"}})
	must(t, err)
	defer top.Close()
	got, err := btrfs.ReadFilesystem(top)
	must(t, err)
	if len(got.Devices) != 2 || got.Devices[0].Missing() || !got.Devices[1].Missing() {
		t.Errorf("devices = %+v, want the second of two missing", got.Devices)
	}
	if got.Devices[0].Path != fs.Device || filepath.Dir(got.Devices[0].Path) != "/dev" {
		t.Errorf("path of the first = %q, want %q", got.Devices[0].Path, fs.Device)
	}
}
