package machine

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
)

// A machine's key is made once, for nobody else's eyes and for no other machine.
func TestSSHKey(t *testing.T) {
	m := &Machine{Spec: Spec{Name: "one"}, Dir: t.TempDir()}
	first, err := m.SSHKey()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(first.File)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode of the key = %v, want 0600", got)
	}
	again, err := m.SSHKey()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.Authorized, again.Authorized); diff != "" {
		t.Errorf("the key at the second call (-first +second):\n%s", diff)
	}
	if want := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(first.Signer.PublicKey()))); strings.TrimSpace(first.Authorized) != want {
		t.Errorf("the line of authorized_keys = %q, want that of the key, %q", first.Authorized, want)
	}
	other, err := (&Machine{Spec: Spec{Name: "two"}, Dir: t.TempDir()}).SSHKey()
	if err != nil {
		t.Fatal(err)
	}
	if other.Authorized == first.Authorized {
		t.Error("two machines have one key")
	}
}

// A key that was damaged is an error that names the file, not a reason to make
// another one that the guest does not know.
func TestSSHKeyDamaged(t *testing.T) {
	m := &Machine{Dir: t.TempDir()}
	if err := os.WriteFile(m.path(sshKeyFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.SSHKey(); err == nil || !strings.Contains(err.Error(), sshKeyFile) {
		t.Errorf("SSHKey of a damaged file = %v, want an error that names it", err)
	}
}
