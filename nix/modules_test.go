package nix_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
)

// kept tells whether a path of a machine survives a reset, by its plan.
func kept(t *testing.T, plan *reset.PlanFile, path string) bool {
	t.Helper()
	volume := &plan.Volumes[0]
	for i := range plan.Volumes {
		if at := plan.Volumes[i].MountPoint; at != "/" && strings.HasPrefix(path, at+"/") {
			volume = &plan.Volumes[i]
		}
	}
	rules, err := volume.Rules()
	if err != nil {
		t.Fatal(err)
	}
	return keep.NewMatcher(rules).Kept(strings.TrimPrefix(path, strings.TrimSuffix(volume.MountPoint, "/")))
}

// What a machine keeps without being told to, and what it does not.
func TestDefaultPersistence(t *testing.T) {
	nixFiles(t)
	machine := eval[host](t, "--file", "tests/hosts.nix", "VM-TEST")
	plan, err := reset.ParsePlanFile(strings.NewReader(string(machine.Plan)))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/nixos/flake.nix",
		"/etc/NetworkManager/system-connections/home.nmconnection", "/var/lib/bluetooth/00:11/info", "/var/lib/nixos/uid-map",
		"/var/lib/nixos-go/secrets/hashed-password", "/var/lib/nixos-go/secure-boot/journal.json", "/var/lib/nixos-go/gpu-vfio/x.json",
		"/var/lib/sbctl/keys/db/db.key", "/var/lib/systemd/coredump/core.1", "/var/lib/systemd/timers/stamp-fstrim.timer",
		"/var/lib/systemd/random-seed", "/var/lib/systemd/backlight/pci-0000:0e:00.0", "/var/lib/systemd/rfkill/x",
		"/var/log/journal/x/system.journal", "/var/lib/fwupd/pending.db", "/var/lib/libvirt/images/win11.qcow2",
		"/var/lib/containers/storage/x", "/var/lib/cups/x",
		"/home/alice/Downloads/x", "/home/alice/Documents/x", "/home/alice/Desktop/x", "/home/alice/Pictures/x", "/home/bob/Videos/x",
		"/home/alice/.bash_history", "/home/alice/.ssh/known_hosts", "/home/alice/.ssh/known_hosts.old", "/home/alice/.ssh/id_ed25519",
		"/home/alice/.local/share/direnv/allow/x", "/home/alice/.mozilla/firefox/p/key4.db", "/home/alice/.config/google-chrome/Default/Bookmarks",
		"/home/alice/.local/share/nvim/shada/main.shada", "/home/alice/.local/share/kwalletd/kdewallet.kwl",
		"/home/alice/.local/share/keyrings/login.keyring", "/home/alice/.config/kdeglobals", "/home/alice/.config/plasma-org.kde.plasma.desktop-appletsrc",
		"/home/alice/.local/state/home-manager/gcroots/current-home",
	} {
		if !kept(t, plan, path) {
			t.Errorf("%s would be wiped, and should persist", path)
		}
	}
	for _, path := range []string{
		// What lets somebody back in, or starts something by itself.
		"/etc/ssh/authorized_keys", "/etc/ssh/sshd_config.d/x", "/home/alice/.ssh/authorized_keys", "/home/alice/.ssh/rc", "/root/.ssh/authorized_keys",
		"/etc/passwd", "/etc/shadow", "/etc/sudoers.d/x", "/etc/systemd/system/x.service", "/etc/cron.d/x", "/var/spool/cron/root",
		"/home/alice/.bashrc", "/home/alice/.profile", "/home/alice/.config/autostart/x.desktop", "/home/alice/.config/systemd/user/x.service",
		"/home/alice/.local/bin/x", "/usr/local/bin/x", "/root/.bashrc",
		// Caches.
		"/home/alice/.cache/x", "/var/cache/x", "/var/tmp/x", "/tmp/x", "/home/alice/.config/google-chrome/Default/Cache/x",
	} {
		if kept(t, plan, path) {
			t.Errorf("%s would persist, and should be wiped", path)
		}
	}
}

// The message at login says what went wrong at boot, and nothing when nothing did.
func TestNoticeAtLogin(t *testing.T) {
	nixFiles(t)
	script := string(runNix(t, "nix", "eval", "--raw", "--file", "tests/notice.nix"))
	if _, err := exec.LookPath("jq"); err != nil {
		testx.Unavailable(t, "jq is not installed")
	}
	report := func(outcomes ...reset.Outcome) string {
		r := reset.Report{Version: reset.ReportVersion}
		for i, outcome := range outcomes {
			r.Volumes = append(r.Volumes, reset.Result{Name: []string{"@root", "@home"}[i], Outcome: outcome})
		}
		return string(encode(t, r))
	}
	for _, test := range []struct{ name, report, want string }{
		{"no report", "", "it did not run, or was cut off: there is no report"},
		{"all is well", report(reset.OutcomeReset, reset.OutcomeUnchanged), ""},
		{"a volume failed", report(reset.OutcomeReset, reset.OutcomeFailed), "left as they were: @home"},
		{"both did", report(reset.OutcomeFailed, reset.OutcomeFailed), "left as they were: @root @home"},
		{"nothing was reset", string(encode(t, reset.Report{Version: reset.ReportVersion, Error: "a broken plan"})), "nothing was touched"},
		{"half a report", report(reset.OutcomeReset)[:20], "its report cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, folder := range []string{"initrd-reset", "immutability"} {
				if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			notice := filepath.Join(dir, "immutability/notice")
			files := map[string]string{notice: "of another boot\n"}
			if test.report != "" {
				files[filepath.Join(dir, "initrd-reset/report.json")] = test.report
			}
			for name, text := range files {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			here := strings.ReplaceAll(script, "/run/", dir+"/")
			// As systemd runs the scripts of NixOS.
			if out, err := exec.CommandContext(t.Context(), "bash", "-e", "-c", here).CombinedOutput(); err != nil {
				t.Fatalf("the script = %v\n%s", err, out)
			}
			got, err := os.ReadFile(notice)
			switch {
			case test.want == "" && !errors.Is(err, fs.ErrNotExist):
				t.Errorf("a notice although nothing went wrong: %s, %v", got, err)
			case test.want != "" && !strings.HasPrefix(string(got), "warning: the reset at boot failed ("+test.want):
				t.Errorf("the notice is %q, want one that says %q", got, test.want)
			}
		})
	}
}
