package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"nixos-go/pkg/reset"
)

// printer writes lines for people: to standard error, and during a boot to the
// kernel's log too, where the journal picks them up.
type printer struct {
	stderr  io.Writer
	kernel  *os.File
	booting bool
}

func newPrinter(m machine) *printer {
	p := &printer{stderr: m.stderr, booting: fileExists(m.initrdRelease)}
	if p.booting {
		p.kernel, _ = os.OpenFile(m.kernelLog, os.O_WRONLY, 0) // standard error still has every line
	}
	return p
}

func (p *printer) close() {
	if p.kernel != nil {
		p.kernel.Close()
	}
}

// Priorities of a line in the kernel's log (syslog(3)).
const (
	priorityError   = 3
	priorityWarning = 4
	priorityInfo    = 6
)

// maxRecord bounds a record of the kernel's log: the kernel refuses longer ones whole
// (PRINTKRB_RECORD_MAX is 1024 in kernel/printk; older kernels take some bytes less).
const maxRecord = 900

func (p *printer) linef(priority int, format string, args ...any) {
	text := "initrd-reset: " + oneLine(fmt.Sprintf(format, args...))
	fmt.Fprintln(p.stderr, text)
	if p.kernel == nil {
		return
	}
	for len(text) > maxRecord {
		end := maxRecord
		for !utf8.RuneStart(text[end]) {
			end--
		}
		fmt.Fprintf(p.kernel, "<%d>%s\n", priority, text[:end])
		text = "initrd-reset: … " + text[end:]
	}
	fmt.Fprintf(p.kernel, "<%d>%s\n", priority, text)
}

// oneLine joins lines, and takes out what a terminal would obey: a message can hold
// the name of a user's file.
func oneLine(text string) string {
	text = strings.ReplaceAll(text, "\n", "; ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

func (p *printer) sayf(format string, args ...any) { p.linef(priorityInfo, format, args...) }
func (p *printer) warnf(format string, args ...any) {
	p.linef(priorityWarning, "warning: "+format, args...)
}

func (p *printer) failf(format string, args ...any) {
	p.linef(priorityError, "error: "+format, args...)
}

// tell prints what a report says, a line a volume.
func (p *printer) tell(r *reset.Report) {
	if r.Mode != "" && r.Mode != reset.ModeReset {
		p.sayf("mode %s, from %s", r.Mode, r.ModeFrom)
	}
	if r.Mode == reset.ModeDisabled {
		p.sayf("nothing is touched")
	}
	for i := range r.Volumes {
		p.tellVolume(&r.Volumes[i])
	}
	for _, w := range r.Warnings {
		p.warnf("%s", w)
	}
	if r.Error != "" {
		p.failf("%s", r.Error)
	}
}

func (p *printer) tellVolume(v *reset.Result) {
	for _, w := range v.Warnings {
		p.warnf("%s: %s", v.Name, w)
	}
	counts := fmt.Sprintf("%d wiped, %d changed back, %d brought back", v.Wiped, v.ChangedBack, v.BroughtBack)
	switch v.Moved {
	case 0:
	case 1:
		counts += ", 1 nested subvolume moved"
	default:
		counts += fmt.Sprintf(", %d nested subvolumes moved", v.Moved)
	}
	counts += fmt.Sprintf(" (%s)", v.Way)
	switch v.Outcome {
	case reset.OutcomeReset:
		p.sayf("%s: reset: %s", v.Name, counts)
	case reset.OutcomePlanned:
		p.sayf("%s: the next reset: %s", v.Name, counts)
	case reset.OutcomeUnchanged:
		p.sayf("%s: nothing changed since the last run", v.Name)
	case reset.OutcomeSnapshot:
		p.sayf("%s: snapshot taken, the volume left alone", v.Name)
	case reset.OutcomeRestored:
		p.sayf("%s: restored; what was there is REPLACED now", v.Name)
	case reset.OutcomeFailed:
		p.failf("%s: left as it was: %s", v.Name, v.Error)
	case reset.OutcomeDisabled:
	}
}

// reportJSON adds the changes of a dry run to the report.
type reportJSON struct {
	*reset.Report

	Changes []volumeChanges `json:"changes,omitempty"`
}

type volumeChanges struct {
	Volume  string         `json:"volume"`
	Changes []reset.Change `json:"changes"`
}

func printJSON(w io.Writer, r *reset.Report) error {
	out := reportJSON{Report: r}
	for i := range r.Volumes {
		if v := &r.Volumes[i]; v.Outcome == reset.OutcomePlanned {
			out.Changes = append(out.Changes, volumeChanges{v.Name, append([]reset.Change{}, v.Changes...)})
		}
	}
	return encodeJSON(w, out)
}

func encodeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(value)
}

// writeReport writes the report, and beside it wiped.jsonl, into a folder that only
// root can read: both name people's files.
func writeReport(path string, r *reset.Report) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	wiped := filepath.Join(dir, "wiped.jsonl")
	if err := replaceFile(wiped, func(w io.Writer) error { return writeWiped(w, r) }); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	// The report comes last: where it is, the other is whole.
	if err := replaceFile(path, func(w io.Writer) error { return encodeJSON(w, r) }); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func writeWiped(w io.Writer, r *reset.Report) error {
	for i := range r.Volumes {
		v := &r.Volumes[i]
		for j := range v.Changes {
			line, err := reset.WipedLine(v.Name, &v.Changes[j])
			if err != nil {
				return err
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// replaceFile writes a file under another name and renames it, so that a reader
// sees all of it or none. It lives in memory (/run): nothing is synced.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(f)
	err = write(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
