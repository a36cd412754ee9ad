// Package passwd makes and checks the hash of an account's password, in this
// process: no program ever sees the password.
//
// Hashes are yescrypt with the cost that libxcrypt's crypt(5) and NixOS's
// mkpasswd use by default. Passwords are bytes that the caller wipes; nothing
// here keeps a copy. (The state of SHA-256 inside the library holds its last
// block, a short password whole, until the collector reuses that memory.)
package passwd

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-crypt/x/yescrypt"
)

// prefix is the method and its cost: N=4096, r=32, p=1, the default of
// crypt_gensalt(3).
const prefix = "$y$j9T$"

// saltSize is the salt's length in bytes.
const saltSize = 16

// longest is the longest password in bytes that crypt(3) takes
// (CRYPT_MAX_PASSPHRASE_SIZE in libxcrypt's crypt.h, less the final zero).
const longest = 511

// What a password, a hash or a shadow file can be wrong in.
var (
	ErrEmpty      = errors.New("the password is empty")
	ErrTooLong    = fmt.Errorf("the password is longer than %d bytes", longest)
	ErrControl    = errors.New("the password has a control character, which no login prompt lets through")
	ErrOtherHash  = errors.New("not a yescrypt hash")
	ErrNoAccount  = errors.New("no such account")
	errNotOneLine = errors.New("a hash file holds one line")
)

// Check tells whether a login prompt could ever take the password.
func Check(password []byte) error {
	switch {
	case len(password) == 0:
		return ErrEmpty
	case len(password) > longest:
		return ErrTooLong
	case bytes.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return ErrControl
	}
	return nil
}

// Hash is the hash of a password with a fresh salt, as /etc/shadow and NixOS's
// hashedPasswordFile hold it.
func Hash(password []byte) (string, error) {
	if err := Check(password); err != nil {
		return "", err
	}
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("salt: %w", err)
	}
	setting := append([]byte(prefix), yescrypt.Encode64(salt)...)
	hash, err := yescrypt.Hash(password, setting)
	if err != nil {
		return "", err
	}
	return string(hash), nil
}

// Verify tells whether a password has this hash. A hash of another method is
// [ErrOtherHash]; so is "!" or "*", which no password has.
func Verify(password []byte, hash string) (bool, error) {
	if !strings.HasPrefix(hash, "$y$") || strings.Count(hash, "$") != 4 {
		return false, ErrOtherHash
	}
	again, err := yescrypt.Hash(password, []byte(hash))
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrOtherHash, err)
	}
	return subtle.ConstantTimeCompare(again, []byte(hash)) == 1, nil
}

// ParseHashFile reads a hashedPasswordFile: one line.
func ParseHashFile(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return "", err
	}
	line := strings.TrimRight(string(text), "\n")
	if strings.ContainsAny(line, "\n:") || line == "" {
		return "", errNotOneLine
	}
	return line, nil
}

// ShadowHash is the hash of an account in a file of the form of shadow(5).
func ShadowHash(shadow io.Reader, account string) (string, error) {
	scanner := bufio.NewScanner(shadow)
	for scanner.Scan() {
		fields := strings.Split(scanner.Text(), ":")
		if len(fields) > 1 && fields[0] == account {
			return fields[1], nil
		}
	}
	if err := scanner.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("%s: %w", account, ErrNoAccount)
}
