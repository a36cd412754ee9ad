package functional

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
	"nixos-go/vmtest"
	"nixos-go/vmtest/debian"
	"nixos-go/vmtest/guest/full"
)

// lane is what all tests of this package share.
type lane struct {
	dir      string // goes with the process
	guest    full.Guest
	emulator full.Emulator
	tools    full.Toolbox
	units    map[string]string
	host     host
}

// host is what Nix makes of the machine that the tests install: hosts/x86_64/VM-TEST.nix.
type host struct {
	Plan     reset.PlanFile  `json:"plan"`
	Settings json.RawMessage `json:"settings"`
}

// shared is made by the first test that needs it.
var shared = sync.OnceValues(makeLane) //nolint:gochecknoglobals // once for the process

// setUpPatience bounds the making of the guest, which fetches packages where
// there is no cache.
const setUpPatience = 15 * time.Minute

func makeLane() (_ *lane, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpPatience)
	defer cancel()
	root, err := vmtest.Root()
	if err != nil {
		return nil, err
	}
	cache, err := vmtest.CacheDir()
	if err != nil {
		return nil, err
	}
	l := &lane{dir: workDir}
	if l.units, err = full.Units(root); err != nil {
		return nil, err
	}
	if l.host, err = evaluate(ctx, root); err != nil {
		return nil, err
	}
	plan, err := json.Marshal(l.host.Plan)
	if err != nil {
		return nil, err
	}
	packages := debian.Cache{Dir: filepath.Join(cache, "debian")}
	notice, err := full.NoticeProgram(root)
	if err != nil {
		return nil, err
	}
	system := full.System{
		Units: l.units, Programs: map[string]string{"immutability-notice": notice}, Plan: plan, Settings: l.host.Settings,
	}
	if l.guest, err = full.Build(ctx, packages, filepath.Join(cache, "full"), system); err != nil {
		return nil, err
	}
	if l.emulator, err = full.FetchEmulator(ctx, packages); err != nil {
		return nil, err
	}
	standins, err := readStandins(filepath.Join(root, "vmtest", "functional", "standins"))
	if err != nil {
		return nil, err
	}
	if err := l.writeSystem(ctx, plan); err != nil {
		return nil, err
	}
	l.tools, err = full.BuildToolbox(ctx, l.dir, standins)
	return l, err
}

// writeSystem writes what the stand-ins for nixos-install and nixos-rebuild
// install a boot loader from: kernel, initrd and command line of the host's
// generation, and a stub that stands in for lanzaboote's. That one has the kernel
// and the initrd in it, as systemd's stub wants, and says in lanzaboote's
// sections what it vouches for; so it boots, and the tools know it.
func (l *lane) writeSystem(ctx context.Context, plan []byte) error {
	dir := full.SystemFolder(l.dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	program, initrd := filepath.Join(l.dir, "initrd-reset"), filepath.Join(l.dir, "initrd.cpio")
	boot := full.Boot{Reset: program, Unit: l.units[full.ResetUnit], Plan: plan, Crypttab: unlockedByTPM}
	if err := errors.Join(full.BuildReset(ctx, program), l.guest.WriteInitrd(boot, initrd)); err != nil {
		return err
	}
	packed, err := full.Compress(ctx, initrd)
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile(l.guest.Kernel)
	if err != nil {
		return err
	}
	loader, err := os.ReadFile(filepath.Join(l.guest.Root, "usr/lib/systemd/boot/efi/systemd-bootx64.efi"))
	if err != nil {
		return err
	}
	kernelHash, initrdHash := sha256.Sum256(kernel), sha256.Sum256(packed)
	stub := full.UKI{
		Initrd: initrd, Cmdline: full.Cmdline(), Stub: full.RenameStub("lanzastub"),
		More: []full.Section{
			{Name: ".kernelh", Content: kernelHash[:]}, {Name: ".kernelp", Content: []byte(`\EFI\nixos\kernel.efi`)},
			{Name: ".initrdh", Content: initrdHash[:]}, {Name: ".initrdp", Content: []byte(`\EFI\nixos\initrd.zst`)},
		},
	}
	if err := l.guest.BuildUKI(ctx, stub, filepath.Join(dir, "stub.efi")); err != nil {
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

// unlockedByTPM are the options of crypttab(5) that the modules set for a
// machine with a TPM.
const unlockedByTPM = "luks,tpm2-device=auto,tpm2-measure-pcr=yes"

// evaluate asks Nix for the plan and the settings of the host.
func evaluate(ctx context.Context, root string) (host, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "nix", "nix.sh"), "eval", "--json", "--file", "nix/tests/hosts.nix", "VM-TEST")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return host{}, fmt.Errorf("evaluate the host VM-TEST: %w", err)
	}
	var h host
	return h, json.Unmarshal(out, &h)
}

// readStandins reads the programs that stand in for those of NixOS.
func readStandins(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	programs := map[string]string{}
	for _, entry := range entries {
		b, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		programs[entry.Name()] = string(b)
	}
	return programs, nil
}

var workDir string //nolint:gochecknoglobals // the folder of this process

func TestMain(m *testing.M) {
	os.Exit(runIn(m))
}

func runIn(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vm-functional-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	workDir = dir
	status := m.Run()
	if status != 0 {
		// The machines that were kept need the disk of tools.
		fmt.Fprintf(os.Stderr, "kept for the machines of the tests that failed: %s\n", dir)
		return status
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// need ends the test where the lane is not asked for or cannot run; else it is
// the lane.
func need(t *testing.T) *lane {
	t.Helper()
	if os.Getenv("VM") != "full" {
		t.Skip("boots whole machines, which takes minutes: VM=full runs it (just vm)")
	}
	if err := full.Check(); err != nil {
		testx.Unavailable(t, err.Error())
	}
	l, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return l
}
