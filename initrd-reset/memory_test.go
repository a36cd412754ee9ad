package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
)

// measureEnv makes the test binary run its arguments and print their peak of memory.
// A child's peak begins with that of its parent (getrusage(2) tells of the process,
// not of the program, and a parent lends its memory until the exec), so the parent
// has to be a small one.
const measureEnv = "NIXOS_GO_MEASURE"

func TestMain(m *testing.M) {
	if os.Getenv(measureEnv) == "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stderr = os.Stderr
	err := cmd.Run()
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	fmt.Println(usage.Maxrss) // in KiB
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// peak runs a program and gives its peak of memory in MiB.
func peak(t *testing.T, program string, args ...string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{program}, args...)...)
	cmd.Env = append(os.Environ(), measureEnv+"=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	kib, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// files makes empty files in one directory, each with an attribute of some size.
func files(t *testing.T, dir, name string, count, attribute int) {
	t.Helper()
	value := make([]byte, attribute)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		fd, err := syscall.Open(filepath.Join(dir, name+strconv.Itoa(i)), syscall.O_CREAT|syscall.O_WRONLY|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if attribute > 0 {
			if err := unix.Fsetxattr(fd, "user.attribute", value, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Close(fd); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMemory holds the program, as it is in the initrd, to the 64 MB of section 6 of
// the design: over many files that are kept, and many that are wiped one by one,
// since CLEAN has their directory.
func TestMemory(t *testing.T) {
	const limit = 64
	fs := testx.NewFilesystem(t, 2<<30)
	fs.Remount("noatime")
	at := func(parts ...string) string { return filepath.Join(append([]string{fs.Mount}, parts...)...) }
	subvolume := func(dir, name string) {
		f, err := os.Open(at(dir))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := btrfs.Create(f, name); err != nil {
			t.Fatal(err)
		}
	}
	subvolume("", "@snapshots")
	for _, v := range []string{"@root", "@home"} {
		subvolume("", v)
		if err := os.MkdirAll(at("@snapshots", v), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"@root/tmp", "@home/alice"} {
		if err := os.MkdirAll(at(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []string{"@root", "@home"} {
		src, err := os.Open(at(v))
		if err != nil {
			t.Fatal(err)
		}
		dir, err := os.Open(at("@snapshots", v))
		if err != nil {
			t.Fatal(err)
		}
		if err := btrfs.Snapshot(src, dir, "CLEAN", true); err != nil {
			t.Fatal(err)
		}
		src.Close()
		dir.Close()
	}
	for i := range 20 {
		files(t, at("@home/alice/Documents", strconv.Itoa(i)), "kept", 10_000, 0)
	}
	plan := filepath.Join(t.TempDir(), "plan.json")
	if err := os.WriteFile(plan, []byte(`{"version": 1, "device": "`+fs.Mount+`", "volumes": [
		{"name": "@root", "mountPoint": "/", "keep": ["/etc/ssh"]},
		{"name": "@home", "mountPoint": "/home", "keep": ["/*/Documents"]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "initrd-reset")
	goCommand(t, nil, "build", "-trimpath", "-ldflags=-s -w", "-o", program, ".")
	report := filepath.Join(t.TempDir(), "report.json")
	for _, way := range []string{"full", "changed-only"} {
		files(t, at("@root/tmp"), "wiped", 70_000, 0)
		files(t, at("@home/alice"), "wiped", 25_000, 0)
		files(t, at("@home/alice"), "large", 5_000, 12<<10)
		got := peak(t, program, "--plan", plan, "--report", report)
		t.Logf("%s: %d MiB", way, got)
		if got >= limit {
			t.Errorf("%s: peak of memory is %d MiB, want less than %d", way, got, limit)
		}
		text, err := os.ReadFile(report)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"way": "` + way + `"`, `"wiped": 70000`, `"wiped": 30000`} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: the report does not contain %s:\n%.1000s", way, want, text)
			}
		}
	}
}
