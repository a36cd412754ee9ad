// Package swtpm runs software TPMs for tests: the real protocol, through a
// socket, without root and without a kernel device.
package swtpm

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"nixos-go/pkg/testx/luksfile"
)

// TPM is a running software TPM.
type TPM struct {
	transport.TPMCloser

	// Socket is where it answers.
	Socket string

	tb testing.TB
}

// Start starts a TPM that has never been used; it ends with the test.
func Start(tb testing.TB) *TPM {
	tb.Helper()
	luksfile.Need(tb, "swtpm")
	// A socket's path is short (unix(7): 108 bytes); a test's folder need not be.
	dir, err := os.MkdirTemp("", "swtpm") //nolint:usetesting // see above
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	t := &TPM{Socket: filepath.Join(dir, "tpm"), tb: tb}
	process := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+t.Socket,
		// systemd's TPM library looks for the control socket under this name.
		"--ctrl", "type=unixio,path="+t.Socket+".ctrl",
		"--flags", "not-need-init,startup-clear")
	if err := process.Start(); err != nil {
		tb.Fatalf("swtpm: %v", err)
	}
	tb.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	t.await()
	if t.TPMCloser, err = linuxudstpm.Open(t.Socket); err != nil {
		tb.Fatalf("swtpm: %v", err)
	}
	return t
}

// await waits until the TPM answers: its socket is there before it listens.
func (t *TPM) await() {
	t.tb.Helper()
	for range 3000 {
		connection, err := net.Dial("unix", t.Socket)
		if err == nil {
			_ = connection.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.tb.Fatal("swtpm does not answer")
}

// Device names the TPM as systemd-cryptenroll's --tpm2-device takes it.
func (t *TPM) Device() string { return "swtpm:path=" + t.Socket }

// Open opens the TPM once more; closing it leaves this one open.
func (t *TPM) Open() (transport.TPMCloser, error) { return linuxudstpm.Open(t.Socket) }

// Extend extends a PCR of the SHA-256 bank, as firmware does.
func (t *TPM) Extend(pcr int, digest []byte) {
	t.tb.Helper()
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest}}},
	}.Execute(t)
	if err != nil {
		t.tb.Fatalf("extend PCR %d: %v", pcr, err)
	}
}

// Flush ends the sessions that programs have left behind, which is the work of
// the kernel's resource manager on a real machine.
func (t *TPM) Flush() {
	t.tb.Helper()
	const loadedSessions = 0x02000000 // TPM 2.0 Library, part 2, 7.3
	answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: loadedSessions, PropertyCount: 64}.Execute(t)
	if err != nil {
		t.tb.Fatalf("list the TPM's sessions: %v", err)
	}
	handles, err := answer.CapabilityData.Data.Handles()
	if err != nil {
		t.tb.Fatalf("list the TPM's sessions: %v", err)
	}
	for _, handle := range handles.Handle {
		if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(t); err != nil {
			t.tb.Fatalf("end session %#x: %v", handle, err)
		}
	}
}
