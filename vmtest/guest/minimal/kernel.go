package minimal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"nixos-go/pkg/atomicfile"
	"nixos-go/pkg/run"
)

// findKernel finds the kernel of an unpacked package. Of one for a PC it is the
// program inside the compressed image: QEMU starts that by PVH, which saves the
// guest from unpacking itself under emulation.
func findKernel(ctx context.Context, root string) (kernel, release string, err error) {
	found, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return "", "", err
	}
	if len(found) != 1 {
		return "", "", fmt.Errorf("%s: %d kernels, want one", root, len(found))
	}
	release = strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")
	image, err := os.ReadFile(found[0])
	if err != nil {
		return "", "", err
	}
	payload, err := pcPayload(image)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", found[0], err)
	}
	if payload == nil {
		return found[0], release, nil
	}
	plain := filepath.Join(root, "boot", "vmlinux-"+release)
	if _, err := os.Stat(plain); err == nil {
		return plain, release, nil
	}
	content, err := decompress(ctx, payload)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", found[0], err)
	}
	return plain, release, atomicfile.Write(plain, content, 0o644)
}

// pcPayload is the compressed program in a bzImage, nil where the image is
// something else. Format: Linux, Documentation/arch/x86/boot.rst.
func pcPayload(image []byte) ([]byte, error) {
	const (
		setupSects    = 0x1f1 // size of the setup code in sectors of 512 bytes, less one
		magic         = 0x202 // "HdrS"
		payloadOffset = 0x248 // from the end of the setup code
		payloadLength = 0x24c
	)
	if len(image) < payloadLength+4 || string(image[magic:magic+4]) != "HdrS" {
		return nil, nil
	}
	start := (int64(image[setupSects]) + 1) * 512
	start += int64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	length := int64(binary.LittleEndian.Uint32(image[payloadLength:]))
	// The last four bytes are the size of what it unpacks to.
	if length < 4 || start+length > int64(len(image)) {
		return nil, errors.New("a kernel image whose payload does not fit into it")
	}
	return image[start : start+length-4], nil
}

// decompress unpacks what the kernel's build packs with: LZ4 by itself, the rest
// by the programs that every distribution has.
func decompress(ctx context.Context, packed []byte) ([]byte, error) {
	if strings.HasPrefix(string(packed), lz4Magic) {
		return unpackLZ4(packed)
	}
	programs := []struct{ magic, program string }{
		{"\xfd7zXZ\x00", "xz"},
		{"\x28\xb5\x2f\xfd", "zstd"},
		{"\x1f\x8b", "gzip"},
	}
	for _, p := range programs {
		if !strings.HasPrefix(string(packed), p.magic) {
			continue
		}
		command := run.New(p.program, "-dc")
		command.Stdin = packed
		result, err := (&run.Local{}).Run(ctx, command)
		return result.Stdout, err
	}
	return nil, fmt.Errorf("packed in an unknown way: % x", packed[:min(6, len(packed))])
}
