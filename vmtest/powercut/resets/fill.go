package resets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// fillDisk leaves no space for data on a disk.
func fillDisk(mount string) error {
	top, err := os.Open(mount)
	if err != nil {
		return err
	}
	if err := errors.Join(btrfs.Create(top, "@full"), top.Close()); err != nil {
		return err
	}
	return fillData(filepath.Join(mount, "@full", "data"))
}

// fillMore leaves no space for metadata either, on a disk that is full of data, but
// for what btrfs holds back for itself.
func fillMore(mount string) error {
	// Attributes are metadata whatever their size, which is bounded by a leaf.
	value := make([]byte, 12_000)
	for size := len(value); size > 0; size /= 2 {
		if err := fillAttributes(filepath.Join(mount, "@full"), value[:size]); err != nil {
			return err
		}
	}
	return nil
}

// fillData allocates a file in ever smaller steps.
func fillData(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	size := int64(0)
	for step := int64(64 << 20); step >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, size, step); {
		case err == nil:
			size += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			return errors.Join(&os.PathError{Op: "allocate", Path: name, Err: err}, f.Close())
		}
	}
	return f.Close()
}

// fillAttributes makes files with an attribute until there is no space.
func fillAttributes(dir string, value []byte) error {
	const most = 100_000
	for i := range most {
		name := filepath.Join(dir, fmt.Sprintf("%d-%d", len(value), i))
		err := unix.Mkfifo(name, 0o600)
		if err == nil {
			err = unix.Setxattr(name, "trusted.fill", value, 0)
		}
		if errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "fill", Path: name, Err: err}
		}
	}
	return fmt.Errorf("%s: %d attributes of %d bytes and still space", dir, most, len(value))
}
