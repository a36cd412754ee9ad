package reset

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// What the cleanup cannot do, it leaves alone and says so, and does the rest.
func TestCleanupGoesOn(t *testing.T) {
	b := newBox(t)
	b.run(Options{})
	b.work("wednesday")
	b.run(Options{})
	b.sh("@snapshots/@home", `mv PREVIOUS PREVIOUS.saved; mkdir PREVIOUS; echo mine > PREVIOUS/file; mkdir AGED-plain; echo mine > AGED-plain/file; echo > AGED-file; ln -s ../../@other AGED-link`)
	b.snapshot("@other", snapshotOf("@home", "AGED-default"), true)
	b.snapshot("@other", snapshotOf("@home", "AGED-old"), false)
	b.setFlags(snapshotOf("@home", "AGED-old"), btrfs.FlagImmutable)
	top := b.hold(b.top)
	defer top.Close()
	must(t, btrfs.SetDefault(top, b.info(snapshotOf("@home", "AGED-default")).ID))
	kept := []string{"PREVIOUS", "PREVIOUS.saved", "AGED-plain", "AGED-file", "AGED-link", "AGED-default", "CLEAN", "CURRENT"}
	for i, name := range kept {
		kept[i] = snapshotOf("@home", name)
	}
	kept = append(kept, "@other", "canary")
	before, live := only(b.everything(), kept...), b.read("@home")

	err := Cleanup(t.Context(), top, b.plan, CleanupOptions{})
	if err == nil {
		t.Fatal("Cleanup() = nil, want what it could not do")
	}
	for _, want := range []string{"volume @home", "seal PREVIOUS", "AGED-plain", "AGED-file", "AGED-link", "AGED-default"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Cleanup() = %v, want it to name %s", err, want)
		}
	}
	b.same("what is not the cleanup's", before, only(b.everything(), kept...))
	b.same("live", live, b.read("@home"))
	for _, gone := range []string{"@home/" + TrashName, "@root/" + TrashName, snapshotOf("@home", "AGED-old")} {
		if exists(b.path(gone)) {
			t.Errorf("%s is left", gone)
		}
	}
	must(t, btrfs.SetDefault(top, btrfs.TopLevelID))
}

// The cleanup and a reset keep out of each other's way.
func TestCleanupBesideAReset(t *testing.T) {
	b := newBox(t)
	lock := b.hold(b.path(DefaultSnapshots))
	defer lock.Close()
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	top := b.hold(b.top)
	defer top.Close()
	if err := Cleanup(t.Context(), top, b.plan, CleanupOptions{}); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("Cleanup() beside a run = %v, want it refused", err)
	}
}
