package fakeesp

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/foxboron/go-uefi/authenticode"
)

// Key is a private key and its certificate.
type Key struct {
	Private     *rsa.PrivateKey
	Certificate *x509.Certificate
}

// Keys are those of an owner, of Microsoft, and of a stranger.
type Keys struct {
	PK, KEK, DB, Microsoft, Stranger Key
}

// TestKeys are made once for all tests of a process: they take a while.
var TestKeys = sync.OnceValue(func() Keys {
	return Keys{
		PK: newKey("Platform Key", "owner"), KEK: newKey("Key Exchange Key", "owner"), DB: newKey("Database Key", "owner"),
		Microsoft: newKey("Microsoft Corporation UEFI CA 2011", "Microsoft Corporation"), Stranger: newKey("Stranger", "stranger"),
	}
})

func newKey(name, organization string) Key {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name, Organization: []string{organization}},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return Key{Private: private, Certificate: certificate}
}

// PEM is the certificate in PEM.
func (k Key) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate.Raw})
}

// PrivatePEM is the private key in PEM.
func (k Key) PrivatePEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Sign is a signed copy of an EFI program.
func (k Key) Sign(tb T, image []byte) []byte {
	tb.Helper()
	parsed, err := authenticode.Parse(bytes.NewReader(image))
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := parsed.Sign(k.Private, k.Certificate); err != nil {
		tb.Fatal(err)
	}
	return parsed.Bytes()
}

// Save writes the owner's keys to a folder as sbctl create-keys does.
func (k *Keys) Save(folder string) error {
	for name, key := range map[string]Key{"PK": k.PK, "KEK": k.KEK, "db": k.DB} {
		to := filepath.Join(folder, "keys", name)
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name+".pem"), key.PEM(), 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name+".key"), key.PrivatePEM(), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "GUID"), []byte("8a4d2e1c-9a3b-4c55-b0e7-3f5d0c6b1a2f"), 0o600)
}

// all are the keys by name.
func (k *Keys) all() map[string]*Key {
	return map[string]*Key{"PK": &k.PK, "KEK": &k.KEK, "db": &k.DB, "microsoft": &k.Microsoft, "stranger": &k.Stranger}
}

// Store writes every key to a folder, for another process of the same test.
func (k *Keys) Store(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for name, key := range k.all() {
		if err := os.WriteFile(filepath.Join(folder, name), append(key.PEM(), key.PrivatePEM()...), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// LoadKeys reads what Store wrote.
func LoadKeys(folder string) (Keys, error) {
	var k Keys
	for name, key := range k.all() {
		content, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return k, err
		}
		certificate, rest := pem.Decode(content)
		private, _ := pem.Decode(rest)
		if certificate == nil || private == nil {
			return k, os.ErrInvalid
		}
		if key.Certificate, err = x509.ParseCertificate(certificate.Bytes); err != nil {
			return k, err
		}
		parsed, err := x509.ParsePKCS8PrivateKey(private.Bytes)
		if err != nil {
			return k, err
		}
		rsaKey, ok := parsed.(*rsa.PrivateKey)
		if !ok {
			return k, os.ErrInvalid
		}
		key.Private = rsaKey
	}
	return k, nil
}
