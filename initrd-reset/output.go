package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

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

func (p *printer) line(priority int, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	fmt.Fprintf(p.stderr, "initrd-reset: %s\n", text)
	if p.kernel != nil {
		fmt.Fprintf(p.kernel, "<%d>initrd-reset: %s\n", priority, text)
	}
}

func (p *printer) say(format string, args ...any)  { p.line(priorityInfo, format, args...) }
func (p *printer) warn(format string, args ...any) { p.line(priorityWarning, "warning: "+format, args...) }
func (p *printer) fail(format string, args ...any) { p.line(priorityError, "error: "+format, args...) }

// tell prints what a report says, a line a volume.
func (p *printer) tell(r *reset.Report) {
	if r.Mode != "" && r.Mode != reset.ModeReset {
		p.say("mode %s, from %s", r.Mode, r.ModeFrom)
	}
	if r.Mode == reset.ModeDisabled {
		p.say("nothing is touched")
	}
	for i := range r.Volumes {
		p.tellVolume(&r.Volumes[i])
	}
	for _, w := range r.Warnings {
		p.warn("%s", w)
	}
	if r.Error != "" {
		p.fail("%s", r.Error)
	}
}

func (p *printer) tellVolume(v *reset.Result) {
	for _, w := range v.Warnings {
		p.warn("%s: %s", v.Name, w)
	}
	counts := fmt.Sprintf("%d wiped, %d changed back, %d brought back, %d nested subvolumes moved (%s)",
		v.Wiped, v.ChangedBack, v.BroughtBack, v.Moved, v.Way)
	switch v.Outcome {
	case reset.OutcomeReset:
		p.say("%s: reset: %s", v.Name, counts)
	case reset.OutcomePlanned:
		p.say("%s: the next reset: %s", v.Name, counts)
	case reset.OutcomeUnchanged:
		p.say("%s: nothing changed since the last run", v.Name)
	case reset.OutcomeSnapshot:
		p.say("%s: snapshot taken, the volume left alone", v.Name)
	case reset.OutcomeRestored:
		p.say("%s: restored; what was there is REPLACED now", v.Name)
	case reset.OutcomeFailed:
		p.fail("%s: left as it was: %s", v.Name, v.Error)
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
	if r.DryRun {
		for i := range r.Volumes {
			out.Changes = append(out.Changes, volumeChanges{r.Volumes[i].Name, r.Volumes[i].Changes})
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
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
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
	if err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
