package nixos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"nixos-go/vmtest/machine"
)

// scripted is a console whose dialogue was written down: it shows what comes
// before the next thing to be typed, and wants that to be the very thing.
type scripted struct {
	parts []txtar.File
	seen  string // shown and not yet matched
}

func load(t *testing.T, name string) *scripted {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return &scripted{parts: archive.Files}
}

func (s *scripted) show() {
	for len(s.parts) > 0 && s.parts[0].Name == "out" {
		// A prompt has no line end; txtar adds one.
		s.seen += strings.TrimSuffix(string(s.parts[0].Data), "\n")
		s.parts = s.parts[1:]
	}
}

func (s *scripted) Expect(_ context.Context, pattern string) ([]string, error) {
	s.show()
	expression := regexp.MustCompile(pattern)
	at := expression.FindStringSubmatchIndex(s.seen)
	if at == nil {
		return nil, fmt.Errorf("%q would never come; there is: %q", pattern, s.seen)
	}
	groups := expression.FindStringSubmatch(s.seen)
	s.seen = s.seen[at[1]:]
	return groups, nil
}

func (s *scripted) Type(text string) error {
	s.show()
	if len(s.parts) == 0 {
		return fmt.Errorf("typed %q, where nothing is to be typed", text)
	}
	if want := string(s.parts[0].Data); text != want {
		return fmt.Errorf("typed %q, want %q", text, want)
	}
	s.parts = s.parts[1:]
	return nil
}

// recorded is a guest that writes down what runs.
type recorded struct {
	calls []string
	// fail is the beginning of a command that fails.
	fail string
}

func (r *recorded) Run(_ context.Context, command string, stdin io.Reader) (string, error) {
	line := command
	if stdin != nil {
		input, err := io.ReadAll(stdin)
		if err != nil {
			return "", err
		}
		line += " < " + string(input)
	}
	r.calls = append(r.calls, line)
	if r.fail != "" && strings.HasPrefix(command, r.fail) {
		return "error: no space left", errors.New("status 1")
	}
	if strings.Contains(command, "nixos-install-go --flake") {
		return "ok: the installation is complete\n", nil
	}
	return "", nil
}

func newMachine(console Console, remote Remote) *Machine {
	return &Machine{
		Console: console, Connect: func(context.Context) (Remote, error) { return remote, nil },
		Key: "ssh-ed25519 AAAATEST", Flake: []byte("FLAKE"), Tools: []byte("TOOLS"),
		Host: "VM-TEST", Disk: "/dev/vda", Passphrase: "correct horse battery staple",
	}
}

func TestInstall(t *testing.T) {
	console, remote := load(t, "live.txtar"), &recorded{}
	if err := Run(t.Context(), newMachine(console, remote), Install()); err != nil {
		t.Fatal(err)
	}
	if len(console.parts) > 0 {
		t.Errorf("%d parts of the dialogue were not reached", len(console.parts))
	}
	want := []string{
		"mkdir -p /root/flake && tar -C /root/flake -xf - && cd /root/flake && git init -q && git add -A && " +
			"git -c user.name=vm -c user.email=vm@example.org commit -q -m configuration < FLAKE",
		"mkdir -p /root/bin && cat > /root/bin/nixos-install-go && chmod 0755 /root/bin/nixos-install-go < TOOLS",
		"umask 077 && cat > /root/passphrase < correct horse battery staple\n",
		"/root/bin/nixos-install-go --flake /root/flake --host VM-TEST --yes --disk /dev/vda --password-file /root/passphrase 2>&1",
		"umount --recursive /mnt && cryptsetup close root && sync",
		"systemctl --no-block poweroff",
	}
	if diff := cmp.Diff(want, remote.calls); diff != "" {
		t.Errorf("what ran in the live system (-want +got):\n%s", diff)
	}
}

// A step that fails is named, with what the program said, and ends the lane.
func TestInstallFails(t *testing.T) {
	remote := &recorded{fail: "/root/bin/nixos-install-go"}
	err := Run(t.Context(), newMachine(load(t, "live.txtar"), remote), Install())
	if err == nil || !strings.Contains(err.Error(), "install: status 1") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Run = %v, want an error that names the step and shows the output", err)
	}
	if last := remote.calls[len(remote.calls)-1]; !strings.Contains(last, "nixos-install-go") {
		t.Errorf("after the failure ran %q", last)
	}
}

func TestLogin(t *testing.T) {
	console := load(t, "installed.txtar")
	m := newMachine(console, nil)
	terminal, err := Login(t.Context(), m, "admin")
	if err != nil {
		t.Fatal(err)
	}
	out, err := terminal.Shell(t.Context(), "cat /run/initrd-reset/report.json")
	if want := "{\"version\":1,\"mode\":\"reset\"}\n"; err != nil || strings.TrimLeft(out, "\n") != want {
		t.Errorf("Shell = %q, %v, want %q", out, err, want)
	}
	_, err = terminal.Shell(t.Context(), "false")
	exit, ok := errors.AsType[*ExitError](err)
	if !ok || exit.Status != "1" {
		t.Errorf("Shell(false) = %v, want status 1", err)
	}
}

// A machine that does not ask for the passphrase is told from one that does.
func TestLoginWithoutPrompt(t *testing.T) {
	if _, err := Login(t.Context(), newMachine(load(t, "live.txtar"), nil), "admin"); err == nil {
		t.Error("Login went on without a prompt for the passphrase")
	}
}

func TestSpec(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cmdline"), []byte("init=/nix/store/x/init console=ttyS0,115200\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := LiveSpec(dir, &machine.Firmware{Code: "/code", Vars: "/vars"}, machine.TCG)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"init=/nix/store/x/init", "console=ttyS0,115200"}, spec.Cmdline); diff != "" {
		t.Errorf("command line (-want +got):\n%s", diff)
	}
	if installed := Installed(spec); installed.Kernel != "" || installed.Initrd != "" || installed.Firmware == nil {
		t.Errorf("Installed = %+v, want what the firmware starts", installed)
	}
	if _, err := LiveSpec(t.TempDir(), nil, machine.TCG); err == nil {
		t.Error("LiveSpec of nothing = nil, want an error")
	}
}
