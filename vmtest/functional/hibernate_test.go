package functional

import (
	"strings"
	"testing"

	"nixos-go/pkg/reset"
	"nixos-go/vmtest"
)

const swap = "/dev/disk/by-partlabel/disk-main-swap"

// subvolumes lists them all, by id and UUID.
const subvolumes = `btrfs subvolume list -u / | sed 's/gen [0-9]* //' | sort; ls /.snapshots/@root /.snapshots/@home`

// hibernate writes the memory to the swap partition and waits until the machine
// is off.
func (b *box) hibernate() {
	b.t.Helper()
	b.sh(`sync; echo 0 > /sys/power/image_size; echo shutdown > /sys/power/disk
	      setsid sh -c 'sleep 2; echo disk > /sys/power/state' >/dev/null 2>&1 </dev/null &`)
	if err := b.Wait(vmtest.Context(b.t)); err != nil {
		b.t.Fatal(err)
	}
}

// A hibernated machine resumes to where it was, and a reset never gets between.
// Where the image is left waiting, the disk is not touched.
func TestVM_Hibernate(t *testing.T) {
	t.Parallel()
	b := booted(t)
	b.sh(`mkswap -q "$1"`, swap)
	b.powerOff()

	resume := "resume=" + swap
	b.boot(resume)
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeUnchanged)
	b.sh(`swapon "$1"`, swap)
	b.sh(day, "monday")
	b.sh("echo here > /run/memory; echo x > /etc/open-file")
	before := b.ready()
	b.hibernate()

	b.boot(resume)
	after := b.ready()
	if after.Boot != before.Boot {
		t.Fatalf("boot id after hibernation = %s, want %s: the machine did not resume", after.Boot, before.Boot)
	}
	b.wantFiles(map[string]string{"/run/memory": "here", "/etc/open-file": "x", "/etc/rogue.conf": "monday"})
	history := b.sh(subvolumes)
	b.hibernate()

	b.boot(resume, "noresume")
	r := b.report()
	if !strings.Contains(r.Error, "hibernated image") || len(r.Volumes) != 0 {
		t.Errorf("the report with an image waiting: error %q, %d volumes; want a refusal that names it", r.Error, len(r.Volumes))
	}
	if got := b.sh(subvolumes); got != history {
		t.Errorf("subvolumes with an image waiting:\n%s\nwant those of before:\n%s", got, history)
	}
	b.wantFiles(map[string]string{"/etc/rogue.conf": "monday", "/home/admin/junk": "monday"})
	if got := b.journal(); !strings.Contains(got, "hibernated image") {
		t.Errorf("the journal does not say why nothing was reset:\n%s", got)
	}
	// As the message says: the owner drops the image.
	b.sh(`mkswap -q "$1"`, swap)
	b.powerOff()

	b.boot(resume)
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.afterDay("monday")
	b.powerOff()
}
