package btrfs_test

import (
	"context"
	"errors"
	"testing"

	"nixos-go/pkg/btrfs"
)

func TestWaitDeleted(t *testing.T) {
	d := newDisk(t)
	d.create("v")
	d.files("v/dir", 500)
	d.sync()
	top, id := d.open(""), d.info("v").ID

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := btrfs.WaitDeleted(canceled, top, id); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitDeleted of what is there, canceled = %v, want %v", err, context.Canceled)
	}
	must(t, btrfs.Destroy(top, "v"))
	must(t, btrfs.WaitDeleted(t.Context(), top, id))
	if _, err := btrfs.Generation(top, id); err == nil {
		t.Error("the tree is there after WaitDeleted")
	}
	if list := d.sh("btrfs subvolume list -d ."); list != "" {
		t.Errorf("btrfs subvolume list -d says %q, want no deleted subvolume that is still there", list)
	}
	must(t, btrfs.WaitDeleted(canceled, top, id))
}
