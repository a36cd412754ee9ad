package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"nixos-go/pkg/reset"
)

// During a boot, and then alone, lines go to the kernel's log too, with a priority.
func TestKernelLog(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	d.sh(`btrfs -q subvolume delete @snapshots/@home/CLEAN`)
	b.want(exitFailed, "@root: reset:", "initrd-reset", "--device", d.top)
	if got := b.read(b.kernelLog); got != "" {
		t.Errorf("kernel log after a run by hand = %q, want nothing", got)
	}
	b.forget()
	d.sh(`echo > @root/etc/again`)
	b.boots()
	b.want(exitFailed, "@root: restored", "initrd-restore-previous", "--device", d.top)
	want := []string{
		"<6>initrd-reset: mode restore-previous, from the name initrd-restore-previous",
		"<4>initrd-reset: warning: @root: mode restore-previous restores at every boot: set the mode back to reset",
		"<6>initrd-reset: @root: restored; what was there is REPLACED now",
		"<3>initrd-reset: error: @home: left as it was: there is no CLEAN: take one with `nixos-snapshot init`",
	}
	if got := strings.Split(strings.TrimSpace(b.read(b.kernelLog)), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("kernel log =\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range want {
		if !strings.Contains(b.stderr.String(), line[3:]+"\n") {
			t.Errorf("standard error =\n%s\nwant %q in it", b.stderr.String(), line[3:])
		}
	}
}

// A machine without the kernel's log still has standard error.
func TestNoKernelLog(t *testing.T) {
	b := newBox(t)
	b.boots()
	b.kernelLog = filepath.Join(t.TempDir(), "nonexistent")
	b.want(exitDone, "nothing is touched", "initrd-disabled")
}

// The kernel refuses a record that is too long, so a long line is several.
func TestLongLine(t *testing.T) {
	b := newBox(t)
	b.boots()
	p := newPrinter(b.machine)
	text := strings.Repeat("ä/é", 800)
	p.failf("%s", text)
	p.close()
	var whole strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(b.read(b.kernelLog), "\n"), "\n") {
		prefix := "<3>initrd-reset: error: "
		if i > 0 {
			prefix = "<3>initrd-reset: … "
		}
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok || len(line) > 960 || !utf8.ValidString(line) {
			t.Errorf("record %d = %q (%d bytes), want at most 960 after %q", i+1, line, len(line), prefix)
		}
		whole.WriteString(rest)
	}
	if whole.String() != text {
		t.Errorf("the records together are %q, want the whole text", whole.String())
	}
	if got := b.stderr.String(); got != "initrd-reset: error: "+text+"\n" {
		t.Errorf("standard error = %q, want one line", got)
	}
}

// What a message quotes of a file's name does not reach the terminal as a command.
func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"plain":             "plain",
		"two\nlines":        "two; lines",
		"red \x1b[31m\x07 ": "red ?[31m? ",
		"c1 \u009b31m":      "c1 ?31m",
		"tab\tdel\x7f":      "tab?del?",
		"ünï":               "ünï",
	} {
		if got := oneLine(text); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", text, got, want)
		}
	}
}

// A report that cannot be written is told, and counts as a failure.
func TestReportNotWritable(t *testing.T) {
	b := newBox(t)
	b.want(exitFailed, "error: write report: mkdir "+b.plan+": not a directory", "initrd-disabled", "--report", func() string {
		b.write(b.plan, "{}")
		return filepath.Join(b.plan, "report.json")
	}())
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestOutputNotWritable(t *testing.T) {
	b := newBox(t)
	b.stdoutTo(brokenWriter{})
	b.want(exitFailed, "error: file already closed", "initrd-disabled", "--json")
}

func (b *box) stdoutTo(w brokenWriter) { b.machine.stdout = w }

// A failed write leaves neither a half file nor a temporary one.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "report.json")
	if err := writeReport(path, &reset.Report{Version: 1}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(path, func(w io.Writer) error {
		_, _ = w.Write([]byte("half"))
		return os.ErrClosed
	}); err == nil {
		t.Error("replaceFile = nil, want the error of the writer")
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("after a failed write the file holds %q, %v, want what it held", after, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("the folder holds %v, %v, want two files", entries, err)
	}
}
