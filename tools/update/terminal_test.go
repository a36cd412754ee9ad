package update

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/tooltest"
)

// machine is a folder with a flake, an old and a new system, and stand-ins;
// nixosRebuild is the script of one of them.
func machine(t *testing.T, nixosRebuild string) (work string) {
	t.Helper()
	work = tooltest.Unpack(t, map[string]string{
		"flake/flake.nix":      "{ }",
		"flake/flake.lock":     "{ }",
		"flake/.gitignore":     "config.json",
		"flake/config.json":    `{"host_path": "hosts/x86_64/MINE.nix"}`,
		"root/nix/store/old/x": "", "root/nix/store/new/x": "", "root/nix/var/nix/profiles/x": "", "root/run/x": "",
		"standin/nix":           `case "$*" in *diff-closures*) echo "firefox: 1 → 2" ;; *path-info*) echo '{}' ;; esac`,
		"standin/nixos-rebuild": nixosRebuild,
	})
	if err := tooltest.Commit(filepath.Join(work, "flake")); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"root/run/current-system", "root/nix/var/nix/profiles/system"} {
		if err := os.Symlink("/nix/store/old", filepath.Join(work, link)); err != nil {
			t.Fatal(err)
		}
	}
	return work
}

const builds = "[ $1 = build ] && exec ln -s /nix/store/new result\necho activating >&2\n"

func TestAsksBeforeTheSwitch(t *testing.T) {
	for _, test := range []struct {
		answer   string
		says     string
		switches bool
	}{
		{"y", "ok: the machine runs the new system", true},
		{"", "Nothing was activated.", false},
	} {
		work := machine(t, builds)
		c := tooltest.Terminal(t, work, nil, "nixos-update")
		c.Expect("firefox  1       2")
		c.Expect("Switch to it? [y/N] ")
		c.Type(test.answer + console.Enter)
		c.Expect(test.says)
		if status := c.Wait(); status != 0 {
			t.Errorf("answer %q: status %d", test.answer, status)
		}
		if got := strings.Contains(tooltest.Calls(t, work), "nixos-rebuild switch"); got != test.switches {
			t.Errorf("answer %q: switched %v, want %v", test.answer, got, test.switches)
		}
	}
}

func TestDeclinedAfterAnUpgrade(t *testing.T) {
	work := machine(t, builds)
	c := tooltest.Terminal(t, work, nil, "nixos-update", "--upgrade")
	c.Expect("Switch to it? [y/N] ")
	c.Type("n" + console.Enter)
	c.Expect("hint: flake.lock has the new inputs")
	c.Wait()
}

// TestInterrupted presses Ctrl-C in the middle of each long step, and at the
// question.
func TestInterrupted(t *testing.T) {
	const waits = "echo working >&2; exec sleep 1000\n"
	for _, test := range []struct {
		name, rebuild string
		args          []string
		until         string
		hint          string
	}{
		{"build", waits, nil, "working", "hint: nothing was activated: the machine runs the system it had"},
		{"question", builds, nil, "Switch to it? [y/N] ", "error: interrupted"},
		{
			"switch", "[ $1 = build ] && exec ln -s /nix/store/new result\n" + waits,
			[]string{"--yes"},
			"Switch to it\n  working", "hint: nothing was activated: the machine runs, and boots, the system it had",
		},
		{
			"switch half done", "[ $1 = build ] && exec ln -s /nix/store/new result\nln -sfn /nix/store/new $ROOT/nix/var/nix/profiles/system\n" + waits,
			[]string{"--yes"},
			"Switch to it\n  working", "hint: the old system still runs, but the next boot starts the new one",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			work := machine(t, test.rebuild)
			c := tooltest.Terminal(t, work, nil, "nixos-update", test.args...)
			c.Expect(test.until)
			c.Type(console.CtrlC)
			c.Expect(test.hint)
			if status := c.Wait(); status != 1 {
				t.Errorf("status = %d, want 1", status)
			}
			left, err := filepath.Glob(filepath.Join(os.TempDir(), "nixos-update-*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

func TestColourIsForTerminals(t *testing.T) {
	for _, test := range []struct {
		env    []string
		colour bool
	}{
		{nil, true},
		{[]string{"NO_COLOR=1"}, false},
		{[]string{"TERM=dumb"}, false},
	} {
		work := machine(t, builds)
		c := tooltest.Terminal(t, work, test.env, "nixos-update", "--yes")
		c.Expect("ok: the machine runs the new system")
		c.Wait()
		if got := strings.Contains(c.Raw(), "\x1b["); got != test.colour {
			t.Errorf("%q: colour = %v, want %v", test.env, got, test.colour)
		}
	}
}
