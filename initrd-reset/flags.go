package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"nixos-go/pkg/reset"
)

// flags are what the command line says.
type flags struct {
	name     string // as the program was called
	plan     string
	device   string
	report   string
	mode     reset.Mode // empty: not given
	modeFrom string
	dryRun   bool
	json     bool
}

var errHelp = errors.New("help was asked for")

const usage = `%[1]s puts the volumes of a machine back into their factory state, except for
the paths that the plan keeps. It runs at boot, before the volumes are mounted.

Usage: %[1]s [--plan FILE] [--mode MODE] [--device DEV] [--report FILE] [--dry-run] [--json]

  --plan FILE    what to do (default %[2]s)
  --mode MODE    reset, snapshot-only, restore-previous, restore-penultimate or disabled;
                 beats the name that the program is called by (initrd-snapshot-only,
                 initrd-restore-previous, initrd-restore-penultimate, initrd-disabled),
                 which beats immutability.mode= on the kernel command line, which beats
                 the plan
  --device DEV   the file system; or a directory where its top level is mounted
  --report FILE  where the report goes, and wiped.jsonl beside it (default %[3]s)
  --dry-run      say what would change, write nothing
  --json         print the report to standard output

Exit status: 0 done or nothing to do; 1 a volume was left as it was; 2 the call or the
plan is wrong, nothing was touched.

Examples:
  %[1]s --dry-run --json --device /dev/mapper/root | jq .
  %[1]s --plan plan.json --device /mnt/top --report /tmp/report.json
`

// parseFlags reads the command line. (The package flag would add forty kilobytes to a
// binary that may have three megabytes.)
func parseFlags(args []string, m machine) (flags, error) {
	f := flags{name: filepath.Base(args[0]), plan: m.plan, report: m.report}
	mode := ""
	values := map[string]*string{"plan": &f.plan, "mode": &mode, "device": &f.device, "report": &f.report}
	switches := map[string]*bool{"dry-run": &f.dryRun, "json": &f.json}
	given := map[string]bool{}
	for rest := args[1:]; len(rest) > 0; {
		word, value, hasValue := strings.Cut(rest[0], "=")
		rest = rest[1:]
		name, isFlag := strings.CutPrefix(word, "-")
		name = strings.TrimPrefix(name, "-")
		switch {
		case !isFlag:
			return f, fmt.Errorf("unexpected argument %q", word)
		case name == "h", name == "help":
			fmt.Fprintf(m.stdout, usage, f.name, m.plan, m.report)
			return f, errHelp
		case switches[name] != nil && hasValue:
			return f, fmt.Errorf("%s takes no value", word)
		case switches[name] != nil:
			*switches[name] = true
		case values[name] == nil:
			return f, fmt.Errorf("unknown flag %q", word)
		case hasValue:
			*values[name] = value
		case len(rest) == 0:
			return f, fmt.Errorf("%s needs a value", word)
		default:
			*values[name], rest = rest[0], rest[1:]
		}
		given[name] = true
	}
	return f, f.nameMode(mode, given["mode"])
}

// nameMode takes the mode from the flag, or from the name of the program.
func (f *flags) nameMode(mode string, given bool) (err error) {
	if given {
		f.modeFrom = "--mode"
		f.mode, err = reset.ParseMode(mode)
		return err
	}
	name, found := strings.CutPrefix(f.name, "initrd-")
	if !found || name == string(reset.ModeReset) {
		return nil
	}
	if byName, nameErr := reset.ParseMode(name); nameErr == nil {
		f.mode, f.modeFrom = byName, "the name "+f.name
	}
	return nil
}

// chooseMode gives the mode that beats the plan's, or none.
func chooseMode(f flags, m machine) (reset.Mode, string, error) {
	if f.mode != "" {
		return f.mode, f.modeFrom, nil
	}
	text, err := os.ReadFile(m.commandLine)
	if err != nil {
		return "", "", err
	}
	value, found := parameter(string(text), "immutability.mode")
	if !found {
		return "", "", nil
	}
	mode, err := reset.ParseMode(value)
	if err != nil {
		return "", "", fmt.Errorf("kernel command line: immutability.mode: %w", err)
	}
	return mode, "the kernel command line", nil
}

// parameter finds the value of a kernel parameter; the last one counts. Double
// quotes hold spaces, around the value or the whole (kernel-parameters.rst).
func parameter(commandLine, name string) (string, bool) {
	value, found := "", false
	for _, word := range splitParameters(commandLine) {
		word = strings.ReplaceAll(word, `"`, "")
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			value, found = v, true
		}
	}
	return value, found
}

func splitParameters(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && strings.ContainsRune(" \t\n\v\f\r", r)
	})
}
