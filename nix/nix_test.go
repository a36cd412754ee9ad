// Package nix_test runs the tests of the configuration with a real Nix, and
// holds what Nix writes against the Go code that reads it.
package nix_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
)

// nixWorks fetches Nix where it is missing, once.
var nixWorks = sync.OnceValue(func() error {
	out, err := exec.Command("./nix.sh", "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// runNix runs a program of Nix in this folder and returns its standard output.
func runNix(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	if err := nixWorks(); err != nil {
		testx.Unavailable(t, fmt.Sprintf("there is no Nix here: %v", err))
	}
	cmd := exec.CommandContext(t.Context(), "./nix.sh", args...)
	cmd.Env = append(os.Environ(), "NIX_PROGRAM="+program)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, exit.Stderr)
		}
		t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return out
}

// eval evaluates a Nix file, or an attribute of it, into a Go value.
func eval[T any](t *testing.T, args ...string) T {
	t.Helper()
	var value T
	out := runNix(t, "nix", append([]string{"eval", "--json"}, args...)...)
	if err := json.Unmarshal(out, &value); err != nil {
		t.Fatalf("nix eval %s: %v in %.200s", strings.Join(args, " "), err, out)
	}
	return value
}

// nixFiles lists the Nix files of the repository. They are read, so that the
// test cache of Go knows that the tests depend on them.
func nixFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != ".." && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		if entry.IsDir() || filepath.Ext(path) != ".nix" {
			return nil
		}
		files = append(files, path)
		_, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestEveryFileParses(t *testing.T) {
	files := nixFiles(t)
	if len(files) < 40 {
		t.Fatalf("%d Nix files found, want all of them: %v", len(files), files)
	}
	runNix(t, "nix-instantiate", append([]string{"--parse"}, files...)...)
}

func TestFunctions(t *testing.T) {
	nixFiles(t)
	passed := eval[[]string](t, "--file", "tests/functions.nix")
	if len(passed) < 100 {
		t.Errorf("%d tests of functions.nix ran, want more than 100", len(passed))
	}
	t.Logf("%d tests of nix/tests/functions.nix", len(passed))
}

// host is what tests/hosts.nix says of one machine.
type host struct {
	Plan     json.RawMessage `json:"plan"`
	Settings struct {
		Disk struct {
			Subvolumes   map[string]subvolume `json:"subvolumes"`
			Immutability struct {
				Persist struct {
					Paths         []string `json:"paths"`
					Exclude       []string `json:"exclude"`
					WithoutEffect []string `json:"withoutEffect"`
				} `json:"persist"`
			} `json:"immutability"`
		} `json:"disk"`
	} `json:"settings"`
}

type subvolume struct {
	Name        string `json:"name"`
	MountPoint  string `json:"mountPoint"`
	ResetOnBoot bool   `json:"resetOnBoot"`
}

// What Nix writes for each host, the reset reads: every field, and no other.
func TestPlanOfEveryHost(t *testing.T) {
	nixFiles(t)
	hosts := eval[map[string]host](t, "--file", "tests/hosts.nix")
	if len(hosts) != 5 {
		t.Errorf("%d hosts, want 5", len(hosts))
	}
	for name, h := range hosts {
		t.Run(name, func(t *testing.T) {
			parsed, err := reset.ParsePlanFile(bytes.NewReader(h.Plan))
			if err != nil {
				t.Fatalf("ParsePlanFile = %v\n%s", err, h.Plan)
			}
			if diff := cmp.Diff(decode(t, h.Plan), decode(t, encode(t, parsed))); diff != "" {
				t.Errorf("what was read differs from what was written (-Nix +Go):\n%s", diff)
			}
			checkSplit(t, h, parsed)
		})
	}
}

// checkSplit compares the plan's rules with pkg/keep's own split of the rules
// that the machine's owner wrote.
func checkSplit(t *testing.T, h host, plan *reset.PlanFile) {
	t.Helper()
	disk := h.Settings.Disk
	volumes := make([]keep.Volume, 0, len(disk.Subvolumes))
	for _, v := range disk.Subvolumes {
		volumes = append(volumes, keep.Volume{Name: v.Name, MountPoint: v.MountPoint, Reset: v.ResetOnBoot})
	}
	persist := disk.Immutability.Persist
	shared, withoutEffect, err := keep.Split(volumes, persist.Paths, persist.Exclude)
	if err != nil {
		t.Fatalf("keep.Split = %v", err)
	}
	want := map[string][2][]string{}
	for _, s := range shared {
		want[s.Volume.Name] = [2][]string{nonNil(s.Keep), nonNil(s.Exclude)}
	}
	got := map[string][2][]string{}
	for _, v := range plan.Volumes {
		got[v.Name] = [2][]string{v.Keep, v.Exclude}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the rules of the plan differ from keep.Split (-Go +Nix):\n%s", diff)
	}
	if diff := cmp.Diff(nonNil(withoutEffect), persist.WithoutEffect); diff != "" {
		t.Errorf("rules without effect (-Go +Nix):\n%s", diff)
	}
}

// splitCase is one question to both splitters.
type splitCase struct {
	Volumes []splitVolume `json:"volumes"`
	Keep    []string      `json:"keep"`
	Exclude []string      `json:"exclude"`
}

type splitVolume struct {
	Name       string `json:"name"`
	MountPoint string `json:"mountPoint"`
	Reset      bool   `json:"reset"`
}

// splitAnswer is what tests/split-cases.nix says.
type splitAnswer struct {
	Errors        []string     `json:"errors"`
	Volumes       []splitRules `json:"volumes"`
	WithoutEffect []string     `json:"withoutEffect"`
}

type splitRules struct {
	Name    string   `json:"name"`
	Keep    []string `json:"keep"`
	Exclude []string `json:"exclude"`
}

// The two splitters, in Nix and in Go, agree on random volumes and rules.
func TestSplitAgreesWithGo(t *testing.T) {
	nixFiles(t)
	random := rand.New(rand.NewPCG(1, 2))
	cases := make([]splitCase, 1500)
	for i := range cases {
		cases[i] = randomCase(random)
	}
	file := filepath.Join(t.TempDir(), "cases.json")
	if err := os.WriteFile(file, encode(t, cases), 0o600); err != nil {
		t.Fatal(err)
	}
	answers := eval[[]splitAnswer](t, "--impure", "--file", "tests/split-cases.nix", "--apply", fmt.Sprintf("f: f %q", file))
	if len(answers) != len(cases) {
		t.Fatalf("%d answers to %d cases", len(answers), len(cases))
	}
	failed := 0
	for i, c := range cases {
		if answers[i].Errors == nil || len(answers[i].Errors) > 0 {
			failed++
		}
		compareSplit(t, c, answers[i])
	}
	if failed < len(cases)/10 || failed > len(cases)*9/10 {
		t.Errorf("%d of %d cases are errors: the cases test one side alone", failed, len(cases))
	}
}

func compareSplit(t *testing.T, c splitCase, answer splitAnswer) {
	t.Helper()
	volumes := make([]keep.Volume, 0, len(c.Volumes))
	for _, v := range c.Volumes {
		volumes = append(volumes, keep.Volume{Name: v.Name, MountPoint: v.MountPoint, Reset: v.Reset})
	}
	shared, withoutEffect, err := keep.Split(volumes, c.Keep, c.Exclude)
	if err != nil {
		if len(answer.Errors) == 0 || answer.Errors[0] != err.Error() {
			t.Errorf("split(%s): Go says %q, Nix %q", encode(t, c), err, answer.Errors)
		}
		return
	}
	want := splitAnswer{Errors: []string{}, Volumes: []splitRules{}, WithoutEffect: nonNil(withoutEffect)}
	for _, s := range shared {
		want.Volumes = append(want.Volumes, splitRules{s.Volume.Name, nonNil(s.Keep), nonNil(s.Exclude)})
	}
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("split(%s) (-Go +Nix):\n%s", encode(t, c), diff)
	}
}

// randomCase draws from few names, so that rules and mount points meet.
func randomCase(random *rand.Rand) splitCase {
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	path := func(words ...string) string {
		var b strings.Builder
		for range random.IntN(4) {
			b.WriteString(pick("/", "/", "/", "//") + pick(words...))
		}
		if b.Len() == 0 || random.IntN(10) == 0 {
			b.WriteString("/")
		}
		return b.String()
	}
	var c splitCase
	for i := range 1 + random.IntN(4) {
		c.Volumes = append(c.Volumes, splitVolume{
			Name:       fmt.Sprintf("@%d", i),
			MountPoint: path("a", "b", "ab", "var"),
			Reset:      random.IntN(4) > 0,
		})
	}
	rule := func() string {
		return path("a", "b", "ab", "var", "c", "*", "a*", "*b", "**", "*a*", "x y", pick(".", "..", ".boot-ready", ".immutability-trash", "d"))
	}
	c.Keep, c.Exclude = []string{}, []string{}
	for range random.IntN(3) {
		c.Keep = append(c.Keep, rule())
	}
	for range random.IntN(3) {
		c.Exclude = append(c.Exclude, rule())
	}
	return c
}

// The hash of the dependencies in the package is that of today's go.mod files.
func TestVendorHash(t *testing.T) {
	if err := nixWorks(); err != nil {
		testx.Unavailable(t, fmt.Sprintf("there is no Nix here: %v", err))
	}
	out, err := exec.CommandContext(t.Context(), "./vendor-hash", "--check").CombinedOutput()
	if err != nil {
		t.Errorf("vendor-hash --check: %v\n%s", err, out)
	}
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// nonNil tells an empty list from none, as JSON does.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
