package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx"
)

// step is a command of the README's tour and what it prints.
type step struct{ command, output string }

// tour reads the console blocks of the README: lines after a "# " are commands, those
// after a "> " go on with one, all others are what it prints.
func tour(t *testing.T) []step {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			if command, ok := strings.CutPrefix(line, "# "); ok {
				steps = append(steps, step{command: command})
				continue
			}
			last := &steps[len(steps)-1]
			if more, ok := strings.CutPrefix(line, "> "); ok {
				last.command += more
			} else {
				last.output += line
			}
		}
	}
	return steps
}

// tools gives a folder with every tool of the toolkit.
func tools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "nixos-go")
	build := exec.Command("go", "build", "-o", program, "./cmd/nixos-go")
	build.Dir = "../tools/toolkit"
	build.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	for _, cmd := range []*exec.Cmd{build, exec.Command(program, "install-links", dir)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	return dir
}

// The tour of the README does what it says, and prints what it shows.
func TestReadmeTour(t *testing.T) {
	testx.NeedBtrfs(t)
	steps := tour(t)
	if len(steps) < 20 {
		t.Fatalf("the README has %d commands, want its tour", len(steps))
	}
	dir := t.TempDir()
	top := filepath.Join(dir, "top")
	t.Cleanup(func() {
		// The tour itself unmounts, if it gets so far.
		_ = unix.Unmount(filepath.Join(dir, "root/home"), unix.MNT_DETACH)
		_ = unix.Unmount(top, unix.MNT_DETACH)
	})
	var script strings.Builder
	script.WriteString("exec 2>&1\n")
	for i, s := range steps {
		fmt.Fprintf(&script, "echo '@@@ %d'\n%s", i, s.command)
	}
	cmd := exec.Command("unshare", "--mount", "bash", "-c", "mount -t tmpfs none /run; "+script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary(t))+":"+tools(t)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	parts := regexp.MustCompile(`(?m)^@@@ \d+\n`).Split(string(out), -1)[1:]
	if len(parts) != len(steps) {
		t.Fatalf("%d of %d commands ran:\n%s", len(parts), len(steps), out)
	}
	// How long ago something was is another time each time.
	ages := regexp.MustCompile(` +\d+ (second|minute)s?\b|( +)AGE\b`)
	plain := func(text string) string { return ages.ReplaceAllString(text, " AGE") }
	for i, s := range steps {
		if diff := cmp.Diff(plain(s.output), plain(parts[i])); diff != "" {
			t.Errorf("# %s (-README +printed):\n%s", s.command, diff)
		}
	}
}

// What the documents link to is there.
func TestLinks(t *testing.T) {
	for _, document := range []string{"README.md", "ARCHITECTURE.md"} {
		text, err := os.ReadFile(filepath.Join("..", document))
		if err != nil {
			t.Fatal(err)
		}
		links := regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(text), -1)
		if document == "README.md" && len(links) < 10 {
			t.Errorf("%s has %d links, want those of its map", document, len(links))
		}
		for _, link := range links {
			if _, err := os.Stat(filepath.Join("..", link[1])); err != nil {
				t.Errorf("%s links to %s: %v", document, link[1], err)
			}
		}
		for _, name := range regexp.MustCompile("`((?:pkg|vmtest|nix|demo|scripts|tools)/[a-z_/.]+)`").FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join("..", name[1])); err != nil {
				t.Errorf("%s names %s: %v", document, name[1], err)
			}
		}
	}
}
