package toolkit

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/testx/tooltest"
)

// TestMain makes the test's own program nixos-go where a test calls it by a
// name of the toolkit.
func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	if _, isTool := find(name); isTool || name == "nixos-go" {
		os.Exit(Main(os.Args))
	}
	tooltest.Main(m, nil)
}

// installed is a folder with this program under the name nixos-go.
func installed(t *testing.T) (dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nixos-go"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// call runs a program and gives both streams and the exit status.
func call(t *testing.T, program string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, messages strings.Builder
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &messages
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), messages.String(), cmd.ProcessState.ExitCode()
}

func TestListsItsTools(t *testing.T) {
	stdout, stderr, status := call(t, filepath.Join(installed(t), "nixos-go"))
	if status != 0 || !strings.Contains(stderr, "hint: NAME --help") {
		t.Errorf("nixos-go: status %d, messages %q", status, stderr)
	}
	document, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for line := range strings.Lines(stdout + stderr) {
		shown.WriteString("    " + line)
	}
	if !strings.Contains(string(document), "    $ nixos-go\n"+shown.String()) {
		t.Errorf("tools/README.md does not show what nixos-go prints:\n%s", shown.String())
	}
	var listed []string
	for line := range strings.Lines(stdout) {
		name, usage, _ := strings.Cut(line, " ")
		if strings.TrimSpace(usage) == "" {
			t.Errorf("%s has no usage", name)
		}
		listed = append(listed, name)
	}
	if diff := cmp.Diff(names(""), listed); diff != "" {
		t.Errorf("nixos-go lists (-want +got):\n%s", diff)
	}
}

// TestDispatch: a link's name, a first argument with and without nixos-.
func TestDispatch(t *testing.T) {
	dir := installed(t)
	self := filepath.Join(dir, "nixos-go")
	if _, stderr, status := call(t, self, "install-links", dir); status != 0 {
		t.Fatalf("install-links: %s", stderr)
	}
	if to, err := os.Readlink(filepath.Join(dir, "nixos-eval")); to != "nixos-go" {
		t.Errorf("the link beside the program leads to %q, %v, want its bare name", to, err)
	}
	for _, name := range names("") {
		for _, words := range [][]string{
			{filepath.Join(dir, name)},
			{self, name},
			{self, strings.TrimPrefix(name, "nixos-")},
		} {
			stdout, stderr, status := call(t, words[0], append(words[1:], "--version")...)
			if want := name + " " + clikit.Version() + "\n"; stdout != want || status != 0 {
				t.Errorf("%q --version: status %d, %q, %q; want %q", words, status, stdout, stderr, want)
			}
		}
	}
	if _, stderr, status := call(t, self, "evla"); status != clikit.StatusUsage || !strings.Contains(stderr, `no tool is named "evla"`) {
		t.Errorf("nixos-go evla: status %d, %q", status, stderr)
	}
}

func TestInstallLinks(t *testing.T) {
	dir := installed(t)
	self := filepath.Join(dir, "nixos-go")
	bin := t.TempDir()
	stdout, _, status := call(t, self, "install-links", "--dry-run", bin)
	if entries, err := os.ReadDir(bin); status != 0 || err != nil || len(entries) != 0 || !strings.Contains(stdout, bin+"/nixos-eval → "+self) {
		t.Errorf("install-links --dry-run: status %d, %q, made %v", status, stdout, entries)
	}
	// Another nixos-go in the folder is what the links lead to, as in a package
	// that is put together by a program that stays behind.
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "nixos-go"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := call(t, self, "install-links", other); status != 0 {
		t.Fatalf("install-links: %s", stderr)
	}
	if to, err := os.Readlink(filepath.Join(other, "nixos-eval")); to != "nixos-go" {
		t.Errorf("beside another nixos-go the link leads to %q, %v, want its bare name", to, err)
	}
	// A link to something else is replaced, a file is not.
	if err := os.Symlink("/elsewhere", filepath.Join(bin, "nixos-eval")); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := call(t, self, "install-links", bin); status != 0 {
		t.Fatalf("install-links: %s", stderr)
	}
	if to, err := os.Readlink(filepath.Join(bin, "nixos-eval")); to != self {
		t.Errorf("the link leads to %q, %v, want %s", to, err, self)
	}
	file := filepath.Join(bin, "nixos-fix-permissions")
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("mine"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, stderr, status := call(t, self, "install-links", bin); status != clikit.StatusFailed || !strings.Contains(stderr, "no symlink: move it away") {
		t.Errorf("install-links over a file: status %d, %q", status, stderr)
	}
	if _, _, status := call(t, self, "install-links"); status != clikit.StatusUsage {
		t.Errorf("install-links without a folder: status %d, want %d", status, clikit.StatusUsage)
	}
}

func TestComplete(t *testing.T) {
	dir := installed(t)
	self := filepath.Join(dir, "nixos-go")
	t.Setenv("NIXOS_GO_ROOT", dir)
	if stdout, stderr, status := call(t, self, "complete", "hosts"); stdout != "" || stderr != "" || status != 0 {
		t.Errorf("complete hosts without a flake: %q, %q, status %d, want silence", stdout, stderr, status)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "hosts/x86_64"), 0o755), os.WriteFile(filepath.Join(dir, "hosts/x86_64/A.nix"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if stdout, _, _ := call(t, self, "complete", "hosts"); stdout != "A\n" {
		t.Errorf("complete hosts = %q, want A", stdout)
	}
	sys := t.TempDir()
	for _, name := range []string{"loop0", "nvme0n1", "dm-0", "sda", "zram0", "sr0"} {
		if err := os.Mkdir(filepath.Join(sys, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := disks(sys), []string{"/dev/nvme0n1", "/dev/sda"}; !slices.Equal(got, want) {
		t.Errorf("disks() = %q, want %q", got, want)
	}
}

// TestDocs: each tool has a page that groff takes, completions that the shells
// can read, and help that fits a terminal and shows examples.
func TestDocs(t *testing.T) {
	dir := installed(t)
	self := filepath.Join(dir, "nixos-go")
	if _, stderr, status := call(t, self, "docs", "--man", dir, "--completions", dir); status != 0 {
		t.Fatalf("docs: %s", stderr)
	}
	checks := map[string][]string{
		"bash": {"-n", "%.bash"}, "zsh": {"-n", "_%"}, "fish": {"--no-execute", "%.fish"},
		"groff": {"-man", "-Tutf8", "-ww", "-z", "%.8"},
	}
	for _, name := range append(names(""), "nixos-go") {
		for program, args := range checks {
			if _, err := exec.LookPath(program); err != nil {
				t.Logf("%s is not installed", program)
				continue
			}
			args = slices.Clone(args)
			last := len(args) - 1
			args[last] = filepath.Join(dir, strings.ReplaceAll(args[last], "%", name))
			if stdout, stderr, status := call(t, program, args...); status != 0 || stderr != "" {
				t.Errorf("%s %q: status %d, %s%s", program, args, status, stdout, stderr)
			}
		}
		help, _, _ := call(t, self, name, "--help")
		if name == "nixos-go" {
			help, _, _ = call(t, self, "--help")
		}
		if !strings.Contains(help, "Examples:\n") {
			t.Errorf("%s --help shows no example", name)
		}
		for line := range strings.Lines(help) {
			if width := len([]rune(strings.TrimSuffix(line, "\n"))); width > 80 {
				t.Errorf("%s --help has a line of %d columns: %s", name, width, line)
			}
		}
	}
}

// BenchmarkStart is the time from starting a tool to its first line, when all it has
// to do is tell its version: the median of many starts. The target is 20 ms.
func BenchmarkStart(b *testing.B) {
	const starts = 21
	program := filepath.Join(b.TempDir(), "nixos-go")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/nixos-go")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v: %s", err, out)
	}
	for range b.N {
		fmt.Print("\n| tool | ms to its first line |\n|---|---|\n")
		for _, name := range names("") {
			times := make([]time.Duration, 0, starts)
			for range starts {
				times = append(times, startOf(b, program, name))
			}
			slices.Sort(times)
			median := float64(times[starts/2].Microseconds()) / 1000
			fmt.Printf("| %s | %.1f (at most 20) |\n", name, median)
			b.ReportMetric(median, name+"-ms")
		}
	}
}

// startOf is the time until a tool has written its first line.
func startOf(b *testing.B, program, name string) time.Duration {
	b.Helper()
	cmd := exec.Command(program, name, "--version")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	took := time.Since(begin)
	if err := errors.Join(err, cmd.Wait()); err != nil || !strings.HasPrefix(line, name+" ") {
		b.Fatalf("%s --version = %q, %v", name, line, err)
	}
	return took
}
