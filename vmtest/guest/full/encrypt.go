package full

import (
	"context"
	"crypto/aes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/crypto/xts"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/run"
)

// luksOffset is where the encrypted data begins in a LUKS partition, in bytes:
// cryptsetup's default for LUKS2.
const luksOffset = 16 << 20

// writeLUKS writes plain, an image of a file system, as a LUKS2 partition into
// disk at start: a header that cryptsetup makes for a key of ours, and the data
// as dm-crypt would have written it (aes-xts-plain64 over sectors of 512 bytes,
// numbered from 0). What the image has as a hole stays one; nothing there was
// ever written.
func writeLUKS(ctx context.Context, plain string, disk *os.File, start int64, uuid, passphrase string) error {
	work, err := os.MkdirTemp("", "luks-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	key := make([]byte, 64)
	_, _ = rand.Read(key) // never fails
	header, err := makeHeader(ctx, work, key, uuid, passphrase)
	if err != nil {
		return err
	}
	if err := copyData(header, io.NewOffsetWriter(disk, start), func([]byte, int64) {}); err != nil {
		return err
	}
	cipher, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return err
	}
	return copyData(plain, io.NewOffsetWriter(disk, start+luksOffset), func(b []byte, at int64) {
		for ; len(b) > 0; b, at = b[sectorSize:], at+sectorSize {
			cipher.Encrypt(b[:sectorSize], b[:sectorSize], uint64(at/sectorSize))
		}
	})
}

// makeHeader makes a file that begins with a LUKS2 header. The key is derived
// from the passphrase in no time at all, which is what a test wants.
func makeHeader(ctx context.Context, work string, key []byte, uuid, passphrase string) (string, error) {
	header, keyFile := filepath.Join(work, "header"), filepath.Join(work, "key")
	if err := errors.Join(os.WriteFile(header, nil, 0o600), os.Truncate(header, luksOffset+1<<20), os.WriteFile(keyFile, key, 0o600)); err != nil {
		return "", err
	}
	format := run.New("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--uuid", uuid,
		"--cipher", "aes-xts-plain64", "--key-size", "512", "--volume-key-file", keyFile,
		"--sector-size", "512", "--offset", strconv.Itoa(luksOffset/sectorSize),
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", header)
	format.Stdin = []byte(passphrase)
	if _, err := (&run.Local{}).Run(ctx, format); err != nil {
		return "", fmt.Errorf("LUKS header: %w", err)
	}
	return header, os.Truncate(header, luksOffset)
}

// copyData copies the parts of a file that are no holes, each changed on the
// way.
func copyData(name string, to io.WriterAt, change func(b []byte, at int64)) error {
	return copyRange(name, to, 0, math.MaxInt64, change)
}

// copyRange does so with a part of the file, to the same offsets.
func copyRange(name string, to io.WriterAt, start, stop int64, change func(b []byte, at int64)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for at := start; ; {
		begin, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || begin >= stop {
			return nil // no more data
		}
		if err != nil {
			return &os.PathError{Op: "seek", Path: name, Err: err}
		}
		end, err := unix.Seek(int(f.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return &os.PathError{Op: "seek", Path: name, Err: err}
		}
		for at, end = begin, min(end, stop); at < end; {
			b := buf[:min(int64(len(buf)), end-at)]
			if _, err := f.ReadAt(b, at); err != nil {
				return err
			}
			change(b, at)
			if _, err := to.WriteAt(b, at); err != nil {
				return err
			}
			at += int64(len(b))
		}
	}
}
