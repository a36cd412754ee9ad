package install

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

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
	var out, messages bytes.Buffer
	env := &clikit.Env{
		UI:     ui.New(&out, &messages, ui.Options{}),
		Host:   run.Host{Runner: &run.Recorder{}, Files: run.Below(root)},
		Redact: &run.Redactor{},
		Getenv: func(string) string { return "" },
	}
	status := clikit.Run(t.Context(), newApp(env, takeClean), []string{"--from", "permissions", "--root", "/", "--yes"}, env.UI)
	if status != 0 {
		t.Fatalf("status = %d: %s", status, messages.String())
	}
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
}
