package machine

import (
	"context"
	"errors"
	"os"
	"time"
)

// tpmCommand is the software TPM's command line. It ends when QEMU does, which
// is the one to connect.
func (m *Machine) tpmCommand() []string {
	return append(append([]string(nil), m.Spec.Programs.tpm()...), "socket", "--tpm2", "--terminate",
		"--tpmstate", "dir="+m.path(tpmDir)+",mode=0600",
		"--ctrl", "type=unixio,path="+tpmSock)
}

// startTPM starts the TPM and waits for its socket.
func (m *Machine) startTPM(ctx context.Context, detached bool) error {
	var err error
	if m.tpm, err = startProcess(m.tpmCommand(), m.Dir, tpmLog, detached); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, socketPatience, errors.New("the software TPM does not open its socket"))
	defer cancel()
	for {
		// Not by connecting: it serves one connection and ends with that.
		if _, err := os.Lstat(m.path(tpmSock)); err == nil {
			return nil
		}
		select {
		case <-m.tpm.ended:
			return errors.Join(errors.New("the software TPM does not start"), m.tpm.failure())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
