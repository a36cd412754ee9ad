package nixos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// SSH is a connection to a guest.
type SSH struct {
	client *ssh.Client
}

// Dial connects as root as soon as the guest lets it. The host's key is not
// checked: the guest has just made it, and is behind a port of this machine.
func Dial(ctx context.Context, address string, key ssh.Signer) (*SSH, error) {
	config := &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // see above
		Timeout:         10 * time.Second,
	}
	var last error
	for {
		client, err := dialOnce(ctx, address, config)
		if err == nil {
			return &SSH{client: client}, nil
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("ssh %s: %w", address, errors.Join(context.Cause(ctx), last))
		case <-time.After(time.Second):
		}
	}
}

func dialOnce(ctx context.Context, address string, config *ssh.ClientConfig) (*ssh.Client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	// QEMU accepts for a guest that does not listen yet.
	if err := conn.SetDeadline(time.Now().Add(config.Timeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c, channels, requests, err := ssh.NewClientConn(conn, address, config)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ssh.NewClient(c, channels, requests), conn.SetDeadline(time.Time{})
}

// Run runs a command line of the guest's shell.
func (s *SSH) Run(ctx context.Context, command string, stdin io.Reader) (string, error) {
	session, err := s.client.NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	var stdout, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = stdin, &stdout, &stderr
	if err := session.Run(command); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return stdout.String(), fmt.Errorf("ssh: %s: %w\n%s", command, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Close ends the connection.
func (s *SSH) Close() error { return s.client.Close() }
