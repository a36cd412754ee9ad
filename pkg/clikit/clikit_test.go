package clikit

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// seen is what an action of the test tool received.
type seen struct {
	Command string
	Args    []string
	JSON    bool
	Depth   int
	Pin     string
}

// tool is an app with flags on two levels.
func tool(record func(seen) error) *cli.App {
	action := func(c *cli.Context) error {
		return record(seen{
			Command: c.Command.Name, Args: c.Args().Slice(),
			JSON: c.Bool("json"), Depth: c.Int("depth"), Pin: c.String("pin"),
		})
	}
	return New(&cli.App{
		Name: "nixos-example", Usage: "show how the tools read their command line",
		Description: "It does nothing else, and says so in a text that is long enough to be broken at the right margin.\n\nA second paragraph:\n  kept as it is",
		ArgsUsage:   "[PATH…]",
		Flags:       []cli.Flag{JSONFlag(), DryRunFlag(), YesFlag(), FlakeFlag(), &cli.IntFlag{Name: "depth", Value: 3, Usage: "how `N` levels deep"}},
		Action:      action,
		Commands: []*cli.Command{
			{
				Name: "enable", Aliases: []string{"on"}, Usage: "turn it on", Action: action,
				Flags: []cli.Flag{&cli.StringFlag{Name: "pin", Usage: "the `PIN` to ask for"}},
			},
			{Name: "key", Usage: "keys", Subcommands: []*cli.Command{{Name: "list", Usage: "list them", Action: action}}},
		},
	}, Doc{Examples: []Example{
		{"nixos-example --json /etc", "the result of /etc, for a program"},
		{"nixos-example enable --pin 1234", "turn it on with a PIN"},
	}})
}

func invoke(t *testing.T, args ...string) (got seen, status int, out, messages string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	u := ui.New(&stdout, &stderr, ui.Options{})
	status = Run(t.Context(), tool(func(s seen) error {
		got = s
		return nil
	}), args, u)
	return got, status, stdout.String(), stderr.String()
}

func TestFlagsStandAnywhere(t *testing.T) {
	for _, test := range []struct {
		line string
		want seen
	}{
		{"", seen{Command: "nixos-example", Depth: 3}},
		{"/etc --json", seen{Command: "nixos-example", Args: []string{"/etc"}, JSON: true, Depth: 3}},
		{"/etc --depth 5 /var -json", seen{Command: "nixos-example", Args: []string{"/etc", "/var"}, JSON: true, Depth: 5}},
		{"--depth=7 /etc", seen{Command: "nixos-example", Args: []string{"/etc"}, Depth: 7}},
		{"/etc -- --json", seen{Command: "nixos-example", Args: []string{"/etc", "--json"}, Depth: 3}},
		{"/etc -", seen{Command: "nixos-example", Args: []string{"/etc", "-"}, Depth: 3}},
		{"enable --json --pin 1", seen{Command: "enable", JSON: true, Depth: 3, Pin: "1"}},
		{"--pin 1 --json on", seen{Command: "enable", JSON: true, Depth: 3, Pin: "1"}},
		{"enable x --pin=-1 y --depth 2", seen{Command: "enable", Args: []string{"x", "y"}, Depth: 2, Pin: "-1"}},
		{"--json key list --depth 1", seen{Command: "list", JSON: true, Depth: 1}},
		{"/etc enable", seen{Command: "nixos-example", Args: []string{"/etc", "enable"}, Depth: 3}},
	} {
		got, status, _, messages := invoke(t, strings.Fields(test.line)...)
		if len(got.Args) == 0 {
			got.Args = nil
		}
		if diff := cmp.Diff(test.want, got); diff != "" || status != StatusOK {
			t.Errorf("%q: status %d, %s(-want +got):\n%s", test.line, status, messages, diff)
		}
	}
}

func TestSplitArgs(t *testing.T) {
	for _, test := range []struct {
		line          string
		before, after []string
	}{
		{"", nil, nil},
		{"one two", []string{"one", "two"}, nil},
		{"one --", []string{"one"}, nil},
		{"one -- two --json", []string{"one"}, []string{"two", "--json"}},
		{"-- two -- three", nil, []string{"two", "--", "three"}},
		{"enable --pin 1 -- two", nil, []string{"two"}},
	} {
		var before, after []string
		split := func(c *cli.Context) error {
			before, after = SplitArgs(c)
			return nil
		}
		app := tool(nil)
		app.Action, app.Commands[0].Action = split, split
		u := ui.New(&bytes.Buffer{}, &bytes.Buffer{}, ui.Options{})
		if status := Run(t.Context(), app, strings.Fields(test.line), u); status != StatusOK {
			t.Errorf("%q: status = %d", test.line, status)
		}
		if !slices.Equal(before, test.before) || !slices.Equal(after, test.after) {
			t.Errorf("SplitArgs(%q) = %q, %q, want %q, %q", test.line, before, after, test.before, test.after)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for line, want := range map[string]string{
		"--jason":        "unknown flag --jason: did you mean --json?",
		"--xyzzy=1":      "unknown flag --xyzzy",
		"--depth":        "--depth needs a value",
		"--depth deep":   `invalid value "deep" for flag -depth: parse error`,
		"/etc --pin 1":   "unknown flag --pin",
		"key":            "which of list?",
		"key drop":       `unknown command "drop": use one of list`,
		"enable --bogus": "unknown flag --bogus",
	} {
		_, status, out, messages := invoke(t, strings.Fields(line)...)
		if status != StatusUsage {
			t.Errorf("%q: status = %d, want %d", line, status, StatusUsage)
		}
		name := "nixos-example"
		if first := strings.Fields(line)[0]; !strings.HasPrefix(first, "-") && first != "/etc" {
			name += " " + first // the command's own help
		}
		if want := "error: " + want + "\nhint: " + name + " --help shows how it is used\n"; messages != want || out != "" {
			t.Errorf("%q: messages = %q, %q; want %q", line, messages, out, want)
		}
	}
}

func TestHelp(t *testing.T) {
	for name, line := range map[string]string{
		"tool": "--help", "command": "enable -h", "nested": "key list --json --help",
	} {
		_, status, out, messages := invoke(t, strings.Fields(line)...)
		if status != StatusOK || messages != "" {
			t.Errorf("%q: status %d, messages %q", line, status, messages)
		}
		golden := "testdata/help-" + name + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), out); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
		for l := range strings.SplitSeq(out, "\n") {
			if len([]rune(l)) > 80 {
				t.Errorf("%q: a line is wider than 80 columns: %s", line, l)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	_, status, out, _ := invoke(t, "--version")
	if status != StatusOK || out != "nixos-example "+Version()+"\n" {
		t.Errorf("--version: status %d, %q", status, out)
	}
}

func TestExitStatus(t *testing.T) {
	exit := exec.Command("sh", "-c", "exit 9").Run()
	for _, test := range []struct {
		name     string
		err      error
		status   int
		messages string
	}{
		{"success", nil, StatusOK, ""},
		{"failure", errors.New("no disk"), StatusFailed, "error: no disk\n"},
		{"usage", fmt.Errorf("bad: %w", Usagef("no %s", "path")), StatusUsage, "error: bad: no path\nhint: nixos-example --help shows how it is used\n"},
		{"reported", fmt.Errorf("x: %w", ErrReported), StatusFailed, ""},
		{"of a program", fmt.Errorf("x: %w", &StatusError{Status: 7}), 7, ""},
		{"hint", fmt.Errorf("y: %w", WithHint(errors.New("locked"), "unlock %s", "it")), StatusFailed, "error: y: locked\nhint: unlock it\n"},
		// urfave/cli would end the process with status 9 here.
		{"exit error", exit, StatusFailed, "error: exit status 9\n"},
	} {
		var stdout, stderr bytes.Buffer
		u := ui.New(&stdout, &stderr, ui.Options{})
		status := Run(t.Context(), tool(func(seen) error { return test.err }), nil, u)
		if status != test.status || stderr.String() != test.messages {
			t.Errorf("%s: status %d, %q; want %d, %q", test.name, status, stderr.String(), test.status, test.messages)
		}
	}
	if WithHint(nil, "x") != nil {
		t.Error("WithHint(nil) is an error")
	}
}

// TestInterrupted: what was stopped says so and what is next, not where it was; what
// failed besides is told.
func TestInterrupted(t *testing.T) {
	by := &run.InterruptedError{Signal: os.Interrupt}
	failed := errors.New("the disk is still open")
	for _, test := range []struct {
		name     string
		err      error
		messages string
	}{
		{"the context's end", fmt.Errorf("volume @home: prune: %w", context.Canceled), "error: interrupted\n"},
		{"a program", &run.Error{Cause: by}, "error: interrupted\n"},
		{"a hint", WithHint(fmt.Errorf("x: %w", by), "go on"), "error: interrupted\nhint: go on\n"},
		{"both", errors.Join(by, context.Canceled), "error: interrupted\n"},
		{"another failure", failed, "error: the disk is still open\n"},
		{"a failure besides", errors.Join(by, failed), "error: interrupted\n  the disk is still open\n"},
		{"reported", ErrReported, ""},
		{"success all the same", nil, ""},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(by)
		var stdout, stderr bytes.Buffer
		status := Run(ctx, tool(func(seen) error { return test.err }), nil, ui.New(&stdout, &stderr, ui.Options{}))
		if stderr.String() != test.messages || (status == StatusFailed) != (test.err != nil) {
			t.Errorf("%s: status %d, %q; want %q", test.name, status, stderr.String(), test.messages)
		}
		// Without a signal nothing is left out.
		stderr.Reset()
		Run(t.Context(), tool(func(seen) error { return test.err }), nil, ui.New(&stdout, &stderr, ui.Options{}))
		if test.err != nil && !errors.Is(test.err, ErrReported) && !strings.Contains(stderr.String(), strings.Split(test.err.Error(), "\n")[0]) {
			t.Errorf("%s without a signal: %q", test.name, stderr.String())
		}
	}
}

func TestSignalEndsTheContext(t *testing.T) {
	ctx, stop := SignalContext(t.Context())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	cause := context.Cause(ctx)
	var by *run.InterruptedError
	if !errors.As(cause, &by) || by.Signal != syscall.SIGTERM {
		t.Errorf("cause = %v, want SIGTERM", cause)
	}
}

func TestRequireRoot(t *testing.T) {
	env := Env{UID: 1000}
	want := "nixos-update must be run as root: sudo nixos-update"
	if err := env.RequireRoot("nixos-update"); err == nil || err.Error() != want {
		t.Errorf("RequireRoot() = %v, want %s", err, want)
	}
	env.UID = 0
	if err := env.RequireRoot("nixos-update"); err != nil {
		t.Errorf("RequireRoot() as root = %v", err)
	}
}

func TestConfirm(t *testing.T) {
	script := &prompt.Scripted{Answers: []prompt.Answer{{To: "Go on?", Say: "no"}}}
	env := Env{Ask: script}
	if ok, err := env.Confirm(t.Context(), Options{Yes: true}, "Go on?", ""); !ok || err != nil {
		t.Errorf("Confirm(--yes) = %v, %v", ok, err)
	}
	if ok, err := env.Confirm(t.Context(), Options{}, "Go on?", ""); ok || err != nil {
		t.Errorf("Confirm() = %v, %v, want the answer no", ok, err)
	}
}
