package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/ui"
)

// TestCleanOnARealDisk runs the last steps on a real btrfs, as on the target of
// nixos-anywhere: permissions, then CLEAN, without what is kept.
func TestCleanOnARealDisk(t *testing.T) {
	disk := testx.NewFilesystem(t, 256<<20)
	top, err := os.Open(disk.Mount)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	for _, name := range []string{"@root", "@snapshots"} {
		if err := btrfs.Create(top, name); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(disk.Mount, "@root")
	for name, text := range map[string]string{
		"etc/passwd":          "root:x:0:0::/root:/bin/sh\nme:x:1234:100::/home/me:/bin/sh\n",
		"etc/nixos/flake.nix": "{ }",
		"etc/hostname":        "MINE",
		"var/lib/nixos-go/secrets/hashed-password":               "$y$secret",
		"nix/var/nix/profiles/system/etc/nixos-go/settings.json": `{"networking": {"hostName": "MINE"}, "user": {"admin": {"name": "me"}}, "secrets": {"path": "/var/lib/nixos-go/secrets", "hashedPasswordFile": "/var/lib/nixos-go/secrets/hashed-password"}}`,
		"nix/var/nix/profiles/system/etc/immutability/plan.json": `{"version": 1, "device": "` + disk.Device + `", "snapshots": "@snapshots", "clean": "CLEAN", "mode": "reset", "revision": 1,
		  "volumes": [{"name": "@root", "mountPoint": "/", "keep": ["/etc/nixos", "/var/lib/nixos-go", "/nix"], "exclude": []}]}`,
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	installedRun(t, root, "--from", "permissions", "--root", "/", "--yes")
	clean := filepath.Join(disk.Mount, "@snapshots/@root/CLEAN")
	if text, err := os.ReadFile(filepath.Join(clean, "etc/hostname")); string(text) != "MINE" || err != nil {
		t.Errorf("CLEAN's hostname = %q, %v", text, err)
	}
	for _, name := range []string{"etc/nixos", "var/lib/nixos-go", "nix"} {
		if _, err := os.Lstat(filepath.Join(clean, name)); err == nil {
			t.Errorf("CLEAN holds the kept %s", name)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "var/lib/nixos-go/secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the secrets: %v, %v, want 0700", info.Mode(), err)
	}

	// The step repeated takes a new CLEAN in the place of the old one.
	if err := os.WriteFile(filepath.Join(root, "etc/hostname"), []byte("NEW"), 0o644); err != nil {
		t.Fatal(err)
	}
	out := installedRun(t, root, "--from", "clean", "--root", "/", "--yes", "--json")
	var result report
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]cleanTaken{{Volume: "@root", LeftOut: 3, Replaced: true}}, result.Clean); diff != "" {
		t.Errorf("the step clean again (-want +got):\n%s", diff)
	}
	if text, err := os.ReadFile(filepath.Join(clean, "etc/hostname")); string(text) != "NEW" || err != nil {
		t.Errorf("CLEAN's hostname = %q, %v after the step was repeated", text, err)
	}
}

// installedRun runs the tool in an installed system, and gives what it prints.
func installedRun(t *testing.T, root string, args ...string) string {
	t.Helper()
	var out, messages bytes.Buffer
	env := &clikit.Env{
		UI:     ui.New(&out, &messages, ui.Options{}),
		Host:   run.Host{Runner: &run.Recorder{}, Files: run.Below(root)},
		Redact: &run.Redactor{},
		Getenv: func(string) string { return "" },
	}
	if status := clikit.Run(t.Context(), newApp(env, takeClean), args, env.UI); status != 0 {
		t.Fatalf("%q: status %d: %s", args, status, messages.String())
	}
	return out.String()
}
