// Package secureboot reads what Secure Boot depends on: the firmware's
// variables and certificates, the signatures of the files on the EFI partition
// (ESP), and what lanzaboote's stubs point at. It answers whether the machine
// would boot under Secure Boot before anybody switches it on.
//
// Reading is done here, not by sbctl, whose work is making and enrolling keys.
// Files on the ESP are hostile input: a broken one is an error that names it,
// never a panic.
package secureboot

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf16"

	"nixos-go/pkg/run"
)

// Variables is where the kernel shows the firmware's variables (efivarfs).
const Variables = "/sys/firmware/efi/efivars"

// Namespaces of variables: the UEFI specification's, its security databases',
// and that of the Boot Loader Interface (systemd-boot and its stubs).
const (
	spaceGlobal   = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	spaceSecurity = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	spaceLoader   = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
)

// ErrNoUEFI is a machine that was not booted by UEFI.
var ErrNoUEFI = errors.New("this machine was not booted by UEFI, so there is no Secure Boot")

// State is what the firmware and the boot loader say.
type State struct {
	// SetupMode tells whether keys can be enrolled: no platform key is set.
	SetupMode bool `json:"setupMode"`
	// SecureBoot tells whether this boot was checked.
	SecureBoot bool `json:"secureBoot"`
	// PK, KEK and DB are the certificates in the firmware.
	PK  []Certificate `json:"pk"`
	KEK []Certificate `json:"kek"`
	DB  []Certificate `json:"db"`
	// Loader and Stub are the programs that booted the system, with versions.
	Loader string `json:"loader,omitempty"`
	Stub   string `json:"stub,omitempty"`
	// Entry is the boot menu's entry that was chosen.
	Entry string `json:"entry,omitempty"`
}

// Certificate is an X.509 certificate of the firmware.
type Certificate struct {
	Name string `json:"name"`
	// Fingerprint is the SHA-256 of the whole certificate.
	Fingerprint string `json:"fingerprint"`
	// Microsoft tells whether it is one of Microsoft's.
	Microsoft bool `json:"microsoft,omitempty"`

	X509 *x509.Certificate `json:"-"`
}

func newCertificate(c *x509.Certificate) Certificate {
	sum := sha256.Sum256(c.Raw)
	name := c.Subject.CommonName
	if name == "" {
		name = c.Subject.String()
	}
	return Certificate{
		Name: name, Fingerprint: hex.EncodeToString(sum[:]), X509: c,
		Microsoft: strings.Contains(c.Subject.String(), "Microsoft"),
	}
}

// Lanzaboote tells whether lanzaboote's stub booted the system.
func (s State) Lanzaboote() bool { return strings.HasPrefix(s.Stub, "lanzastub") }

// Has tells whether a certificate is in a list.
func Has(list []Certificate, c *x509.Certificate) bool {
	for _, other := range list {
		if other.X509 != nil && other.X509.Equal(c) {
			return true
		}
	}
	return false
}

// ReadState reads the firmware's variables. A variable that is not there is
// empty: a machine in setup mode has no PK.
func ReadState(files run.Files) (State, error) {
	var s State
	if !files.Exists(Variables) {
		return s, ErrNoUEFI
	}
	var err error
	if s.SetupMode, err = readBool(files, "SetupMode"); err != nil {
		return s, err
	}
	if s.SecureBoot, err = readBool(files, "SecureBoot"); err != nil {
		return s, err
	}
	if s.PK, err = readCertificates(files, "PK", spaceGlobal); err != nil {
		return s, err
	}
	if s.KEK, err = readCertificates(files, "KEK", spaceGlobal); err != nil {
		return s, err
	}
	if s.DB, err = readCertificates(files, "db", spaceSecurity); err != nil {
		return s, err
	}
	if s.Loader, err = readText(files, "LoaderInfo"); err != nil {
		return s, err
	}
	if s.Stub, err = readText(files, "StubInfo"); err != nil {
		return s, err
	}
	s.Entry, err = readText(files, "LoaderEntrySelected")
	return s, err
}

// read is a variable's content without its attributes (four bytes), nil where
// it does not exist.
func read(files run.Files, name, space string) ([]byte, error) {
	file := path.Join(Variables, name+"-"+space)
	data, err := files.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("EFI variable %s: %w", name, err)
	}
	const attributes = 4
	if len(data) < attributes {
		return nil, fmt.Errorf("EFI variable %s: only %d bytes", name, len(data))
	}
	return data[attributes:], nil
}

func readBool(files run.Files, name string) (bool, error) {
	data, err := read(files, name, spaceGlobal)
	if err != nil {
		return false, err
	}
	if len(data) > 1 {
		return false, fmt.Errorf("EFI variable %s: %d bytes, want 1", name, len(data))
	}
	return len(data) == 1 && data[0] == 1, nil
}

func readCertificates(files run.Files, name, space string) ([]Certificate, error) {
	data, err := read(files, name, space)
	if err != nil {
		return nil, err
	}
	certificates, err := ParseSignatureLists(data)
	if err != nil {
		return nil, fmt.Errorf("EFI variable %s: %w", name, err)
	}
	return certificates, nil
}

// readText reads a variable of the boot loader: UTF-16, ended by a zero.
func readText(files run.Files, name string) (string, error) {
	data, err := read(files, name, spaceLoader)
	if err != nil {
		return "", err
	}
	units := make([]uint16, 0, len(data)/2)
	for i := 0; i+1 < len(data); i += 2 {
		unit := uint16(data[i]) | uint16(data[i+1])<<8
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units)), nil
}
