package minimal

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"nixos-go/pkg/run"
)

// findKernel finds the kernel of an unpacked package.
//
// On a PC the program inside the image, started by PVH, would come up a second
// earlier under emulation. But QEMU's q35 then hands over no usable ACPI tables:
// one processor, no TPM. A test wants a whole machine.
func findKernel(root string) (kernel, release string, err error) {
	found, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return "", "", err
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("%s: %d kernels, want one", root, len(found))
	}
	return found[0], strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-"), nil
}

// decompress unpacks a module by the program that its name asks for.
func decompress(ctx context.Context, name string, packed []byte) ([]byte, error) {
	program := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(name)]
	if program == "" {
		return nil, fmt.Errorf("%s: packed in an unknown way", name)
	}
	command := run.New(program, "-dc")
	command.Stdin = packed
	result, err := (&run.Local{}).Run(ctx, command)
	return result.Stdout, err
}
