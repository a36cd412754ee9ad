package reset

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/testx/model"
)

// firstMachine has one volume, and a snapshots subvolume as who partitions a disk
// makes it.
func firstMachine(t *testing.T, keeps ...string) *machine {
	t.Helper()
	m := newMachine(t, newDisk(t, 256<<20), PlanFileVolume{Name: "@root", MountPoint: "/", Keep: keeps})
	m.sh("", "chmod 755 @snapshots; rmdir @snapshots/@root")
	return m
}

// names lists everything below a directory.
func (m *machine) names(path string) []string {
	m.t.Helper()
	var out []string
	for name := range m.read(path) {
		if name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// A first CLEAN closes the snapshots subvolume to everybody but root, whoever made it.
func TestFirstCleanClosesTheSnapshots(t *testing.T) {
	m := firstMachine(t, "/k")
	m.newCleans(CleanOptions{First: true, DryRun: true})
	mode := func() os.FileMode {
		info, err := os.Stat(m.path(DefaultSnapshots))
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if mode() != 0o755 {
		t.Errorf("a dry run sets the mode %04o", mode())
	}
	m.newCleans(CleanOptions{First: true})
	if mode() != 0o700 {
		t.Errorf("the snapshots subvolume has mode %04o, want 0700", mode())
	}
}

// Directories above what is left out keep their times and flags, and flags in what is
// left out are in nobody's way.
func TestFirstCleanLeavesNoTraceAbove(t *testing.T) {
	m := firstMachine(t, "/etc/machine-id", "/var/empty/locked")
	m.sh("@root", `mkdir -p etc var/empty/locked srv; echo > etc/machine-id; echo > etc/other; echo > var/empty/locked/x
		touch -d @1700000000.123456789 etc var/empty .; touch var/empty/locked/y
		chattr +i var/empty/locked/x var/empty/locked; chattr +a etc`)
	live := m.read("@root")
	m.newCleans(CleanOptions{First: true})
	keeps := m.plan.Volumes[0].Keep
	if diff := model.Diff(model.ExpectFirstClean(live, keeps, nil, nil), m.clean("@root")); diff != "" {
		t.Errorf("CLEAN:\n%s", diff)
	}
	if diff := model.Diff(live, m.read("@root")); diff != "" {
		t.Errorf("the live volume changed:\n%s", diff)
	}
	m.checkReset(m.plan.Volumes[0])
}

// A nested subvolume leaves a stub in a snapshot; below a kept path it goes like
// anything else.
func TestFirstCleanDropsKeptStubs(t *testing.T) {
	m := firstMachine(t, "/var/lib/kept")
	m.sh("@root", `mkdir -p var/lib/kept var/other; for d in var/lib/kept var/other; do btrfs -q subvolume create $d/nested; echo > $d/nested/x; done`)
	m.newCleans(CleanOptions{First: true})
	clean := snapshotOf("@root", NameClean)
	if diff := cmp.Diff([]string{"var", "var/lib", "var/other", "var/other/nested"}, m.names(clean)); diff != "" {
		t.Errorf("CLEAN (-want +got):\n%s", diff)
	}
}

// A run that is stopped at any step leaves the old CLEAN, or has the new one in its
// place, and nothing beside it but what the cleanup deletes.
func TestFirstCleanStops(t *testing.T) {
	m := firstMachine(t, "/dir")
	m.sh("@root", "mkdir dir; echo > dir/x; echo > first")
	m.newCleans(CleanOptions{First: true})
	m.sh("@root", "echo > second")
	top := m.hold(m.top)
	defer top.Close()
	for at := 1; ; at++ {
		ctx, cancel := context.WithCancel(t.Context())
		count := 0
		options := CleanOptions{First: true, Again: true, Trace: func(s Step) {
			if !s.Done {
				count++
			}
			if count == at {
				cancel()
			}
		}}
		c, err := PrepareCleans(ctx, top, m.plan, []string{"@root"}, options)
		if err == nil {
			err = errors.Join(c.PutInPlace(ctx), c.Close())
		}
		cancel()
		want := []string{"first"}
		if err == nil {
			want = []string{"first", "second"}
		} else if !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at step %d: %v, want %v", at, err, context.Canceled)
		}
		if diff := cmp.Diff(want, m.names(snapshotOf("@root", NameClean))); diff != "" {
			t.Errorf("stopped at step %d (%v): CLEAN (-want +got):\n%s", at, err, diff)
		}
		if err == nil {
			if at == 1 {
				t.Error("nothing was stopped")
			}
			break
		}
		m.onlyCleanIsThere("@root")
	}
}
