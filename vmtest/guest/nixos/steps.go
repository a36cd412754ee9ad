package nixos

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Console is a serial console: [machine.Machine] is one.
type Console interface {
	// Expect waits for a pattern after what was seen before.
	Expect(ctx context.Context, pattern string) ([]string, error)
	// Type sends text as if it was typed.
	Type(text string) error
}

// Remote runs programs in the guest: [SSH] does.
type Remote interface {
	// Run runs a command line of the guest's shell and returns what it prints.
	Run(ctx context.Context, command string, stdin io.Reader) (string, error)
}

// Machine is what the steps work on.
type Machine struct {
	Console Console
	// Connect opens the way into the live system, once its key is in place.
	Connect func(ctx context.Context) (Remote, error)
	// Key is the line for authorized_keys.
	Key string
	// Flake is the configuration as a tar archive, Tools the toolkit's program.
	Flake, Tools []byte
	// Host is the host to install, Disk where to.
	Host, Disk string
	// Passphrase becomes the disk's passphrase and the admin's password.
	Passphrase string

	remote Remote
}

// Step is one part of the lane.
type Step struct {
	Name string
	Do   func(ctx context.Context, m *Machine) error
}

// The prompts that the steps wait for.
const (
	livePrompt = `\[nixos@nixos:~\]\$ `
	diskPrompt = `(?i)please enter passphrase(?: or recovery key)? for disk[^\n]*`
	loginText  = `login: `
	passText   = `(?i)password: `
)

// Install are the steps from the start of the live system to its end, with the
// host on the disk.
func Install() []Step {
	return []Step{
		{"live system", waitLive},
		{"key", putKey},
		{"connect", connect},
		{"flake", putFlake},
		{"toolkit", putTools},
		{"install", install},
		{"unmount", unmount},
		{"power off", powerOff},
	}
}

// Run does steps in order; an error names the step.
func Run(ctx context.Context, m *Machine, steps []Step) error {
	for _, step := range steps {
		if err := step.Do(ctx, m); err != nil {
			return fmt.Errorf("NixOS lane: %s: %w", step.Name, err)
		}
	}
	return nil
}

// waitLive waits for the shell that the installer opens on the console.
func waitLive(ctx context.Context, m *Machine) error {
	_, err := m.Console.Expect(ctx, livePrompt)
	return err
}

// putKey lets ssh in, by the only way there is so far.
func putKey(ctx context.Context, m *Machine) error {
	// The mark is put together by the shell, so that the echo of what is typed is
	// not taken for it.
	line := "sudo sh -c 'mkdir -p -m 0700 /root/.ssh && echo \"" + m.Key + "\" > /root/.ssh/authorized_keys' && echo key-is-in-\"place\"\n"
	if err := m.Console.Type(line); err != nil {
		return err
	}
	_, err := m.Console.Expect(ctx, `(?m)^key-is-in-place`)
	return err
}

func connect(ctx context.Context, m *Machine) (err error) {
	m.remote, err = m.Connect(ctx)
	return err
}

func putFlake(ctx context.Context, m *Machine) error {
	_, err := m.remote.Run(ctx, "mkdir -p /root/flake && tar -C /root/flake -xf - && cd /root/flake && git init -q && git add -A && "+
		"git -c user.name=vm -c user.email=vm@example.org commit -q -m configuration", bytes.NewReader(m.Flake))
	return err
}

func putTools(ctx context.Context, m *Machine) error {
	_, err := m.remote.Run(ctx, "mkdir -p /root/bin && cat > /root/bin/nixos-install-go && chmod 0755 /root/bin/nixos-install-go",
		bytes.NewReader(m.Tools))
	return err
}

// install runs the installer, with the passphrase in a file that is root's alone.
func install(ctx context.Context, m *Machine) error {
	if _, err := m.remote.Run(ctx, "umask 077 && cat > /root/passphrase", strings.NewReader(m.Passphrase+"\n")); err != nil {
		return err
	}
	out, err := m.remote.Run(ctx, fmt.Sprintf(
		"/root/bin/nixos-install-go --flake /root/flake --host %s --yes --disk %s --password-file /root/passphrase 2>&1", m.Host, m.Disk), nil)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if !strings.Contains(out, "the installation is complete") {
		return fmt.Errorf("nixos-install-go ended well, but does not say that it is complete:\n%s", out)
	}
	return nil
}

func unmount(ctx context.Context, m *Machine) error {
	_, err := m.remote.Run(ctx, "umount --recursive /mnt && cryptsetup close root && sync", nil)
	return err
}

func powerOff(ctx context.Context, m *Machine) error {
	// The connection ends with the machine.
	_, err := m.remote.Run(ctx, "systemctl --no-block poweroff", nil)
	return err
}

// Login opens the disk and logs in at the console of the installed machine.
func Login(ctx context.Context, m *Machine, user string) (*Terminal, error) {
	dialogue := []struct{ wait, answer string }{
		{diskPrompt, m.Passphrase}, {loginText, user}, {passText, m.Passphrase},
	}
	for _, part := range dialogue {
		if _, err := m.Console.Expect(ctx, part.wait); err != nil {
			return nil, err
		}
		if err := m.Console.Type(part.answer + "\n"); err != nil {
			return nil, err
		}
	}
	if _, err := m.Console.Expect(ctx, `\$ `); err != nil {
		return nil, err
	}
	t := &Terminal{console: m.Console}
	// From here on as root, without an echo, and with nothing that a terminal
	// would show beside what programs print.
	if err := m.Console.Type("exec sudo -S -p 'sudo-password: ' env PS1= TERM=dumb sh\n"); err != nil {
		return nil, err
	}
	if _, err := m.Console.Expect(ctx, `(?m)^sudo-password: `); err != nil {
		return nil, err
	}
	if err := m.Console.Type(m.Passphrase + "\n"); err != nil {
		return nil, err
	}
	_, err := t.Shell(ctx, "stty -echo")
	return t, err
}

// Terminal is a root shell on a console.
type Terminal struct {
	console Console
	calls   int
}

// ExitError is a script that has failed.
type ExitError struct {
	Status, Output string
}

// Error shows the end of the output.
func (e *ExitError) Error() string {
	return fmt.Sprintf("the script ended with status %s:\n%s", e.Status, e.Output)
}

// Shell runs a script and returns what it prints.
func (t *Terminal) Shell(ctx context.Context, script string) (string, error) {
	t.calls++
	mark := fmt.Sprintf("%d-done", t.calls)
	// Quoted in two parts, for the same reason as above.
	line := "(" + script + "\n); echo \"begin-of-\"" + mark + "-$?\n"
	if err := t.console.Type(line); err != nil {
		return "", err
	}
	groups, err := t.console.Expect(ctx, `(?s)(.*?)begin-of-`+regexp.QuoteMeta(mark)+`-(\d+)`)
	if err != nil {
		return "", err
	}
	if groups[2] != "0" {
		return groups[1], &ExitError{Status: groups[2], Output: groups[1]}
	}
	return groups[1], nil
}
