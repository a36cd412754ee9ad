package run

import (
	"bytes"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Redactor replaces registered secrets in text that leaves the process. Its
// zero value knows none; it may be used by several goroutines.
type Redactor struct {
	mu      sync.RWMutex
	secrets [][]byte
}

// redacted stands in the place of a secret.
const redacted = "[redacted]"

// shortest is the length in bytes from which a secret is replaced: a shorter
// one would occur in ordinary words.
const shortest = 4

// Add registers a copy of a secret. Empty and very short ones are left out.
func (r *Redactor) Add(secret []byte) {
	if r == nil || len(secret) < shortest {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, known := range r.secrets {
		if bytes.Equal(known, secret) {
			return
		}
	}
	r.secrets = append(r.secrets, bytes.Clone(secret))
}

// Text is text without the registered secrets.
func (r *Redactor) Text(text string) string {
	if r == nil {
		return text
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	b := []byte(text)
	for _, secret := range r.secrets {
		if bytes.Contains(b, secret) {
			b = bytes.ReplaceAll(b, secret, []byte(redacted))
		}
	}
	return string(b)
}

// Wipe forgets every secret and overwrites the copies.
func (r *Redactor) Wipe() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range r.secrets {
		Wipe(secret)
	}
	r.secrets = nil
}

// Wipe overwrites a secret in memory.
//
//go:noinline
func Wipe(secret []byte) {
	clear(secret)
}

// SecretFile is an anonymous file in memory that holds a secret, for
// [Command.ExtraFiles]; the program reads it as /proc/self/fd/3 (4, …). It has
// no name in any directory and is gone when the last descriptor is closed
// (memfd_create(2)).
func SecretFile(secret []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("secret", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // Linux before 6.3 does not know MFD_NOEXEC_SEAL
		fd, err = unix.MemfdCreate("secret", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "secret")
	if _, err := f.Write(secret); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("writing a secret to memory: %w", err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("rewinding a secret in memory: %w", err)
	}
	return f, nil
}
