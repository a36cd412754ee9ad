package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goCommand runs the go command on this module alone, as the package is built.
func goCommand(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// The program in the initrd is made of the standard library, x/sys, pkg/btrfs,
// pkg/keep and pkg/reset, and nothing else (section 2 of the design).
func TestImports(t *testing.T) {
	allowed := []string{
		"nixos-go/initrd-reset", "nixos-go/pkg/btrfs", "nixos-go/pkg/keep", "nixos-go/pkg/reset", "golang.org/x/sys/unix",
	}
	for _, arch := range []string{"amd64", "arm64"} {
		var found []string
		for path := range strings.FieldsSeq(goCommand(t, []string{"GOARCH=" + arch}, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")) {
			found = append(found, path)
			if !slices.Contains(allowed, path) {
				t.Errorf("for %s the program imports %s", arch, path)
			}
		}
		if len(found) < len(allowed) {
			t.Errorf("for %s go list names %q, want all of %q", arch, found, allowed)
		}
		for path := range strings.FieldsSeq(goCommand(t, []string{"GOARCH=" + arch}, "list", "-deps", ".")) {
			if path == "net" || path == "os/exec" || path == "runtime/cgo" || path == "crypto/tls" {
				t.Errorf("for %s the program imports %s, which it has no use for", arch, path)
			}
		}
	}
}

// The binary is static and stays under 3 MB (section 2 of the design).
func TestBinary(t *testing.T) {
	const limit = 3_000_000
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		path := filepath.Join(t.TempDir(), "initrd-reset")
		goCommand(t, []string{"GOARCH=" + arch}, "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= limit {
			t.Errorf("binary for %s has %d bytes, want less than %d", arch, info.Size(), limit)
		}
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Machine != machine {
			t.Errorf("binary for %s is for %v", arch, f.Machine)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("binary for %s has a segment %v, want it static", arch, p.Type)
			}
		}
		if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
			t.Errorf("binary for %s is not stripped", arch)
		}
	}
}

// The binary itself, in a process of its own: status and streams as run gives them.
func TestProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "initrd-disabled")
	goCommand(t, nil, "build", "-o", path, ".")
	report := filepath.Join(t.TempDir(), "run/report.json")
	for _, tt := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{[]string{"-h"}, 0, "Usage: initrd-disabled [--plan FILE]", ""},
		{[]string{"--report", report, "--json"}, 0, `"mode": "disabled"`, "mode disabled, from the name initrd-disabled"},
		{[]string{"--report", report, "--mode", "reset", "--plan", "/nonexistent"}, 2, "", "plan file: open /nonexistent"},
		{[]string{"--no-such-flag"}, 2, "", `unknown flag "--no-such-flag"`},
	} {
		var stdout, stderr strings.Builder
		cmd := exec.Command(path, tt.args...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // the status is looked at
		if got := cmd.ProcessState.ExitCode(); got != tt.status || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%q = status %d, output %q, errors %q, want %d, %q, %q", tt.args, got, stdout.String(), stderr.String(), tt.status, tt.stdout, tt.stderr)
		}
	}
}
