package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// A dry run tells all and writes nothing, be the disk mounted or not.
func TestDryRun(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	for _, device := range []string{d.top, d.device} {
		before := d.look()
		b.want(exitDone, "@root: the next reset: 2 wiped, 2 changed back, 1 brought back, 1 nested subvolume moved (full)",
			"initrd-reset", "--dry-run", "--device", device)
		d.same(before)
		b.noReport()
		if b.stdout.Len() > 0 {
			t.Errorf("standard output = %q, want nothing without --json", b.stdout.String())
		}
		b.want(exitDone, "@home: the next reset: 2 wiped", "initrd-reset", "--dry-run", "--json", "--device", device)
		d.same(before)
		got := decode[reportFile](t, b.stdout.String())
		if !got.DryRun || got.Mode != "reset" || got.Volumes[0].Outcome != "planned" || got.Volumes[0].Wiped != 2 {
			t.Errorf("--json prints %+v, want the plan of a dry run", got)
		}
		want := []change{
			{Path: "/etc/hostname", Kind: "modified", Type: "file", Fields: []string{"content", "size", "mtime"}, Size: 6},
			{Path: "/etc/motd", Kind: "deleted", Type: "file", Size: 5},
			{Path: "/etc/new", Kind: "added", Type: "file", Size: 4},
			{Path: "/tmp", Kind: "added", Type: "directory"},
			{Path: "/usr/bin/program", Kind: "metadata", Type: "file", Fields: []string{"mode"}, Size: 8},
		}
		onlyTime := cmpopts.IgnoreSliceElements(func(c change) bool {
			return c.Type == "directory" && cmp.Equal(c.Fields, []string{"mtime"})
		})
		if len(got.Changes) != 2 || got.Changes[0].Volume != "@root" {
			t.Fatalf("--json lists the changes of %+v, want those of both volumes", got.Changes)
		}
		if diff := cmp.Diff(want, got.Changes[0].Changes, onlyTime); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
	}
	// The real run does what the dry one told.
	b.want(exitDone, "@root: reset: 2 wiped, 2 changed back, 1 brought back, 1 nested subvolume moved (full)", "initrd-reset", "--json", "--device", d.top)
	if got := decode[reportFile](t, b.stdout.String()); got.DryRun || got.Changes != nil {
		t.Errorf("--json prints %+v, want the report alone", got)
	}
	before := d.look()
	b.want(exitDone, "@root: nothing changed since the last run", "initrd-reset", "--dry-run", "--json", "--device", d.top)
	d.same(before)
	for _, name := range []string{"initrd-restore-previous", "initrd-restore-penultimate", "initrd-snapshot-only"} {
		b.want(exitDone, "mode "+name[len("initrd-"):], name, "--dry-run", "--device", d.top)
		d.same(before)
	}
}

// A dry run looks at a running system: its volumes are mounted, which stops a reset.
func TestDryRunOfMountedVolumes(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	point := t.TempDir()
	if err := unix.Mount(d.device, point, "btrfs", unix.MS_NOATIME, "subvol=@root"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	}()
	before := d.look()
	b.want(exitDone, "@root: the next reset: 2 wiped", "initrd-reset", "--dry-run", "--device", d.device)
	d.same(before)
	b.want(exitFailed, "error: @root: left as it was: it is mounted at", "initrd-reset", "--device", d.device)
}

// What is in the way of a reset is in the way of its dry run.
func TestDryRunFails(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.sh(`btrfs -q subvolume delete @snapshots/@home/CLEAN`)
	before := d.look()
	b.want(exitFailed, "error: @home: left as it was: there is no CLEAN: take one with `nixos-snapshot init`",
		"initrd-reset", "--dry-run", "--device", d.top)
	d.same(before)
}
