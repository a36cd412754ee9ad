package machine

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"nixos-go/pkg/atomicfile"
)

// sshKeyFile is the private key in a machine's folder.
const sshKeyFile = "ssh_key"

// SSHKey is what opens a machine's ssh.
type SSHKey struct {
	// File is the private key, for ssh -i.
	File string
	// Signer is the same key.
	Signer ssh.Signer
	// Authorized is its line in authorized_keys(5).
	Authorized string
}

// SSHKey is the machine's own key, which nothing else has: the first call makes
// it, in the machine's folder, readable by its owner alone. The guest has to be
// told of it.
func (m *Machine) SSHKey() (SSHKey, error) {
	key := SSHKey{File: m.path(sshKeyFile)}
	text, err := os.ReadFile(key.File)
	if errors.Is(err, os.ErrNotExist) {
		text, err = makeSSHKey(key.File, m.Spec.Name)
	}
	if err != nil {
		return SSHKey{}, err
	}
	if key.Signer, err = ssh.ParsePrivateKey(text); err != nil {
		return SSHKey{}, fmt.Errorf("%s: %w", key.File, err)
	}
	key.Authorized = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.Signer.PublicKey())))
	return key, nil
}

func makeSSHKey(file, comment string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	return text, atomicfile.Write(file, text, 0o600)
}
