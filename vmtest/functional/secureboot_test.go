package functional

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"nixos-go/pkg/reset"
	"nixos-go/vmtest"
	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/host"
	"nixos-go/vmtest/machine"
)

// ownLoader makes a machine that boots from its own EFI partition, as
// nixos-install has left it without Secure Boot.
func ownLoader(t *testing.T) func(*host.Host, *machine.Spec) {
	t.Helper()
	return func(l *host.Host, s *machine.Spec) {
		firmware(l, s)
		s.Kernel, s.Initrd, s.Cmdline = "", "", nil
		system := full.SystemFolder(l.Dir)
		dir := vmtest.Dir(t)
		conf, entry := filepath.Join(dir, "loader.conf"), filepath.Join(dir, "entry.conf")
		cmdline, err := os.ReadFile(filepath.Join(system, "cmdline"))
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			conf:  "timeout 0\neditor no\ndefault nixos-generation-1.conf\n",
			entry: "title NixOS\nversion Generation 1\nlinux /EFI/nixos/kernel.efi\ninitrd /EFI/nixos/initrd.zst\noptions " + string(cmdline) + "\n",
		} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		disk := filepath.Join(dir, "disk.raw")
		err = l.Guest.WriteDisk(vmtest.Context(t), map[string]string{
			"EFI/BOOT/BOOTX64.EFI":                   filepath.Join(system, "systemd-boot.efi"),
			"EFI/systemd/systemd-bootx64.efi":        filepath.Join(system, "systemd-boot.efi"),
			"EFI/nixos/kernel.efi":                   filepath.Join(system, "kernel.efi"),
			"EFI/nixos/initrd.zst":                   filepath.Join(system, "initrd.zst"),
			"loader/loader.conf":                     conf,
			"loader/entries/nixos-generation-1.conf": entry,
		}, disk)
		if err != nil {
			t.Fatal(err)
		}
		s.Disks[0].Base, s.Disks[0].Boot = disk, 1
	}
}

// firmwareState is what nixos-secure-boot says of the firmware.
type firmwareState struct {
	SecureBoot, SetupMode bool
}

func (b *box) secureBoot() firmwareState {
	b.t.Helper()
	variable := func(name string) bool {
		return b.sh(`od -An -tu1 -j4 "/sys/firmware/efi/efivars/$1-8be4df61-93ca-11d2-aa0d-00e098032b8c" | tr -d ' '`, name) == "1\n"
	}
	return firmwareState{SecureBoot: variable("SecureBoot"), SetupMode: variable("SetupMode")}
}

// The whole way: setup mode, the owner's keys, signed boots, the TPM that
// unlocks only those, an unsigned image that is refused, and back.
func TestVM_SecureBoot(t *testing.T) {
	t.Parallel()
	b := newBox(t, ownLoader(t))
	b.typeAtFirmwareBoot(full.Passphrase)
	if got, want := b.secureBoot(), (firmwareState{SetupMode: true}); got != want {
		t.Fatalf("the firmware before all = %+v, want %+v", got, want)
	}
	b.makeFlake("/etc/nixos", "Standard-Boot")
	t.Logf("nixos-secure-boot enable:\n%s", b.sh(`nixos-secure-boot enable --yes --no-microsoft --confirm "without Microsoft" 2>&1 || { cat /run/standins.log; exit 1; }`))
	b.powerOff()

	b.typeAtFirmwareBoot(full.Passphrase)
	if got, want := b.secureBoot(), (firmwareState{SecureBoot: true}); got != want {
		t.Fatalf("the firmware after enable = %+v, want %+v", got, want)
	}
	// Nothing has happened below /home.
	b.wantOutcome(reset.ModeReset, reset.OutcomeReset, reset.OutcomeUnchanged)
	t.Logf("nixos-secure-boot status:\n%s", b.sh("nixos-secure-boot status 2>&1"))
	b.put("/run/old", full.Passphrase)
	t.Logf("nixos-tpm2 enable:\n%s", b.sh("nixos-tpm2 enable --yes --json --current-password-file /run/old 2>/run/err || { cat /run/err; exit 1; }"))
	b.powerOff()

	// Signed, with the very keys: the TPM gives the key, nobody types.
	b.firmwareBoot()
	if got := b.tpmUnlocked(); !got {
		t.Errorf("somebody was asked for the passphrase though the TPM should have unlocked:\n%s", b.Console().Tail(30))
	}
	// The volume key is measured, so PCR 15 is not zero any more, and the secret
	// cannot be had a second time in this boot.
	b.tpmRefuses(partition)
	b.powerOff()

	b.unsignedIsRefused()
	b.rogueRoot()

	// Without its keys the firmware checks nothing, and the TPM notices.
	if err := b.ImportVars(vmtest.Context(t), b.host.Emulator.Vars); err != nil {
		t.Fatal(err)
	}
	b.typeAtFirmwareBoot(full.Passphrase)
	if got, want := b.secureBoot(), (firmwareState{SetupMode: true}); got != want {
		t.Errorf("the firmware without keys = %+v, want %+v", got, want)
	}
	t.Logf("nixos-secure-boot disable:\n%s", b.sh("nixos-secure-boot disable --yes 2>&1"))
	b.powerOff()

	b.typeAtFirmwareBoot(full.Passphrase)
	var config struct {
		Target string `json:"target"`
	}
	if err := json.Unmarshal([]byte(b.sh("cat /etc/nixos/config.json")), &config); err != nil || config.Target != "Standard-Boot" {
		t.Errorf("target after disable = %q (%v), want Standard-Boot", config.Target, err)
	}
	b.powerOff()
}

// tpmRefuses checks that the TPM keeps the key of a partition to itself now.
func (b *box) tpmRefuses(device string) {
	b.t.Helper()
	out, err := b.Shell(vmtest.Context(b.t), tokenOpens, device)
	exit, ok := errors.AsType[*agent.ExitError](err)
	if !ok {
		b.t.Errorf("the TPM gives the key of %s: %s (%v)", device, out, err)
		return
	}
	b.t.Logf("the TPM keeps the key of %s: %s", device, exit.Result.Stderr)
}

// exported is the machine's disk as a raw file.
func (b *box) exported(dir string) string {
	b.t.Helper()
	raw := filepath.Join(dir, "main.raw")
	if err := b.ExportDisk(vmtest.Context(b.t), "main", raw); err != nil {
		b.t.Fatal(err)
	}
	return raw
}

func (b *box) imported(id, raw string) {
	b.t.Helper()
	if err := b.ImportDisk(vmtest.Context(b.t), id, raw); err != nil {
		b.t.Fatal(err)
	}
}

// unsignedIsRefused boots with an image that nobody has signed in the place of
// the signed one, and puts that back.
func (b *box) unsignedIsRefused() {
	b.t.Helper()
	ctx, dir := vmtest.Context(b.t), vmtest.Dir(b.t)
	raw := b.exported(dir)
	const entry = "::/EFI/Linux/nixos-generation-2.efi"
	signed := filepath.Join(dir, "signed.efi")
	unsigned := filepath.Join(full.SystemFolder(b.host.Dir), "stub.efi")
	if err := full.EditESP(ctx, raw, "mcopy", entry, signed); err != nil {
		b.t.Fatal(err)
	}
	if err := full.EditESP(ctx, raw, "mcopy", "-o", unsigned, entry); err != nil {
		b.t.Fatal(err)
	}
	b.imported("main", raw)
	if err := b.Start(ctx, machine.Tolerant()); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Expect(ctx, `(?i)access denied|security violation`); err != nil {
		b.t.Errorf("the firmware does not refuse an unsigned image: %v", err)
	}
	if err := b.Stop(); err != nil {
		b.t.Fatal(err)
	}
	if err := full.EditESP(vmtest.Context(b.t), raw, "mcopy", "-o", signed, entry); err != nil {
		b.t.Fatal(err)
	}
	b.imported("main", raw)
}

// rogueRoot is what a thief would try: the machine's own signed boot files, a
// root partition of the thief's in the place of the owner's, and from there the
// TPM is asked for the owner's key. The volume key of the thief's partition was
// measured into PCR 15 by then, and the TPM refuses.
func (b *box) rogueRoot() {
	b.t.Helper()
	dir := vmtest.Dir(b.t)
	raw := b.exported(dir)
	victim := filepath.Join(dir, "victim.raw")
	if err := full.MainPartition(raw, victim); err != nil {
		b.t.Fatal(err)
	}
	if err := b.host.Guest.ReplaceMain(raw); err != nil {
		b.t.Fatal(err)
	}
	owners := b.DiskPath("main") + ".owner"
	if err := os.Rename(b.DiskPath("main"), owners); err != nil {
		b.t.Fatal(err)
	}
	b.imported("main", raw)
	b.imported("victim", victim)
	disks := b.Spec.Disks
	b.Spec.Disks = append(append([]machine.Disk(nil), disks...), machine.Disk{ID: "victim", Base: victim})
	b.typeAtFirmwareBoot(full.Passphrase)
	if got, want := b.secureBoot(), (firmwareState{SecureBoot: true}); got != want {
		b.t.Errorf("the firmware under the rogue root = %+v, want %+v: the test would prove nothing", got, want)
	}
	const stolen = "/dev/disk/by-id/virtio-victim"
	if got := b.sh(`cryptsetup luksDump "$1" | grep -c systemd-tpm2`, stolen); got == "0\n" {
		b.t.Error("the owner's partition has no token of the TPM: the test would prove nothing")
	}
	b.tpmRefuses(stolen)
	b.powerOff()
	b.Spec.Disks = disks
	if err := os.Rename(owners, b.DiskPath("main")); err != nil {
		b.t.Fatal(err)
	}
}
