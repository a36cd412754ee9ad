package functional

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nixos-go/pkg/run"
	"nixos-go/vmtest"
	"nixos-go/vmtest/gobuild"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/guest/nixos"
	"nixos-go/vmtest/machine"
)

// nixosPatience bounds the lane: building the installer and the system fetches
// some gigabytes, and emulation is slow.
const nixosPatience = 3 * time.Hour

// A real NixOS: its own installer, the flake with its own inputs, the modules as
// they are. VM_GUEST=nixos asks for it.
func TestVM_NixOS(t *testing.T) {
	if os.Getenv("VM_GUEST") != "nixos" {
		t.Skip("installs a real NixOS, which needs nix, a network and most of an hour: VM_GUEST=nixos runs it")
	}
	if _, err := exec.LookPath("nix"); err != nil {
		t.Fatalf("VM_GUEST=nixos without nix: %v", err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), nixosPatience, errors.New("the NixOS lane has hung"))
	defer cancel()
	root, err := vmtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := vmtest.Dir(t)
	built := filepath.Join(dir, "installer")
	if err := nixos.Build(ctx, root, built); err != nil {
		t.Fatal(err)
	}
	spec, err := nixos.LiveSpec(built, vmtest.OVMF(t), "")
	if err != nil {
		t.Fatal(err)
	}
	guest := vmtest.New(t, spec)
	m := nixosMachine(t, ctx, guest, root, dir)
	if err := guest.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := nixos.Run(ctx, m, nixos.Install()); err != nil {
		t.Fatal(err)
	}
	if err := guest.Wait(ctx); err != nil {
		t.Fatal(err)
	}

	guest.Spec = nixos.Installed(guest.Spec)
	terminal := nixosBoot(t, ctx, guest, m)
	nixosShell(t, ctx, terminal, "set -- monday; mkdir -p ~admin/Documents"+day)
	nixosPowerOff(t, ctx, guest, terminal)

	terminal = nixosBoot(t, ctx, guest, m)
	for path, want := range map[string]string{
		"/etc/rogue.conf": "absent", "/home/admin/junk": "absent",
		"/home/admin/Documents/monday": "monday", "/.snapshots/@root/PREVIOUS/etc/rogue.conf": "monday",
	} {
		got := nixosShell(t, ctx, terminal, "if [ -e "+run.Quote(path)+" ]; then cat "+run.Quote(path)+"; else echo absent; fi")
		if strings.TrimSpace(got) != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	if report := nixosShell(t, ctx, terminal, "jq -r .mode /run/initrd-reset/report.json"); strings.TrimSpace(report) != "reset" {
		t.Errorf("mode of the reset = %q, want reset", report)
	}
	if failed := nixosShell(t, ctx, terminal, "systemctl list-units --failed --plain --no-legend"); strings.TrimSpace(failed) != "" {
		t.Errorf("failed units:\n%s", failed)
	}
	nixosPowerOff(t, ctx, guest, terminal)
}

// nixosMachine is what the steps of the lane work on.
func nixosMachine(t *testing.T, ctx context.Context, guest *machine.Machine, root, dir string) *nixos.Machine {
	t.Helper()
	key, err := guest.SSHKey()
	if err != nil {
		t.Fatal(err)
	}
	// The whole repository, since the flake builds the toolkit from it.
	archive, err := (&run.Local{}).Run(ctx, run.New("git", "-C", root, "archive", "--format=tar", "HEAD"))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "nixos-go")
	if err := gobuild.Build(ctx, "amd64", "nixos-go/tools/toolkit/cmd/nixos-go", program); err != nil {
		t.Fatal(err)
	}
	tools, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return &nixos.Machine{
		Console: guest,
		Connect: func(ctx context.Context) (nixos.Remote, error) {
			return nixos.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(guest.Port(22))), key.Signer)
		},
		Key: key.Authorized, Flake: archive.Stdout, Tools: tools,
		Host: "VM-TEST", Disk: "/dev/vda", Passphrase: full.Passphrase,
	}
}

func nixosBoot(t *testing.T, ctx context.Context, guest *machine.Machine, m *nixos.Machine) *nixos.Terminal {
	t.Helper()
	if err := guest.Start(ctx); err != nil {
		t.Fatal(err)
	}
	terminal, err := nixos.Login(ctx, m, full.Account)
	if err != nil {
		t.Fatal(err)
	}
	return terminal
}

func nixosShell(t *testing.T, ctx context.Context, terminal *nixos.Terminal, script string) string {
	t.Helper()
	out, err := terminal.Shell(ctx, script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func nixosPowerOff(t *testing.T, ctx context.Context, guest *machine.Machine, terminal *nixos.Terminal) {
	t.Helper()
	nixosShell(t, ctx, terminal, "systemctl --no-block poweroff")
	if err := guest.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}
