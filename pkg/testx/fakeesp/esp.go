package fakeesp

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ESP is a folder that looks like a mounted EFI partition.
type ESP struct {
	tb  T
	Dir string
}

// New is an ESP in a folder.
func New(tb T, dir string) *ESP {
	tb.Helper()
	return &ESP{tb: tb, Dir: dir}
}

// Write writes a file.
func (e *ESP) Write(name string, content []byte) {
	e.tb.Helper()
	name = filepath.Join(e.Dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		e.tb.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		e.tb.Fatal(err)
	}
}

// bootLoader stands for systemd-boot.
func bootLoader() []byte {
	return Image(Section{".text", []byte("systemd-boot")}, Section{".sbat", []byte("sbat,1\n")})
}

// Standard installs systemd-boot with generations, as NixOS does without
// Secure Boot.
func (e *ESP) Standard(generations ...int) {
	e.tb.Helper()
	e.Write("EFI/systemd/systemd-bootx64.efi", bootLoader())
	e.Write("EFI/BOOT/BOOTX64.EFI", bootLoader())
	e.Write("loader/loader.conf", []byte("timeout 3\n"))
	for _, n := range generations {
		kernel, initrd := "EFI/nixos/abc-linux-6.12-bzImage.efi", fmt.Sprintf("EFI/nixos/%d-initrd-linux-6.12-initrd.efi", n)
		e.Write(kernel, Image(Section{".text", []byte("linux")}))
		e.Write(initrd, fmt.Appendf(nil, "initrd %d", n))
		e.Write(fmt.Sprintf("loader/entries/nixos-generation-%d.conf", n),
			fmt.Appendf(nil, "title NixOS\nversion Generation %d\nlinux /%s\ninitrd /%s\noptions init=/nix/store/x\n", n, kernel, initrd))
	}
}

// Lanzaboote installs systemd-boot and stubs of generations, signed by a key.
func (e *ESP) Lanzaboote(key Key, generations ...int) {
	e.tb.Helper()
	signed := key.Sign(e.tb, bootLoader())
	e.Write("EFI/systemd/systemd-bootx64.efi", signed)
	e.Write("EFI/BOOT/BOOTX64.EFI", signed)
	e.Write("loader/loader.conf", []byte("timeout 3\n"))
	for _, n := range generations {
		kernel, initrd := Image(Section{".text", []byte("linux")}), fmt.Appendf(nil, "initrd %d", n)
		kernelName, initrdName := "EFI/nixos/kernel-6.12-abcd.efi", fmt.Sprintf("EFI/nixos/initrd-6.12-%d.efi", n)
		e.Write(kernelName, kernel)
		e.Write(initrdName, initrd)
		e.Write(StubName(n), key.Sign(e.tb, Stub(kernelName, initrdName, kernel, initrd)))
	}
}

// StubName is where lanzaboote puts the stub of a generation.
func StubName(generation int) string {
	return fmt.Sprintf("EFI/Linux/nixos-generation-%d-abcdefgh.efi", generation)
}

// Stub is a stub of lanzaboote, unsigned.
func Stub(kernelName, initrdName string, kernel, initrd []byte) []byte {
	kernelHash, initrdHash := sha256.Sum256(kernel), sha256.Sum256(initrd)
	path := func(name string) []byte { return []byte(`\` + strings.ReplaceAll(name, "/", `\`)) }
	return Image(
		Section{".text", []byte("stub")},
		Section{".osrel", []byte("ID=nixos\n")}, Section{".cmdline", []byte("init=/nix/store/x")},
		Section{".initrd", path(initrdName)}, Section{".linux", path(kernelName)},
		Section{".initrdh", initrdHash[:]}, Section{".linuxh", kernelHash[:]},
	)
}
