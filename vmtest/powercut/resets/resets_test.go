package resets

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"nixos-go/pkg/run"
	"nixos-go/pkg/testx"
	"nixos-go/vmtest/powercut"
)

func TestMain(m *testing.M) {
	if status, called := Helper(os.Args[1:], os.Stderr); called {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// newTools builds initrd-reset.
func newTools(t *testing.T) Tools {
	t.Helper()
	testx.NeedBtrfs(t)
	if err := powercut.CanRecord(); err != nil {
		testx.Unavailable(t, err.Error())
	}
	binary := filepath.Join(t.TempDir(), "initrd-reset")
	build := exec.Command("go", "build", "-o", binary, "nixos-go/initrd-reset")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build initrd-reset: %v\n%s", err, out)
	}
	snapshot := filepath.Join(t.TempDir(), "nixos-snapshot")
	if out, err := exec.Command("go", "build", "-o", snapshot, "nixos-go/tools/snapshot/cmd/nixos-snapshot").CombinedOutput(); err != nil {
		t.Fatalf("go build nixos-snapshot: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Tools{Run: &run.Local{}, InitrdReset: binary, Snapshot: snapshot, Helper: self}
}

func newRunner(t *testing.T, s powercut.Selection) *powercut.Runner {
	t.Helper()
	dir, err := os.MkdirTemp(powercut.WorkDir(), "powercut-test-") //nolint:usetesting // on a tmpfs
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &powercut.Runner{Select: s, Workers: 2, Dir: dir, Run: &run.Local{}}
}

// TestScenarios runs a few of the table; scripts/powercut runs all.
func TestScenarios(t *testing.T) {
	tools := newTools(t)
	few := []string{"reset-first-boot", "snapshot-only", "restore-previous-restless", takeCleanName}
	r := newRunner(t, powercut.Selection{Flushes: true, Subsets: 1, Sample: 4, Firsts: 1, Dense: 8})
	for _, s := range tools.Scenarios() {
		if !slices.Contains(few, s.Name) {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			result, err := r.Cut(t.Context(), s)
			if err != nil {
				t.Fatalf("Cut = %v", err)
			}
			for _, f := range result.Failures {
				t.Errorf("point %s, %s: %s", f.Point, f.Phase, f.Error)
			}
			t.Logf("%d points", result.Tried())
		})
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range (Tools{}).Scenarios() {
		if seen[s.Name] {
			t.Errorf("scenario %q is there twice", s.Name)
		}
		seen[s.Name] = true
	}
	for _, mode := range []string{"reset-first-boot", "reset-tenth-boot", "snapshot-only", "restore-previous", "restore-penultimate", "disabled", "cleanup", "take-clean"} {
		if !seen[mode] {
			t.Errorf("there is no scenario %q", mode)
		}
	}
}
