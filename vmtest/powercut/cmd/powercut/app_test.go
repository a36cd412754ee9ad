package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
	"nixos-go/vmtest/powercut"
	"nixos-go/vmtest/powercut/writelog"
)

// call runs the command with arguments, as root or not.
func call(t *testing.T, uid int, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	u := ui.New(&out, &err, ui.Options{})
	env := &clikit.Env{UI: u, UID: uid, Host: run.LocalHost(&run.Local{}), Getenv: func(string) string { return "" }}
	status = clikit.Run(t.Context(), app(env), args, u)
	return status, out.String(), err.String()
}

// emptyRecording makes the recording of a program that wrote nothing.
func emptyRecording(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"before.img": bytes.Repeat([]byte("disk"), 2048),
		"writes.log": writelog.Empty(512),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWrongCalls(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "initrd-reset")
	if err := os.WriteFile(binary, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args   []string
		status int
		want   string // in the message
	}{
		{[]string{}, 2, "which of"},
		{[]string{"sing"}, 2, "unknown command"},
		{[]string{"run", "--initrd-reset", binary, "nonsense"}, 2, `no scenario "nonsense"`},
		{[]string{"run", "--initrd-reset", binary, "["}, 2, "pattern"},
		{[]string{"run", "--initrd-reset", "/nonexistent"}, 1, "scripts/powercut makes it"},
		{[]string{"list", "--initrd-reset", binary, "more"}, 2, "unexpected argument"},
		{[]string{"show"}, 2, "want RECORDING"},
		{[]string{"show", "/nonexistent"}, 1, "no such file"},
		{[]string{"image", "dir", "flush:1"}, 2, "want RECORDING POINT FILE"},
		{[]string{"image", "dir", "flash:1", "out"}, 2, "no crash point"},
		{[]string{"replay", "--scenario", "x", "dir", "flush:1:2"}, 2, "no crash point"},
		{[]string{"record", "--base", "x", "--out", "y"}, 2, "want a program"},
	}
	for _, tt := range tests {
		status, _, stderr := call(t, 0, tt.args...)
		if status != tt.status || !strings.Contains(stderr, tt.want) {
			t.Errorf("powercut %q = %d, %q, want %d and %q", tt.args, status, stderr, tt.status, tt.want)
		}
	}
	for _, args := range [][]string{
		{"run"}, {"replay", "--scenario", "x", "dir", "start"}, {"record", "--base", "x", "--out", "y", "true"},
	} {
		if status, _, stderr := call(t, 1000, args...); status != 1 || !strings.Contains(stderr, "as root") {
			t.Errorf("powercut %q as a user = %d, %q, want 1 and that root is needed", args, status, stderr)
		}
	}
}

func TestShowAndImage(t *testing.T) {
	dir := emptyRecording(t)
	status, stdout, stderr := call(t, 1000, "show", dir)
	if status != 0 || !strings.HasPrefix(stdout, "entry") {
		t.Errorf("powercut show = %d, %q, %q, want a table", status, stdout, stderr)
	}
	status, stdout, _ = call(t, 1000, "show", "--json", dir)
	var shown listing
	if err := json.Unmarshal([]byte(stdout), &shown); err != nil || status != 0 || shown.Size != 8192 || len(shown.Entries) != 0 {
		t.Errorf("powercut show --json = %d, %+v, %v, want a disk of 8192 bytes", status, shown, err)
	}
	image := filepath.Join(t.TempDir(), "image")
	if status, _, stderr := call(t, 1000, "image", dir, "start", image); status != 0 {
		t.Errorf("powercut image = %d, %q", status, stderr)
	}
	want, err := os.ReadFile(filepath.Join(dir, "before.img"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(image); err != nil || !bytes.Equal(got, want) {
		t.Errorf("powercut image start: %d bytes, %v, want those of the disk before", len(got), err)
	}
	if status, _, stderr := call(t, 1000, "image", dir, "start", image); status != 1 || !strings.Contains(stderr, "exists") {
		t.Errorf("powercut image onto a file = %d, %q, want a refusal", status, stderr)
	}
	if status, _, stderr := call(t, 1000, "image", dir, "write:0", image+"2"); status != 1 || !strings.Contains(stderr, "0 entries") {
		t.Errorf("powercut image of no point = %d, %q, want that the log has no entries", status, stderr)
	}
}

func TestChoose(t *testing.T) {
	table := []*powercut.Scenario{{Name: "reset-a"}, {Name: "reset-b"}, {Name: "cleanup"}}
	for _, tt := range []struct {
		patterns []string
		want     []string
	}{
		{nil, []string{"reset-a", "reset-b", "cleanup"}},
		{[]string{"reset-*"}, []string{"reset-a", "reset-b"}},
		{[]string{"cleanup", "reset-b", "reset-?"}, []string{"reset-a", "reset-b", "cleanup"}},
	} {
		chosen, err := choose(table, tt.patterns)
		if err != nil {
			t.Errorf("choose(%q) = %v", tt.patterns, err)
		}
		var got []string
		for _, s := range chosen {
			got = append(got, s.Name)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("choose(%q) (-want +got)\n%s", tt.patterns, diff)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	u := ui.New(&out, &out, ui.Options{})
	tool := &tool{env: &clikit.Env{UI: u}}
	results := []*powercut.Result{
		{Scenario: "a", Mode: "reset", Points: map[powercut.Kind]powercut.Tally{
			powercut.Start: {Tried: 1}, powercut.Flush: {Tried: 10, Failed: 1}, powercut.Subset: {Tried: 3},
		}, Twice: map[powercut.Kind]powercut.Tally{powercut.Flush: {Tried: 20}}, Failures: []powercut.Failure{{Point: "flush:3"}}},
		{Scenario: "b", Mode: "cleanup", Points: map[powercut.Kind]powercut.Tally{powercut.Start: {Tried: 1}, powercut.Write: {Tried: 5}}},
	}
	if err := tool.print(results, false); err != nil {
		t.Fatal(err)
	}
	want := `mode     scenarios  flush  write  subset  cut twice  all  failed
reset            1     11      0       3         20   34       1
cleanup          1      1      5       0          0    6       0
all              2     12      5       3         20   40       1
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("print (-want +got)\n%s", diff)
	}
}

func TestRepeatCommand(t *testing.T) {
	got := repeatCommand("bin/initrd-reset")(&powercut.Scenario{Name: "reset"}, "/dev/shm/a b", powercut.Point{Kind: powercut.Subset, Entry: 4, Seed: 7})
	want := "scripts/powercut replay --scenario reset --initrd-reset bin/initrd-reset '/dev/shm/a b' subset:4/7"
	if got != want {
		t.Errorf("repeatCommand = %q, want %q", got, want)
	}
}

func TestCommandOn(t *testing.T) {
	got := commandOn("/dev/loop7", []string{"mount", "{}", "/mnt", "-o", "{}x"})
	if want := "mount /dev/loop7 /mnt -o '{}x'"; got.String() != want {
		t.Errorf("commandOn = %s, want %s", got, want)
	}
}
