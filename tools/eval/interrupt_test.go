package eval

import (
	"path/filepath"
	"testing"

	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/tooltest"
)

// TestInterrupted presses Ctrl-C while nix evaluates.
func TestInterrupted(t *testing.T) {
	work := tooltest.Unpack(t, map[string]string{
		"flake/flake.nix":             "{ }",
		"flake/flake.lock":            "{ }",
		"flake/config.json":           `{"host_path": "hosts/x86_64/MINE.nix", "target": "Standard-Boot"}`,
		"flake/.gitignore":            "config.json",
		"flake/hosts/x86_64/MINE.nix": "{ }",
		"standin/nix":                 "echo evaluating >/dev/tty; exec sleep 1000",
	})
	if err := tooltest.Commit(filepath.Join(work, "flake")); err != nil {
		t.Fatal(err)
	}
	c := tooltest.Terminal(t, work, nil, "nixos-eval", "networking.hostName")
	c.Expect("evaluating")
	c.Type(console.CtrlC)
	c.Expect("error: interrupted")
	if status := c.Wait(); status != 1 {
		t.Errorf("status = %d, want 1\n%s", status, c.Screen())
	}
}
