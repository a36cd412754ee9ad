package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"nixos-go/pkg/testx"
	"nixos-go/pkg/ui"
)

// The process that is cut off is this test binary, called again.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(run(context.Background(), os.Args[1:], ui.New(os.Stdout, os.Stderr, ui.Options{})))
	}
	os.Exit(m.Run())
}

// source is a small source tree.
func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"net/a.go", "net/http/b.go", "os/c.go"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("package "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "initrd-reset")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = "../initrd-reset"
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// nothingLeft checks that the demo has cleaned up.
func nothingLeft(t *testing.T, folder, output string) {
	t.Helper()
	if entries, err := os.ReadDir(folder); err != nil || len(entries) > 0 {
		t.Errorf("in TMPDIR there is %v, %v, want nothing", entries, err)
	}
	device := regexp.MustCompile(`/dev/(loop\d+)`).FindStringSubmatch(output)
	if device == nil {
		t.Fatalf("no loop device in the output:\n%s", output)
	}
	backing, _ := os.ReadFile("/sys/block/" + device[1] + "/loop/backing_file") // not there: free
	if strings.Contains(string(backing), folder) {
		t.Errorf("%s is still over %s", device[0], backing)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), device[0]+" ") {
		t.Errorf("%s is mounted, %v:\n%s", device[0], err, mounts)
	}
}

func TestDemo(t *testing.T) {
	testx.NeedBtrfs(t)
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	var out, errs bytes.Buffer
	args := []string{"--initrd-reset", binary(t), "--source", source(t)}
	if got := run(t.Context(), args, ui.New(&out, &errs, ui.Options{})); got != 0 {
		t.Fatalf("status %d, want 0:\n%s\n%s", got, out.String(), errs.String())
	}
	nothingLeft(t, folder, out.String())
	if errs.Len() > 0 {
		t.Errorf("standard error: %s", errs.String())
	}
	for _, want := range []string{
		"1. A disk", "2. A day of work", "3. What would the next boot wipe?", "4. The next boot", "5. The power fails", "6. Back to yesterday",
		"7. In short", "- /etc/cron.d/updater", "+ /etc/motd", "~ /etc/passwd", "no difference", "cut off before the exchange",
		"cut off after the exchange: finished it", "restored; what was there is REPLACED now", "Nothing is left behind",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, out.String())
		}
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) > 100 {
		t.Errorf("%d lines of output, want at most 100", len(lines))
	}
	for _, line := range lines {
		if utf8.RuneCountInString(line) > width || strings.Contains(line, "\x1b") {
			t.Errorf("line %q has %d columns, or colour, want at most %d and none", line, utf8.RuneCountInString(line), width)
		}
	}
}

// stopAt cancels a context when a text is written.
type stopAt struct {
	io.Writer

	text   string
	cancel context.CancelFunc
}

func (s stopAt) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(s.text)) {
		s.cancel()
	}
	return s.Writer.Write(b)
}

func TestInterrupted(t *testing.T) {
	testx.NeedBtrfs(t)
	args := []string{"--initrd-reset", binary(t), "--source", source(t)}
	for _, at := range []string{"2. A day", "5. The power"} {
		t.Run(at, func(t *testing.T) {
			folder := t.TempDir()
			t.Setenv("TMPDIR", folder)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out, errs bytes.Buffer
			if got := run(ctx, args, ui.New(stopAt{&out, at, cancel}, &errs, ui.Options{})); got != 130 {
				t.Errorf("status %d, want 130:\n%s\n%s", got, out.String(), errs.String())
			}
			if !strings.Contains(errs.String(), "Interrupted.") || strings.Contains(out.String(), "In short") {
				t.Errorf("it says %q, want that it was interrupted", errs.String())
			}
			nothingLeft(t, folder, out.String())
		})
	}
}

// A reset that does nothing is found out.
func TestWrongReset(t *testing.T) {
	testx.NeedBtrfs(t)
	for name, script := range map[string]string{
		"does nothing": "#!/bin/sh\ncase \"$*\" in *--dry-run*) echo '{}';; esac\n",
		"fails":        "#!/bin/sh\necho no >&2\nexit 1\n",
	} {
		folder := t.TempDir()
		t.Setenv("TMPDIR", folder)
		fake := filepath.Join(t.TempDir(), "fake")
		if err := os.WriteFile(fake, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		got := run(t.Context(), []string{"--initrd-reset", fake, "--source", source(t)}, ui.New(&out, &errs, ui.Options{}))
		if got != 1 || !strings.Contains(errs.String(), "error: ") || strings.Contains(out.String(), "In short") {
			t.Errorf("a reset that %s: status %d, %s", name, got, errs.String())
		}
		nothingLeft(t, folder, out.String())
	}
}

func TestUsage(t *testing.T) {
	var out, errs bytes.Buffer
	if got := run(t.Context(), nil, ui.New(&out, &errs, ui.Options{})); got != 2 || !strings.Contains(errs.String(), "run scripts/demo") {
		t.Errorf("without arguments: status %d, %q, want 2 and what to run", got, errs.String())
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", []string{""}},
		{"one two three", []string{"one two", "three"}},
		{"exactly8 x", []string{"exactly8", "x"}},
		{"longer-than-a-line x", []string{"longer-than-a-line", "x"}},
		{"é é é é é", []string{"é é é é", "é"}},
	} {
		if got := wrap(tt.text, 8); strings.Join(got, "|") != strings.Join(tt.want, "|") {
			t.Errorf("wrap(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
}
