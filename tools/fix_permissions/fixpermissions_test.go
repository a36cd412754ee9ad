package fixpermissions

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/permissions"
	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/tooltest"
)

func TestMain(m *testing.M) {
	tooltest.Main(m, tooltest.Tools{"nixos-fix-permissions": newApp}, "nix")
}

func TestScripts(t *testing.T) { tooltest.Scripts(t, "testdata") }

// TestFold: a folder stands for what is in it only where all of that changes alike.
func TestFold(t *testing.T) {
	change := func(path string, uid int, mode uint32) permissions.Change {
		return permissions.Change{Path: path, FromUID: uid, FromMode: mode, ToUID: 1000, ToMode: 0o644}
	}
	var got []string
	for _, r := range fold([]permissions.Change{
		change(".git", 0, 0o644), change(".git/HEAD", 0, 0o644), change(".git/refs", 0, 0o644), change(".git/refs/x", 0, 0o644),
		change(".gitignore", 0, 0o644),
		change("hosts", 0, 0o644), change("hosts-old", 0, 0o644), change("hosts/a.nix", 0, 0o666),
		change("hosts/x86_64", 7, 0o644), change("hosts/x86_64/b.nix", 7, 0o644),
	}) {
		got = append(got, line(work{tree: permissions.Tree{Path: "/e"}}, r))
	}
	want := []string{
		"/e/.git and 3 in it: owner 0:0 → 1000:0",
		"/e/.gitignore: owner 0:0 → 1000:0",
		"/e/hosts: owner 0:0 → 1000:0",
		"/e/hosts/a.nix: owner 0:0 → 1000:0, mode 0666 → 0644",
		"/e/hosts/x86_64 and 1 in it: owner 7:0 → 1000:0",
		"/e/hosts-old: owner 0:0 → 1000:0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fold (-want +got):\n%s", diff)
	}
	if rows := fold([]permissions.Change{change(".", 0, 0o644), change("x", 0, 0o644)}); len(rows) != 1 || rows[0].below != 1 {
		t.Errorf("fold of a whole tree = %+v, want one row", rows)
	}
}

// TestInterrupted presses Ctrl-C while nix evaluates whose the configuration is.
func TestInterrupted(t *testing.T) {
	work := tooltest.Unpack(t, map[string]string{
		"flake/flake.nix":             "{ }",
		"flake/flake.lock":            "{ }",
		"flake/config.json":           `{"host_path": "hosts/x86_64/MINE.nix", "target": "Standard-Boot"}`,
		"flake/hosts/x86_64/MINE.nix": "{ }",
		"standin/nix":                 "echo evaluating >/dev/tty; exec sleep 1000",
	})
	if err := tooltest.Commit(filepath.Join(work, "flake")); err != nil {
		t.Fatal(err)
	}
	c := tooltest.Terminal(t, work, nil, "nixos-fix-permissions")
	c.Expect("evaluating")
	c.Type(console.CtrlC)
	c.Expect("error: interrupted")
	if status := c.Wait(); status != 1 {
		t.Errorf("status = %d, want 1\n%s", status, c.Screen())
	}
}
