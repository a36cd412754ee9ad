package functional

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/reset"
	"nixos-go/vmtest"
	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/host"
	"nixos-go/vmtest/machine"
)

// The disks of an installation: the one to install to comes first, so that it is
// /dev/vda, as the host has it.
const targetDisk = "target"

func live(l *host.Host, s *machine.Spec) {
	firmware(l, s)
	s.Disks = []machine.Disk{
		{ID: targetDisk, Size: 16 << 30},
		{ID: full.LiveDisk, Base: l.Guest.Live},
		{ID: full.ToolsDisk, Base: l.Tools.Disk, ReadOnly: true},
	}
}

// flakeArchive is the configuration of the project as a tar archive.
func flakeArchive(t *testing.T) []byte {
	t.Helper()
	root, err := vmtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, content []byte) {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []string{"flake.nix", "hosts", "modules", "nix/lib"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(root, name)
			add(relative, content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	add("flake.lock", []byte("{}\n"))
	add(".gitignore", []byte("config.json\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// makeFlake puts the configuration into a folder of the guest, as a git
// repository; with a target, it is the machine's own.
func (b *box) makeFlake(dir, target string) {
	b.t.Helper()
	if err := b.Agent().PutBytes(vmtest.Context(b.t), "/run/flake.tar", 0o600, flakeArchive(b.t)); err != nil {
		b.t.Fatal(err)
	}
	b.sh(`mkdir -p "$1"; tar -C "$1" -xf /run/flake.tar; rm /run/flake.tar; cd "$1"; git init -q; git add -A
	      git -c user.name=t -c user.email=t@example.org commit -q -m configuration
	      [ -z "$2" ] || printf '{"host_path": "hosts/x86_64/VM-TEST.nix", "target": "%s"}\n' "$2" > config.json`, dir, target)
}

// An empty disk becomes a machine: everything by nixos-install-go, from a live
// system; then the firmware boots it, twice.
func TestVM_Install(t *testing.T) {
	t.Parallel()
	b := newBox(t, live)
	b.Boot.Reset, b.Boot.Live = "", true
	b.base = full.LiveCmdline()
	b.Spec.Credentials = nil
	b.boot()
	b.makeFlake("/root/flake", "")
	var settings map[string]any
	if err := json.Unmarshal(b.host.Settings, &settings); err != nil {
		t.Fatal(err)
	}
	b.put("/run/settings.json", string(b.host.Settings))
	b.put("/run/pw", full.Passphrase+"\n")
	out := b.sh(`nixos-install-go --flake /root/flake --host VM-TEST --yes --disk /dev/vda --password-file /run/pw 2>&1 || { echo "status $?"; cat /run/standins.log; exit 1; }`)
	t.Logf("nixos-install-go:\n%s", out)
	for path, want := range map[string]string{
		"/mnt/etc/nixos/flake.nix":                              "1000:1000 644",
		"/mnt/var/lib/nixos-go/secrets":                         "0:0 700",
		"/mnt/var/lib/nixos-go/secrets/hashed-password":         "0:0 600",
		"/mnt/.snapshots/@root/CLEAN":                           "0:0 755",
		"/mnt/.snapshots/@root/CLEAN/etc/systemd/system.conf.d": "0:0 755",
	} {
		if got := strings.TrimSpace(b.sh(`stat -c '%u:%g %a' "$1"`, path)); got != want {
			t.Errorf("owner and mode of %s = %s, want %s", path, got, want)
		}
	}
	if got := b.sh("btrfs property get -ts /mnt/.snapshots/@root/CLEAN ro; btrfs property get -ts /mnt/.snapshots/@home/CLEAN ro"); got != "ro=true\nro=true\n" {
		t.Errorf("CLEAN of both volumes: %q, want read-only", got)
	}
	if got := b.sh("cat /mnt/etc/nixos/config.json"); !strings.Contains(got, "hosts/x86_64/VM-TEST.nix") || !strings.Contains(got, "Standard-Boot") {
		t.Errorf("config.json of the machine = %s", got)
	}
	if got := b.sh("[ ! -e /run/nixos-go/luks-passphrase ] && echo gone"); got != "gone\n" {
		t.Errorf("the passphrase's file is still there: %q", got)
	}
	b.sh("umount --recursive /mnt; cryptsetup close root; sync")
	b.powerOff()

	// From now on what was installed boots by itself.
	b.Spec.Kernel, b.Spec.Initrd, b.Spec.Cmdline = "", "", nil
	b.Spec.Disks = []machine.Disk{b.Spec.Disks[0], b.Spec.Disks[2]}
	b.Spec.Disks[0].Boot = 1
	b.typeAtFirmwareBoot(full.Passphrase)
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.noFailedUnits()
	if got := b.sh("getent shadow admin | cut -d: -f2 | cut -c1-3"); got != "$y$\n" {
		t.Errorf("the admin's password begins with %q, want a hash of yescrypt", got)
	}
	b.sh(day, "monday")
	b.powerOff()

	b.typeAtFirmwareBoot(full.Passphrase)
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.afterDay("monday")
	if got := b.sh("cat /etc/nixos/config.json"); !strings.Contains(got, "VM-TEST") {
		t.Errorf("/etc/nixos does not survive a boot: config.json = %q", got)
	}
	b.powerOff()
}

// An update brings a generation with other rules: nixos-update names what
// becomes ephemeral, and the next boot goes by the new rules.
func TestVM_Update(t *testing.T) {
	t.Parallel()
	b := booted(t)
	b.makeFlake("/etc/nixos", "Standard-Boot")
	next := clonePlan(t, b.Plan)
	next.Revision++
	next.Volumes[0].Keep = replaceRule(next.Volumes[0].Keep, "/var/lib/bluetooth", "/srv/new")
	plan, err := json.Marshal(next)
	if err != nil {
		t.Fatal(err)
	}
	b.put("/etc/nixos/next/plan.json", string(plan))
	b.sh("mkdir -p /srv/new; echo data > /srv/new/x")
	b.sh(day, "monday")
	out, err := b.Run(vmtest.Context(t), "nixos-update", "--yes")
	exit, ok := errors.AsType[*agent.ExitError](err)
	if !ok || exit.Result.Status != 1 || !strings.Contains(string(out.Stderr), "/var/lib/bluetooth") {
		t.Errorf("nixos-update = %v, want status 1 and that /var/lib/bluetooth becomes ephemeral", err)
	}
	if got := b.sh("readlink /nix/var/nix/profiles/system"); got != "system-1-link\n" {
		t.Errorf("the profile after the refusal leads to %q, want the first generation", got)
	}
	b.sh("nixos-update --boot --yes --allow-wipe 2>&1")
	if got := b.sh("readlink /nix/var/nix/profiles/system"); got != "system-2-link\n" {
		t.Errorf("the profile leads to %q, want the second generation", got)
	}
	// What runs is the first generation still: nixos-diff goes by the rules of the
	// next boot, and says so.
	if got := b.sh("nixos-diff 2>&1"); !strings.Contains(got, "other rules") || !strings.Contains(got, "bluetooth") {
		t.Errorf("nixos-diff does not tell of the next generation's rules:\n%s", got)
	}
	b.powerOff()

	b.Plan = next
	b.boot()
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeReset)
	b.wantFiles(map[string]string{"/srv/new/x": "data", "/var/lib/bluetooth": "", "/etc/rogue.conf": "", "/home/admin/Documents/monday": "monday"})
	b.powerOff()
}

func replaceRule(rules []string, old, replacement string) []string {
	var out []string
	for _, rule := range rules {
		if rule != old {
			out = append(out, rule)
		}
	}
	return append(out, replacement)
}
