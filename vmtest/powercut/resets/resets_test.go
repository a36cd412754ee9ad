package resets

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/run"
	"nixos-go/vmtest/powercut"
)

func TestMain(m *testing.M) {
	if status, called := Helper(os.Args[1:], os.Stderr); called {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

func TestScenarios(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "initrd-reset")
	build := exec.Command("go", "build", "-o", bin, "nixos-go/initrd-reset")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tools := Tools{Run: &run.Local{}, InitrdReset: bin, Helper: self}
	for _, s := range tools.Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			dir, err := os.MkdirTemp(powercut.WorkDir(), "powercut-test-") //nolint:usetesting // on a tmpfs
			if err != nil {
				t.Fatal(err)
			}
			r := powercut.Runner{
				Select:  powercut.Selection{Flushes: true, Writes: true, Subsets: 3, Sample: 10, Firsts: 1},
				Workers: 2, Dir: dir, Run: &run.Local{},
			}
			result, err := r.Cut(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v %+v %.1fs", result.Log, result.Points, result.Seconds)
			seen := map[string]int{}
			first := map[string]string{}
			for _, f := range result.Failures {
				lines := strings.Split(f.Error, "\n")
				key := string(f.Phase) + " "
				for i, l := range lines {
					if i > 12 {
						break
					}
					if k := strings.Index(l, " 20"); k > 0 {
						l = l[:k]
					}
					key += l + "\n"
				}
				seen[key]++
				if seen[key] == 1 {
					first[key] = f.Point
				}
			}
			for k, n := range seen {
				t.Errorf("%d times, first %s: %s", n, first[k], k)
			}
			t.Log(len(seen))
			for i, f := range result.Failures[:0] {
				if i < 3 {
					t.Errorf("%s %s: %s", f.Point, f.Phase, f.Error)
				}
			}
		})
	}
}
