package docs

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/testx/console"
)

// sample has everything that a tool can have.
func sample() *cli.App {
	return clikit.New(&cli.App{
		Name: "nixos-sample", Usage: "show what's completed",
		Description: ".It begins with a dot, has a back\\slash and 'quotes'.\n\nAnd an example:\n  kept as it is\n  both lines",
		Flags: []cli.Flag{
			clikit.JSONFlag(), clikit.DryRunFlag(),
			&cli.StringFlag{Name: "host", Usage: "take the host `HOST` [if it's there]"},
			&cli.StringFlag{Name: "step", Aliases: []string{"s"}, Usage: "begin with `STEP`: any of them"},
			&cli.StringFlag{Name: "into", Usage: "write into `DIR`"},
			&cli.StringFlag{Name: "pin", Usage: "the `PIN`"},
			&cli.BoolFlag{Name: "secret-switch", Hidden: true},
		},
		Commands: []*cli.Command{
			{Name: "enable", Usage: "turn it on: now", Flags: []cli.Flag{&cli.StringFlag{Name: "key", Usage: "from `FILE`"}}},
			{Name: "disk", Usage: "wipe one", ArgsUsage: "DISK…"},
			{Name: "key", Usage: "keys", Subcommands: []*cli.Command{
				{Name: "list", Usage: "list them", Flags: []cli.Flag{&cli.BoolFlag{Name: "long", Usage: "all of it"}}},
			}},
			{Name: "ghost", Hidden: true},
		},
	}, clikit.Doc{
		Choices:  map[string][]string{"STEP": {"partition", "install", "clean"}},
		Examples: []clikit.Example{{Command: "nixos-sample --host X", Does: "do it"}},
		Files:    []clikit.File{{Path: "/etc/x", Does: "a file"}},
		SeeAlso:  []string{"nixos-eval(8)"},
	})
}

// written writes the documentation of the sample, and a nixos-go that lists
// hosts and disks; environ finds it.
func written(t *testing.T) (dir string, environ []string) {
	t.Helper()
	dir = t.TempDir()
	if err := Write(sample(), filepath.Join(dir, "man"), dir); err != nil {
		t.Fatal(err)
	}
	const program = "#!/bin/sh\ncase $2 in hosts) echo FRACTAL-NORTH; echo VM-TEST ;; disks) echo /dev/nvme0n1; echo /dev/sda ;; esac\n"
	bin := filepath.Join(dir, "bin")
	err := errors.Join(
		os.Mkdir(bin, 0o755),
		os.WriteFile(filepath.Join(bin, "nixos-go"), []byte(program), 0o755),
		os.WriteFile(filepath.Join(bin, "nixos-sample"), []byte("#!/bin/sh\n"), 0o755),
		os.MkdirAll(filepath.Join(dir, "work", "folder"), 0o755),
		os.WriteFile(filepath.Join(dir, "work", "file"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "TERM=xterm")
}

// shell finds a shell; the tests are skipped without it, except where the
// project's own test run promises to have it.
func shell(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("NIXOS_GO_NO_SKIP") != "" {
		t.Fatalf("%s is not installed", name)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// cases are lines up to the cursor and what can follow.
var cases = []struct {
	line string
	want []string
}{
	{"nixos-sample ", []string{"disk", "enable", "key"}},
	{"nixos-sample en", []string{"enable"}},
	{"nixos-sample --j", []string{"--json"}},
	{"nixos-sample --host ", []string{"FRACTAL-NORTH", "VM-TEST"}},
	{"nixos-sample --host F", []string{"FRACTAL-NORTH"}},
	{"nixos-sample -s ", []string{"clean", "install", "partition"}},
	{"nixos-sample --step c", []string{"clean"}},
	{"nixos-sample --into fo", []string{"folder"}},
	{"nixos-sample enable --ke", []string{"--key"}},
	{"nixos-sample enable --key f", []string{"file", "folder"}},
	{"nixos-sample enable --jso", []string{"--json"}},
	{"nixos-sample disk ", []string{"/dev/nvme0n1", "/dev/sda"}},
	{"nixos-sample key ", []string{"list"}},
	{"nixos-sample key list --lo", []string{"--long"}},
	{"nixos-sample --dry-run key list --lo", []string{"--long"}},
	{"nixos-sample --pin ", nil},
	{"nixos-sample --secr", nil},
	{"nixos-sample gh", nil},
}

// candidates reads a list as the shells print it: one a line, a description
// after a tab, a slash after a folder.
func candidates(output []byte) []string {
	var list []string
	for line := range strings.SplitSeq(string(output), "\n") {
		name, _, _ := strings.Cut(line, "\t")
		if name = strings.TrimSuffix(name, "/"); name != "" {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func TestBash(t *testing.T) {
	bash := shell(t, "bash")
	dir, environ := written(t)
	for _, test := range cases {
		words := strings.Split(test.line, " ")
		script := `source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _nixos_sample; printf '%s\n' "${COMPREPLY[@]}"`
		cmd := exec.Command(bash, append([]string{"--norc", "-c", script, "bash", filepath.Join(dir, "nixos-sample.bash")}, words...)...)
		cmd.Env, cmd.Dir = environ, filepath.Join(dir, "work")
		output, err := cmd.Output()
		if err != nil {
			t.Fatalf("bash: %v", err)
		}
		if diff := cmp.Diff(test.want, candidates(output)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.line, diff)
		}
	}
}

// TestBashSplitsAtEquals: bash makes three words of --host=F.
func TestBashSplitsAtEquals(t *testing.T) {
	bash := shell(t, "bash")
	dir, environ := written(t)
	script := `source "$1"; for last in F ''; do COMP_WORDS=(nixos-sample --host = $last); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _nixos_sample; echo "${COMPREPLY[*]}"; done`
	cmd := exec.Command(bash, "--norc", "-c", script, "bash", filepath.Join(dir, "nixos-sample.bash"))
	cmd.Env = environ
	output, err := cmd.Output()
	if want := "FRACTAL-NORTH\nFRACTAL-NORTH VM-TEST\n"; err != nil || string(output) != want {
		t.Errorf("bash completes %q, %v, want %q", output, err, want)
	}
}

func TestFish(t *testing.T) {
	fish := shell(t, "fish")
	dir, environ := written(t)
	for _, test := range cases {
		cmd := exec.Command(fish, "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, filepath.Join(dir, "nixos-sample.fish"), test.line)
		cmd.Env, cmd.Dir = environ, filepath.Join(dir, "work")
		output, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("fish: %v: %s", err, output)
		}
		if diff := cmp.Diff(test.want, candidates(output)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.line, diff)
		}
	}
}

// zshSetup loads the completions and writes down every match that is added.
// Calls with -O, -A or -D only fill arrays.
const zshSetup = `PS1='RE''ADY> '
fpath=($ZSH_FUNCTIONS $fpath)
autoload -U compinit
compinit -u -D
bindkey '^I' list-choices
compadd() {
  if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
    local -a matches
    builtin compadd -O matches "$@"
    print -l -- $matches >>$ZSH_MATCHES
  fi
  builtin compadd "$@"
}
`

// TestZsh presses the tab key.
func TestZsh(t *testing.T) {
	zsh := shell(t, "zsh")
	dir, environ := written(t)
	setup, matches := filepath.Join(dir, "setup"), filepath.Join(dir, "matches")
	if err := os.WriteFile(setup, []byte(zshSetup), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(zsh, "-f", "-i")
	cmd.Env = append(slices.Clone(environ), "ZSH_FUNCTIONS="+dir, "ZSH_MATCHES="+matches)
	cmd.Dir = filepath.Join(dir, "work")
	c := console.Start(t, cmd)
	c.Type("source " + setup + "\r")
	c.Expect("READY> ")
	for _, test := range cases {
		if err := os.WriteFile(matches, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		const killLine = "\x15"
		c.Type(test.line + "\t" + killLine + "echo DO''NE\r")
		c.Expect("DONE\n")
		c.Expect("READY> ")
		output, err := os.ReadFile(matches)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, slices.Compact(candidates(output))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.line, diff)
		}
	}
	c.Type("exit\r")
	c.Wait()
}

// TestManPage: groff has nothing to complain of, and shows the text as it is.
func TestManPage(t *testing.T) {
	groff := shell(t, "groff")
	dir, _ := written(t)
	var complaints bytes.Buffer
	cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-P-c", "-rLL=100n", filepath.Join(dir, "man", "nixos-sample.8"))
	cmd.Stderr = &complaints
	output, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("groff: %v: %s", err, complaints.String())
	}
	text := overstrike(string(output))
	for _, want := range []string{
		"nixos-sample - show what's completed",
		"nixos-sample key list [OPTIONS]",
		".It begins with a dot, has a back\\slash and 'quotes'.",
		"  kept as it is\n",
		"-n, --dry-run\n",
		"Take the host HOST [if it's there].",
		"Turn it on: now.",
		"/etc/x A file.",
		"nixos-eval(8)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	for _, hidden := range []string{"secret-switch", "ghost"} {
		if strings.Contains(text, hidden) {
			t.Errorf("the page shows the hidden %q", hidden)
		}
	}
}

// overstrike takes away how groff marks bold and italics for old printers.
func overstrike(text string) string {
	var b []rune
	for _, r := range text {
		if r == '\b' && len(b) > 0 {
			b = b[:len(b)-1]
			continue
		}
		b = append(b, r)
	}
	return string(b)
}
