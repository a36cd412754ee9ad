package full

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nixos-go/pkg/run"
	"nixos-go/vmtest/gobuild"
)

// ToolsDisk is the id of the disk with the project's programs. They are not in
// the image, so that a change of theirs does not make it anew.
const ToolsDisk = "tools"

// Tools are the names that the toolkit's program has links for.
func Tools() []string {
	return []string{
		"nixos-install-go", "nixos-update", "nixos-diff", "nixos-eval", "nixos-snapshot", "nixos-secure-boot", "nixos-tpm2",
		"nixos-change-password", "nixos-fix-permissions", "gpu-vfio",
	}
}

// Toolbox are the project's programs, built for the guest.
type Toolbox struct {
	// Reset is initrd-reset.
	Reset string
	// Disk is the image of the disk of tools.
	Disk string
}

// BuildToolbox builds the programs into a folder. extra are further
// executables for the PATH of the guest, names to contents: stand-ins, for the
// most part. What is below system in the folder already is on the disk too.
func BuildToolbox(ctx context.Context, dir string, extra map[string]string) (Toolbox, error) {
	content := filepath.Join(dir, "tools")
	bin := filepath.Join(content, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return Toolbox{}, err
	}
	if err := os.MkdirAll(filepath.Join(content, "system"), 0o755); err != nil {
		return Toolbox{}, err
	}
	p := Toolbox{Reset: filepath.Join(bin, "initrd-reset"), Disk: filepath.Join(dir, "tools.ext4")}
	err := errors.Join(
		BuildReset(ctx, p.Reset),
		gobuild.Build(ctx, arch, "nixos-go/tools/toolkit/cmd/nixos-go", filepath.Join(bin, "nixos-go")),
		gobuild.Build(ctx, arch, "nixos-go/vmtest/agent/cmd/vm-agent", filepath.Join(content, "vm-agent")))
	for _, name := range Tools() {
		err = errors.Join(err, replaceLink(filepath.Join(bin, name), "nixos-go"))
	}
	for name, text := range extra {
		err = errors.Join(err, os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755))
	}
	if err != nil {
		return Toolbox{}, err
	}
	if err := os.RemoveAll(p.Disk); err != nil {
		return Toolbox{}, err
	}
	mkfs := run.New("mke2fs", "-q", "-t", "ext4", "-d", content, "-E", "root_owner=0:0", p.Disk, "192M")
	if _, err := (&run.Local{}).Run(ctx, mkfs); err != nil {
		return Toolbox{}, fmt.Errorf("disk of tools: %w", err)
	}
	return p, nil
}

// BuildReset builds initrd-reset into a file.
func BuildReset(ctx context.Context, out string) error {
	return gobuild.Build(ctx, arch, "nixos-go/initrd-reset", out)
}

// SystemFolder is where a folder for [BuildToolbox] has what a boot loader is
// installed from.
func SystemFolder(dir string) string { return filepath.Join(dir, "tools", "system") }
