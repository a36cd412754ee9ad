package main

import (
	"strings"
	"testing"

	"nixos-go/pkg/reset"
)

func TestHelp(t *testing.T) {
	b := newBox(t)
	for _, flag := range []string{"-h", "--help"} {
		if got := b.run("/bin/initrd-reset", flag); got != exitDone {
			t.Errorf("%s = status %d, want %d", flag, got, exitDone)
		}
		for _, want := range []string{
			"Usage: initrd-reset [--plan FILE]", "--mode MODE", "--device DEV", "--report FILE", "--dry-run", "--json",
			"Exit status: 0", "Examples:", b.plan, b.report,
		} {
			if !strings.Contains(b.stdout.String(), want) {
				t.Errorf("%s prints\n%s\nwant %q in it", flag, b.stdout.String(), want)
			}
		}
		if b.stderr.Len() > 0 {
			t.Errorf("%s writes to standard error: %s", flag, b.stderr.String())
		}
	}
	b.noReport()
}

// What is wrong with the call is one line and status 2, and leaves no report.
func TestUsageErrors(t *testing.T) {
	b := newBox(t)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"--plam", "x"}, `unknown flag "--plam"`},
		{[]string{"--plan"}, "--plan needs a value"},
		{[]string{"--json", "--report"}, "--report needs a value"},
		{[]string{"--dry-run=perhaps"}, "--dry-run takes no value"},
		{[]string{"---json"}, `unknown flag "---json"`},
		{[]string{"-"}, `unknown flag "-"`},
		{[]string{"--"}, `unknown flag "--"`},
		{[]string{""}, `unexpected argument ""`},
		{[]string{"extra"}, `unexpected argument "extra"`},
		{[]string{"--json", "extra"}, `unexpected argument "extra"`},
		{[]string{"--mode", "rest"}, `unknown mode "rest": use one of reset, snapshot-only, restore-previous, restore-penultimate, disabled`},
		{[]string{"--mode", ""}, `unknown mode ""`},
		{[]string{"--mode", "Reset"}, `unknown mode "Reset"`},
	} {
		b.want(exitUsage, "initrd-reset: error: "+tt.says, append([]string{"initrd-reset"}, tt.args...)...)
		if lines := strings.Count(b.stderr.String(), "\n"); lines != 1 || b.stdout.Len() > 0 {
			t.Errorf("%q prints %d lines to standard error and %q to standard output, want one line and nothing", tt.args, lines, b.stdout.String())
		}
		if !strings.Contains(b.stderr.String(), "(see initrd-reset -h)") {
			t.Errorf("%q says %q, want a pointer to -h", tt.args, b.stderr.String())
		}
	}
	b.noReport()
}

func TestParseFlags(t *testing.T) {
	b := newBox(t)
	for _, tt := range []struct {
		args []string
		want flags
	}{
		{nil, flags{plan: b.plan, report: b.report}},
		{[]string{"--plan", "p", "--report", "r", "--device", "d"}, flags{plan: "p", report: "r", device: "d"}},
		{[]string{"--plan=p", "-report=r=s", "-device", "-d"}, flags{plan: "p", report: "r=s", device: "-d"}},
		{[]string{"--json", "-dry-run"}, flags{plan: b.plan, report: b.report, json: true, dryRun: true}},
		{[]string{"--plan", "one", "--plan", "two"}, flags{plan: "two", report: b.report}},
		{[]string{"--mode=disabled"}, flags{plan: b.plan, report: b.report, mode: reset.ModeDisabled, modeFrom: "--mode"}},
	} {
		tt.want.name = "initrd-reset"
		got, err := parseFlags(append([]string{"/bin/initrd-reset"}, tt.args...), b.machine)
		if got != tt.want || err != nil {
			t.Errorf("parseFlags(%q) = %+v, %v, want %+v", tt.args, got, err, tt.want)
		}
	}
}

// --mode beats the name, the name the kernel command line, that the plan.
func TestMode(t *testing.T) {
	for _, tt := range []struct {
		name, flag, line, plan string
		want                   reset.Mode
		from                   string
	}{
		{"initrd-reset", "", "", "", reset.ModeReset, "the default"},
		{"initrd-reset", "", "", "snapshot-only", reset.ModeSnapshotOnly, "the plan"},
		{"initrd-reset", "", "", "disabled", reset.ModeDisabled, "the plan"},
		{"initrd-reset", "", "immutability.mode=disabled", "reset", reset.ModeDisabled, "the kernel command line"},
		{"initrd-reset", "", "immutability.mode=reset", "disabled", reset.ModeReset, "the kernel command line"},
		{"/nix/store/x/bin/initrd-snapshot-only", "", "", "reset", reset.ModeSnapshotOnly, "the name initrd-snapshot-only"},
		{"initrd-restore-previous", "", "", "reset", reset.ModeRestorePrevious, "the name initrd-restore-previous"},
		{"initrd-restore-penultimate", "", "", "reset", reset.ModeRestorePenultimate, "the name initrd-restore-penultimate"},
		{"initrd-disabled", "", "immutability.mode=reset", "reset", reset.ModeDisabled, "the name initrd-disabled"},
		{"initrd-disabled", "", "immutability.mode=nonsense", "reset", reset.ModeDisabled, "the name initrd-disabled"},
		{"initrd-disabled", "reset", "immutability.mode=snapshot-only", "disabled", reset.ModeReset, "--mode"},
		{"initrd-reset", "restore-previous", "", "", reset.ModeRestorePrevious, "--mode"},
		{"initrd-reset-amd64", "", "", "snapshot-only", reset.ModeSnapshotOnly, "the plan"},
		{"disabled", "", "", "", reset.ModeReset, "the default"},
	} {
		b := newBox(t)
		b.write(b.commandLine, tt.line+"\n")
		args := []string{tt.name}
		if tt.flag != "" {
			args = append(args, "--mode", tt.flag)
		}
		flags, err := parseFlags(args, b.machine)
		if err != nil {
			t.Fatalf("parseFlags(%q) = %v", args, err)
		}
		mode, from, err := chooseMode(flags, b.machine)
		if err != nil {
			t.Fatalf("chooseMode(%q, line %q) = %v", args, tt.line, err)
		}
		if mode == "" {
			mode, from = planMode(&reset.PlanFile{Mode: reset.Mode(tt.plan)})
		}
		if mode != tt.want || from != tt.from {
			t.Errorf("%q, line %q, plan %q: mode %s from %q, want %s from %q", args, tt.line, tt.plan, mode, from, tt.want, tt.from)
		}
	}
}

func TestParameter(t *testing.T) {
	for _, tt := range []struct {
		line, want string
		found      bool
	}{
		{"", "", false},
		{"quiet splash", "", false},
		{"immutability.mode=disabled", "disabled", true},
		{"quiet immutability.mode=disabled splash\n", "disabled", true},
		{"a\timmutability.mode=disabled\r\n", "disabled", true},
		{"immutability.mode=reset immutability.mode=disabled", "disabled", true},
		{"immutability.mode=disabled immutability.mode=", "", true},
		{`immutability.mode="disabled"`, "disabled", true},
		{`"immutability.mode=disabled"`, "disabled", true},
		{`immutability.mode="a b" c`, "a b", true},
		{`dyndbg="file x immutability.mode=disabled" quiet`, "", false},
		{`immutability.mode="not closed here`, "not closed here", true},
		{"immutability.mode", "", false},
		{"immutability.modes=disabled", "", false},
		{"ximmutability.mode=disabled", "", false},
		{"immutability.mode=a=b", "a=b", true},
		{"immutability.mode=caf\xe9", "caf\xe9", true},
	} {
		got, found := parameter(tt.line, "immutability.mode")
		if got != tt.want || found != tt.found {
			t.Errorf("parameter(%q) = %q, %v, want %q, %v", tt.line, got, found, tt.want, tt.found)
		}
	}
}

// naiveParameter is parameter again, byte by byte.
func naiveParameter(line, name string) (value string, found bool) {
	var word []byte
	quoted := false
	for i := range len(line) + 1 {
		if i < len(line) {
			c := line[i]
			if c == '"' {
				quoted = !quoted
				continue
			}
			if quoted || c != ' ' && (c < '\t' || c > '\r') {
				word = append(word, c)
				continue
			}
		}
		if len(word) > len(name) && string(word[:len(name)]) == name && word[len(name)] == '=' {
			value, found = string(word[len(name)+1:]), true
		}
		word = nil
	}
	return value, found
}

func FuzzParameter(f *testing.F) {
	f.Add(`quiet "resume=/dev/sda 2" resume_offset=34`, "resume")
	f.Add("immutability.mode=reset immutability.mode=\"disabled\"\n", "immutability.mode")
	f.Add(`a="b c`, "a")
	f.Fuzz(func(t *testing.T, line, name string) {
		if name == "" || strings.ContainsAny(name, "\"= \t\n\v\f\r") {
			t.Skip("not the name of a parameter")
		}
		got, found := parameter(line, name)
		if want, wantFound := naiveParameter(line, name); got != want || found != wantFound {
			t.Errorf("parameter(%q, %q) = %q, %v, want %q, %v", line, name, got, found, want, wantFound)
		}
		if strings.Count(line, `"`)%2 == 0 {
			if got, found := parameter(line+" "+name+"=last", name); got != "last" || !found {
				t.Errorf("parameter(%q + %q at the end) = %q, %v, want the last one", line, name, got, found)
			}
		}
	})
}

// An unknown mode on the kernel command line stops everything, and says so in the
// report.
func TestInvalidModeOnCommandLine(t *testing.T) {
	b := newBox(t)
	d := newDisk(t, b)
	d.day()
	before := d.look()
	b.write(b.commandLine, "immutability.mode=rest0re\n")
	b.want(exitUsage, `error: kernel command line: immutability.mode: unknown mode "rest0re": use one of reset,`, "initrd-reset", "--device", d.top)
	d.same(before)
	if got := b.readReport(); !strings.Contains(got.Error, "rest0re") || len(got.Volumes) != 0 {
		t.Errorf("report = %+v, want the error and no volumes", got)
	}
	b.write(b.commandLine, "immutability.mode=rest0re immutability.mode=\"disabled\"\n")
	b.want(exitDone, "mode disabled, from the kernel command line", "initrd-reset", "--device", d.top)
	d.same(before)
}
