package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
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

func parseFlags(args []string, m machine) (flags, error) {
	f := flags{name: filepath.Base(args[0])}
	set := flag.NewFlagSet(f.name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	var mode string
	set.StringVar(&f.plan, "plan", m.plan, "")
	set.StringVar(&mode, "mode", "", "")
	set.StringVar(&f.device, "device", "", "")
	set.StringVar(&f.report, "report", m.report, "")
	set.BoolVar(&f.dryRun, "dry-run", false, "")
	set.BoolVar(&f.json, "json", false, "")
	err := set.Parse(args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(m.stdout, usage, f.name, m.plan, m.report)
		return f, errHelp
	case err != nil:
		return f, err
	case set.NArg() > 0:
		return f, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if given(set, "mode") {
		f.modeFrom = "--mode"
		f.mode, err = reset.ParseMode(mode)
	} else if name, found := strings.CutPrefix(f.name, "initrd-"); found && name != string(reset.ModeReset) {
		if byName, nameErr := reset.ParseMode(name); nameErr == nil {
			f.mode, f.modeFrom = byName, "the name "+f.name
		}
	}
	return f, err
}

func given(set *flag.FlagSet, name string) bool {
	found := false
	set.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
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
