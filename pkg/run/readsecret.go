package run

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// longestSecret is the longest secret that is read from a file, in bytes.
const longestSecret = 4096

// ErrLongSecret is a file that is too long to hold a passphrase.
var ErrLongSecret = fmt.Errorf("longer than %d bytes", longestSecret)

// ReadSecret reads a passphrase from a file or a pipe (/dev/fd/3). One newline
// at its end, as editors and echo leave it, is no part of it. The caller wipes
// it; no other copy is left in memory.
func ReadSecret(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	buffer := make([]byte, longestSecret+2)
	n, err := io.ReadFull(file, buffer)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		Wipe(buffer)
		return nil, err
	}
	secret := bytes.TrimSuffix(buffer[:n], []byte("\n"))
	if len(secret) > longestSecret {
		Wipe(buffer)
		return nil, fmt.Errorf("%s: %w", name, ErrLongSecret)
	}
	return secret, nil
}
