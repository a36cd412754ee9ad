// Package host makes the machine hosts/x86_64/VM-TEST.nix on the full guest: its
// plan and settings as Nix evaluates them, its units as the modules render them,
// the project's own programs, and stand-ins for what NixOS would bring: nix,
// disko, nixos-install, nixos-rebuild and sbctl, with the arguments that the
// tools give them.
package host

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nixos-go/pkg/reset"
	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/guest/full"
	"nixos-go/vmtest/machine"
)

// Host is what machines of this host are made from.
type Host struct {
	// Dir holds what was made for this process; it has to last as long as the
	// machines.
	Dir      string
	Guest    full.Guest
	Emulator full.Emulator
	Tools    full.Toolbox
	// Units are the units of the modules, names to texts.
	Units map[string]string
	// Plan and Settings are those of the host.
	Plan     reset.PlanFile
	Settings json.RawMessage
}

//go:embed standins
var standins embed.FS

// Build makes all of it. project is the project's folder, cache the folder of
// what outlives the process, dir that of what does not.
func Build(ctx context.Context, project, cache, dir string) (*Host, error) {
	h := &Host{Dir: dir}
	var err error
	if h.Units, err = full.Units(project); err != nil {
		return nil, err
	}
	e, err := evaluate(ctx, project)
	if err != nil {
		return nil, err
	}
	h.Plan, h.Settings = e.Plan, e.Settings
	plan, err := json.Marshal(h.Plan)
	if err != nil {
		return nil, err
	}
	notice, err := full.NoticeProgram(project)
	if err != nil {
		return nil, err
	}
	packages := debian.Cache{Dir: filepath.Join(cache, "debian")}
	system := full.System{
		Units: h.Units, Programs: map[string]string{"immutability-notice": notice}, Plan: plan, Settings: h.Settings,
	}
	if h.Guest, err = full.Build(ctx, packages, filepath.Join(cache, "full"), system); err != nil {
		return nil, err
	}
	if h.Emulator, err = full.FetchEmulator(ctx, packages); err != nil {
		return nil, err
	}
	if err := h.writeSystem(ctx, plan); err != nil {
		return nil, err
	}
	programs, err := readStandins()
	if err != nil {
		return nil, err
	}
	h.Tools, err = full.BuildToolbox(ctx, dir, programs)
	return h, err
}

// Boot is the first generation of the host.
func (h *Host) Boot() full.Boot {
	return full.Boot{Reset: h.Tools.Reset, Unit: h.Units[full.ResetUnit]}
}

// Spec is a machine of the host that QEMU starts directly, with an initrd of
// [full.Guest.WriteInitrd].
func (h *Host) Spec(name, initrd string) machine.Spec {
	spec := h.Guest.Spec(name, initrd, h.Tools)
	spec.Programs = h.Emulator.Programs
	return spec
}

func readStandins() (map[string]string, error) {
	entries, err := standins.ReadDir("standins")
	if err != nil {
		return nil, err
	}
	programs := map[string]string{}
	for _, entry := range entries {
		b, err := standins.ReadFile("standins/" + entry.Name())
		if err != nil {
			return nil, err
		}
		programs[entry.Name()] = string(b)
	}
	return programs, nil
}

// evaluated is what Nix makes of the host.
type evaluated struct {
	Plan     reset.PlanFile  `json:"plan"`
	Settings json.RawMessage `json:"settings"`
}

// evaluate asks Nix for the plan and the settings of the host.
func evaluate(ctx context.Context, root string) (evaluated, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "nix", "nix.sh"), "eval", "--json", "--file", "nix/tests/hosts.nix", "VM-TEST")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return evaluated{}, fmt.Errorf("evaluate the host VM-TEST: %w", err)
	}
	var e evaluated
	return e, json.Unmarshal(out, &e)
}

// writeSystem writes what the stand-ins for nixos-install and nixos-rebuild
// install a boot loader from: kernel, initrd and command line of the host's
// generation, and a stub that stands in for lanzaboote's. That one has the kernel
// and the initrd in it, as systemd's stub wants, and says in lanzaboote's
// sections what it vouches for; so it boots, and the tools know it.
func (h *Host) writeSystem(ctx context.Context, plan []byte) error {
	dir := full.SystemFolder(h.Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	program, initrd := filepath.Join(h.Dir, "initrd-reset"), filepath.Join(h.Dir, "initrd.cpio")
	boot := full.Boot{Reset: program, Unit: h.Units[full.ResetUnit], Plan: plan, Crypttab: UnlockedByTPM}
	if err := errors.Join(full.BuildReset(ctx, program), h.Guest.WriteInitrd(boot, initrd)); err != nil {
		return err
	}
	packed, err := full.Compress(ctx, initrd)
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile(h.Guest.Kernel)
	if err != nil {
		return err
	}
	loader, err := os.ReadFile(filepath.Join(h.Guest.Root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi"))
	if err != nil {
		return err
	}
	kernelHash, initrdHash := sha256.Sum256(kernel), sha256.Sum256(packed)
	stub := full.UKI{
		Initrd: initrd, Cmdline: full.Cmdline(), Stub: full.RenameStub("lanzastub"),
		More: []full.Section{
			{Name: ".kernelh", Content: kernelHash[:]},
			{Name: ".kernelp", Content: []byte(`\EFI\nixos\kernel.efi`)},
			{Name: ".initrdh", Content: initrdHash[:]},
			{Name: ".initrdp", Content: []byte(`\EFI\nixos\initrd.zst`)},
		},
	}
	if err := h.Guest.BuildUKI(ctx, stub, filepath.Join(dir, "stub.efi")); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"kernel.efi": kernel, "initrd.zst": packed, "systemd-boot.efi": loader,
		"cmdline": []byte(strings.Join(full.Cmdline(), " ")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// UnlockedByTPM are the options of crypttab(5) that the modules set for a
// machine with a TPM.
const UnlockedByTPM = "luks,tpm2-device=auto,tpm2-measure-pcr=yes"
