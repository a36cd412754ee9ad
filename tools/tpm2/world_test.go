package tpm2tool_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/luks"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakeesp"
	"nixos-go/pkg/testx/luksfile"
	"nixos-go/pkg/testx/swtpm"
	"nixos-go/pkg/tpm2"
	"nixos-go/pkg/ui"
	tpm2tool "nixos-go/tools/tpm2"
)

const (
	passphrase = "MARKED-SECRET passphrase"
	pin        = "MARKED-SECRET pin"
	device     = "dev/disk/by-partlabel/disk-main-luks"
)

const settingsJSON = `{
  "boot": {"method": "Secure-Boot", "pkiBundle": "/var/lib/sbctl"},
  "disk": {
    "byPartlabel": {"esp": "/dev/disk/by-partlabel/esp", "main": "/` + device + `"},
    "encryption": {"enable": true, "mapper": "root"}
  },
  "networking": {"hostName": "north"},
  "secrets": {"path": "/var/lib/nixos-go/secrets", "hashedPasswordFile": "/var/lib/nixos-go/secrets/hashed-password"},
  "tpm": {"enable": true},
  "user": {"admin": {"name": "alice"}}
}`

// machine is a folder that looks like a machine, with a TPM and a disk.
type machine struct {
	t        *testing.T
	dir      string
	chip     *swtpm.TPM
	firmware fakeesp.Firmware
	runner   run.Runner
	ask      prompt.Prompter
	hooks    tpm2tool.Hooks
	redact   *run.Redactor
	out, err bytes.Buffer
}

// newMachine has booted by lanzaboote under Secure Boot; its disk opens with
// the passphrases, the first of them the owner's.
func newMachine(t *testing.T, passphrases ...string) *machine {
	t.Helper()
	luksfile.Need(t, "systemd-cryptenroll")
	m := &machine{t: t, dir: t.TempDir(), chip: swtpm.Start(t), redact: &run.Redactor{}, ask: &prompt.Scripted{}}
	m.chip.Extend(7, digest("secure boot on"))
	m.write("etc/nixos-go/settings.json", settingsJSON)
	m.firmware = fakeesp.Firmware{SecureBoot: true, Loader: "systemd-boot 258.2", Stub: "lanzastub 1.0.0"}
	m.boot()
	m.write(device, "")
	image := luksfile.New(t, append([]string{passphrase}, passphrases...)...)
	if err := os.Rename(image, m.image()); err != nil {
		t.Fatal(err)
	}
	m.runner = &systemd{Runner: &run.Local{Redact: m.redact}, machine: m}
	m.hooks = tpm2tool.Hooks{TPM: m.chip.Device(), Open: func(run.Files) (*tpm2.Device, error) {
		chip, err := m.chip.Open()
		return &tpm2.Device{TPMCloser: chip}, err
	}}
	return m
}

// boot writes what the firmware says.
func (m *machine) boot() {
	m.t.Helper()
	if err := m.firmware.Write(m.dir); err != nil {
		m.t.Fatal(err)
	}
}

func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	name = filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) image() string { return filepath.Join(m.dir, device) }

func (m *machine) header() *luks.Header {
	m.t.Helper()
	h, err := luks.Volume{Device: m.image()}.Header()
	if err != nil {
		m.t.Fatal(err)
	}
	return h
}

func (m *machine) run(args ...string) int { return m.runContext(m.t.Context(), args...) }

func (m *machine) runContext(ctx context.Context, args ...string) int {
	m.out.Reset()
	m.err.Reset()
	u := ui.New(&m.out, &m.err, ui.Options{})
	env := &clikit.Env{
		UI: u, Host: run.Host{Runner: m.runner, Files: run.Below(m.dir)}, Ask: m.ask, Redact: m.redact,
		Getenv: func(string) string { return "" },
	}
	return clikit.Run(ctx, tpm2tool.New(env, m.hooks), args, u)
}

// answer scripts the person.
func (m *machine) answer(answers ...prompt.Answer) { m.ask = &prompt.Scripted{Answers: answers} }

func knows() prompt.Answer { return prompt.Answer{To: "Passphrase or recovery key", Say: passphrase} }

func (m *machine) expect(what string, status, want int, says ...string) {
	m.t.Helper()
	if status != want {
		m.t.Errorf("%s: exit status %d, want %d\n%s%s", what, status, want, m.out.String(), m.err.String())
	}
	for _, text := range says {
		if !strings.Contains(m.err.String()+m.out.String(), text) {
			m.t.Errorf("%s: want %q in:\n%s%s", what, text, m.out.String(), m.err.String())
		}
	}
}

// systemd runs the real programs, but answers for the version, and makes of an
// enrolling with PCR 15 at zero what systemd 255 and newer make of it: the one
// that tests may find here need not know it. Everything else, the sealing
// included, is done by the real systemd-cryptenroll.
type systemd struct {
	run.Runner

	machine *machine
	version string // "" is new enough
	fail    string // a part of the command that fails
	lines   []string
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func (s *systemd) Run(ctx context.Context, c run.Command) (run.Result, error) {
	line := c.String()
	s.lines = append(s.lines, line)
	if s.fail != "" && strings.Contains(line, s.fail) {
		return run.Result{Status: 1}, &run.Error{Command: line, Status: 1, Tail: "made to fail"}
	}
	if c.Program != "systemd-cryptenroll" {
		return s.Runner.Run(ctx, c)
	}
	if len(c.Args) == 1 && c.Args[0] == "--version" {
		version := s.version
		if version == "" {
			version = "systemd 258 (258.2)\n+PAM\n"
		}
		return run.Result{Stdout: []byte(version)}, nil
	}
	guarded := strings.Contains(line, "+15:sha256="+zeros)
	c.Args = strings.Split(strings.ReplaceAll(strings.Join(c.Args, "\n"), "+15:sha256="+zeros, ""), "\n")
	result, err := s.Runner.Run(ctx, c)
	s.machine.chip.Flush()
	if err == nil && guarded {
		s.machine.guard()
	}
	return result, err
}

// guard rewrites the TPM's token as one with PCR 15 at zero.
func (m *machine) guard() {
	m.t.Helper()
	number := m.header().TokensOf(luks.TokenTPM2)[0]
	var token map[string]any
	if err := json.Unmarshal(m.header().Tokens[number].Raw, &token); err != nil {
		m.t.Fatal(err)
	}
	chip := &tpm2.Device{TPMCloser: m.chip}
	bits, joined := make([]byte, 3), ""
	pcrs, _ := token["tpm2-pcrs"].([]any)
	for _, value := range pcrs {
		number, _ := value.(float64)
		pcr := int(number)
		values, err := chip.ReadPCRs(tpm2.SHA256, pcr)
		if err != nil {
			m.t.Fatal(err)
		}
		bits[pcr/8] |= 1 << (pcr % 8)
		joined += string(values[pcr])
	}
	bits[1] |= 0x80
	joined += string(make([]byte, 32))
	// TPM2_PolicyPCR and TPM2_PolicyAuthValue by hand.
	policy := digest(string(make([]byte, 32)) + "\x00\x00\x01\x7f\x00\x00\x00\x01\x00\x0b\x03" + string(bits) + string(digest(joined)))
	if token["tpm2-pin"] == true {
		policy = digest(string(policy) + "\x00\x00\x01\x6b")
	}
	token["tpm2-pcrs"] = append(pcrs, 15)
	token["tpm2-policy-hash"] = hex.EncodeToString(policy)
	raw, err := json.Marshal(token)
	if err != nil {
		m.t.Fatal(err)
	}
	luksfile.Cryptsetup(m.t, "", "token", "remove", "--token-id", strconv.Itoa(number), m.image())
	luksfile.Cryptsetup(m.t, string(raw), "token", "import", "--json-file", "-", m.image())
}

// measureVolumeKey is what the initrd does with tpm2-measure-pcr=yes.
func (m *machine) measureVolumeKey() {
	m.t.Helper()
	event := "cryptsetup:root:1234"
	m.chip.Extend(15, digest(event))
	m.write("run/log/systemd/tpm2-measure.log", fmt.Sprintf(
		"\x1e"+`{"pcr":15,"digests":[{"hashAlg":"sha256","digest":"%x"}],"content_type":"systemd","content":{"string":%q,"eventType":"volume-key"}}`+"\n",
		digest(event), event))
}
