package full

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/run"
)

// BuildESP makes the image of an EFI partition with files: names in it, such as
// EFI/BOOT/BOOTX64.EFI, to files of the host.
func BuildESP(ctx context.Context, image string, files map[string]string) error {
	if err := os.Remove(image); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, espSize); err != nil {
		return err
	}
	if err := mtools(ctx, "mformat", image, "-F", "-v", "ESP", "::"); err != nil {
		return err
	}
	made := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := makeFolders(ctx, image, path.Dir(name), made); err != nil {
			return err
		}
		if err := mtools(ctx, "mcopy", image, files[name], "::/"+name); err != nil {
			return err
		}
	}
	return nil
}

func makeFolders(ctx context.Context, image, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := makeFolders(ctx, image, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return mtools(ctx, "mmd", image, "::/"+dir)
}

func mtools(ctx context.Context, program, image string, args ...string) error {
	command := run.New(program, append([]string{"-i", image}, args...)...)
	if _, err := (&run.Local{}).Run(ctx, command); err != nil {
		return fmt.Errorf("EFI partition: %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
