package changepassword_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"nixos-go/pkg/passwd"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/luksfile"
	changepassword "nixos-go/tools/change_password"
)

// The passwords of the tests.
const (
	oldPassword = "old MARKED-SECRET-1"
	newPassword = "new MARKED-SECRET-2"
)

// device is where the settings say that the disk is.
const device = "dev/disk/by-partlabel/disk-main-luks"

const settingsJSON = `{
  "boot": {"method": "Standard-Boot", "pkiBundle": "/var/lib/sbctl"},
  "disk": {
    "byPartlabel": {"esp": "/dev/disk/by-partlabel/esp", "main": "/` + device + `"},
    "encryption": {"enable": true, "mapper": "root"}
  },
  "networking": {"hostName": "north"},
  "secrets": {"path": "/var/lib/nixos-go/secrets", "hashedPasswordFile": "/var/lib/nixos-go/secrets/hashed-password"},
  "tpm": {"enable": true},
  "user": {"admin": {"name": "alice"}}
}`

// activation does what NixOS's does with the hash: it goes to /etc/shadow.
const activation = `#!/bin/sh
root=$(dirname "$0")/../..
printf 'root:*:1::::::\nalice:%s:20000::::::\n' "$(cat "$root/var/lib/nixos-go/secrets/hashed-password")" > "$root/etc/shadow"
`

// machine is a folder that looks like the machine.
type machine struct {
	t        *testing.T
	dir      string
	out, err bytes.Buffer
	redact   *run.Redactor
}

// newMachine makes a machine whose disk opens with the passphrases, whose
// account has the old password.
func newMachine(t *testing.T, passphrases ...string) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), redact: &run.Redactor{}}
	image := luksfile.New(t, passphrases...)
	m.write("etc/nixos-go/settings.json", settingsJSON, 0o644)
	m.write("run/current-system/activate", activation, 0o755)
	hash, err := passwd.Hash([]byte(oldPassword))
	if err != nil {
		t.Fatal(err)
	}
	m.write("var/lib/nixos-go/secrets/hashed-password", hash+"\n", 0o600)
	if err := os.Chmod(filepath.Join(m.dir, "var/lib/nixos-go/secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	m.write("etc/shadow", "root:*:1::::::\nalice:"+hash+":20000::::::\n", 0o600)
	m.write(device, "", 0o600)
	if err := os.Rename(image, m.image()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	name = filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *machine) image() string { return filepath.Join(m.dir, device) }

// run runs the tool with a runner and a scripted person.
func (m *machine) run(ctx context.Context, runner run.Runner, answers []prompt.Answer, hooks changepassword.Hooks, args ...string) int {
	return m.runWith(ctx, runner, &prompt.Scripted{Answers: answers}, hooks, args...)
}

// answers are those of a person who changes the old password to the new one.
func answers() []prompt.Answer {
	return []prompt.Answer{
		{To: "Present passphrase", Say: oldPassword},
		{To: "New pass", Say: newPassword},
		{To: "again", Say: newPassword},
	}
}

// state is what opens what.
type state struct {
	DiskOld, DiskNew bool
	Account          string // "old", "new", or what is wrong
}

func (m *machine) state() state {
	m.t.Helper()
	s := state{
		DiskOld: luksfile.Opens(m.t, m.image(), oldPassword) >= 0,
		DiskNew: luksfile.Opens(m.t, m.image(), newPassword) >= 0,
		Account: "neither",
	}
	hash, err := passwd.ShadowHash(strings.NewReader(m.read("etc/shadow")), "alice")
	if err != nil {
		m.t.Fatal(err)
	}
	if file := m.read("var/lib/nixos-go/secrets/hashed-password"); file != hash+"\n" {
		s.Account = "the file and the system differ"
		return s
	}
	for name, password := range map[string]string{"old": oldPassword, "new": newPassword} {
		if same, err := passwd.Verify([]byte(password), hash); err == nil && same {
			s.Account = name
		}
	}
	return s
}

// fast makes the derivation of added keys as cheap as cryptsetup allows. The
// commands are otherwise those of the tool, run for real.
type fast struct{ run.Runner }

func (f fast) Run(ctx context.Context, c run.Command) (run.Result, error) {
	if slices.Contains(c.Args, "luksAddKey") {
		c.Args = append([]string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}, c.Args...)
	}
	return f.Runner.Run(ctx, c)
}

// sabotage fails one command, before or after it did its work.
type sabotage struct {
	run.Runner

	fail  int // counted from 0
	after bool

	mu    sync.Mutex
	count int
	lines []string
}

func (s *sabotage) Run(ctx context.Context, c run.Command) (run.Result, error) {
	s.mu.Lock()
	n := s.count
	s.count++
	s.lines = append(s.lines, c.String())
	s.mu.Unlock()
	broken := &run.Error{Command: c.String(), Status: 5, Tail: "sabotage"}
	if n == s.fail && !s.after {
		return run.Result{Status: 5}, broken
	}
	result, err := s.Runner.Run(ctx, c)
	if n == s.fail {
		return result, broken
	}
	return result, err
}

func local() run.Runner { return fast{&run.Local{}} }

func (m *machine) expect(what string, status, wantStatus int, want state) {
	m.t.Helper()
	if status != wantStatus {
		m.t.Errorf("%s: exit status %d, want %d\n%s", what, status, wantStatus, m.err.String())
	}
	if got := m.state(); got != want {
		m.t.Errorf("%s: %+v, want %+v\n%s", what, got, want, m.err.String())
	}
}

func (m *machine) says(what string, texts ...string) {
	m.t.Helper()
	for _, text := range texts {
		if !strings.Contains(m.err.String(), text) {
			m.t.Errorf("%s: want %q in:\n%s", what, text, m.err.String())
		}
	}
}

func fmtPoint(kind string, done bool) string {
	if done {
		return kind + "+"
	}
	return fmt.Sprintf("%s-", kind)
}
