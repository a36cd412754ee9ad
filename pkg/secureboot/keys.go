package secureboot

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"nixos-go/pkg/run"
)

// Keys are the owner's own certificates, as sbctl makes them below its folder.
type Keys struct {
	PK, KEK, DB Certificate
}

// ErrNoKeys is a folder without keys.
var ErrNoKeys = errors.New("no Secure Boot keys yet")

// ReadKeys reads the certificates of a folder of sbctl's. The private keys
// beside them are not opened; that they are there is checked.
func ReadKeys(files run.Files, folder string) (Keys, error) {
	var keys Keys
	for _, k := range []struct {
		name string
		to   *Certificate
	}{{"PK", &keys.PK}, {"KEK", &keys.KEK}, {"db", &keys.DB}} {
		base := path.Join(folder, "keys", k.name, k.name)
		content, err := files.ReadFile(base + ".pem")
		if errors.Is(err, fs.ErrNotExist) {
			return Keys{}, fmt.Errorf("%s: %w", base+".pem", ErrNoKeys)
		}
		if err != nil {
			return Keys{}, err
		}
		if *k.to, err = LoadCertificate(content); err != nil {
			return Keys{}, fmt.Errorf("%s: %w", base+".pem", err)
		}
		if !files.Exists(base + ".key") {
			return Keys{}, fmt.Errorf("%s: %w", base+".key", ErrNoKeys)
		}
	}
	return keys, nil
}

func pemBlock(content []byte) []byte {
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			return nil
		}
		if block.Type == "CERTIFICATE" {
			return block.Bytes
		}
		content = rest
	}
}

// Enrolled tells whether the firmware has the owner's keys: all three, each in
// its place.
func (k Keys) Enrolled(s State) bool {
	return k.DB.X509 != nil && Has(s.PK, k.PK.X509) && Has(s.KEK, k.KEK.X509) && Has(s.DB, k.DB.X509)
}
