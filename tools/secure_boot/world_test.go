package secureboottool_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakeesp"
	"nixos-go/pkg/ui"
	secureboottool "nixos-go/tools/secure_boot"
)

const settingsJSON = `{
  "boot": {"method": "Standard-Boot", "pkiBundle": "/var/lib/sbctl"},
  "disk": {
    "byPartlabel": {"esp": "/dev/disk/by-partlabel/esp", "main": "/dev/disk/by-partlabel/main"},
    "encryption": {"enable": true, "mapper": "root"},
    "immutability": {"enable": true, "device": "/dev/mapper/root", "snapshots": {"subvolume": "@snapshots", "clean": "CLEAN"}},
    "subvolumes": {
      "root": {"name": "@root", "mountPoint": "/", "resetOnBoot": true},
      "nix": {"name": "@nix", "mountPoint": "/nix", "resetOnBoot": false}
    }
  },
  "networking": {"hostName": "north"},
  "secrets": {"path": "/var/lib/nixos-go/secrets", "hashedPasswordFile": "/var/lib/nixos-go/secrets/hashed-password"},
  "tpm": {"enable": true},
  "user": {"admin": {"name": "alice"}}
}`

const planJSON = `{
  "version": 1, "device": "/dev/mapper/root", "snapshots": "@snapshots", "clean": "CLEAN", "mode": "reset", "revision": 1,
  "volumes": [{"name": "@root", "mountPoint": "/", "keep": [%s], "exclude": []}]
}`

const configJSON = "{\n  \"host_path\": \"hosts/x86_64/NORTH.nix\",\n  \"target\": \"Standard-Boot\",\n  \"note\": \"mine\"\n}\n"

// machine is a folder that looks like a machine with systemd-boot and a
// firmware in setup mode.
type machine struct {
	t        fakeesp.T
	dir      string
	keys     fakeesp.Keys
	esp      *fakeesp.ESP
	runner   run.Runner
	ask      prompt.Prompter
	hooks    secureboottool.Hooks
	uid      int
	flake    string // the folder as --flake names it; "" is the whole path
	out, err bytes.Buffer
}

// open is the machine of a folder.
func open(t fakeesp.T, dir string, keys fakeesp.Keys) *machine {
	m := &machine{t: t, dir: dir, keys: keys, esp: fakeesp.New(t, filepath.Join(dir, "boot")), ask: &prompt.Scripted{}}
	m.runner = &nixos{machine: m}
	return m
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := open(t, t.TempDir(), fakeesp.TestKeys())
	m.write("etc/nixos-go/settings.json", settingsJSON)
	m.write("etc/immutability/plan.json", fmt.Sprintf(planJSON, `"/var/lib/sbctl", "/var/lib/nixos-go"`))
	m.write("etc/nixos/flake.nix", "{ }\n")
	m.write("etc/nixos/flake.lock", "{ }\n")
	m.write("etc/nixos/config.json", configJSON)
	m.generation(41)
	m.esp.Standard(40, 41)
	m.firmware(fakeesp.Firmware{SetupMode: true, Loader: "systemd-boot 258.2", Entry: "nixos-generation-41.conf"})
	if err := m.keys.Store(filepath.Join(m.dir, "keys-of-the-test")); err != nil {
		t.Fatal(err)
	}
	return m
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

func (m *machine) firmware(f fakeesp.Firmware) {
	m.t.Helper()
	if err := f.Write(m.dir); err != nil {
		m.t.Fatal(err)
	}
}

// generation makes a generation the default.
func (m *machine) generation(n int) {
	m.t.Helper()
	profiles := filepath.Join(m.dir, "nix/var/nix/profiles")
	if err := os.MkdirAll(filepath.Join(profiles, fmt.Sprintf("system-%d-link", n)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	link := filepath.Join(profiles, "system")
	if err := os.Remove(link); err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("system-%d-link", n), link); err != nil {
		m.t.Fatal(err)
	}
}

// state is everything that a change touches: files, links, firmware.
func (m *machine) state() map[string]string {
	m.t.Helper()
	state := map[string]string{}
	for _, folder := range []string{"boot", "etc/nixos", "sys/firmware"} {
		err := filepath.WalkDir(filepath.Join(m.dir, folder), func(name string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(name)
			state[strings.TrimPrefix(name, m.dir+"/")] = fmt.Sprintf("%.60q… %d bytes", content, len(content))
			return err
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	target, err := os.Readlink(filepath.Join(m.dir, "nix/var/nix/profiles/system"))
	if err != nil {
		m.t.Fatal(err)
	}
	state["default generation"] = target
	return state
}

func (m *machine) run(ctx context.Context, args ...string) int {
	m.out.Reset()
	m.err.Reset()
	u := ui.New(&m.out, &m.err, ui.Options{})
	env := &clikit.Env{
		UI: u, Host: run.Host{Runner: m.runner, Files: run.Below(m.dir)}, Ask: m.ask, UID: m.uid,
		Getenv: func(string) string { return "" },
	}
	folder := m.flake
	if folder == "" {
		folder = filepath.Join(m.dir, "etc/nixos")
	}
	args = append(args, "--flake", folder)
	return clikit.Run(ctx, secureboottool.New(env, m.hooks), args, u)
}

func (m *machine) expect(t *testing.T, what string, status, want int, says ...string) {
	t.Helper()
	if status != want {
		t.Errorf("%s: exit status %d, want %d\n%s%s", what, status, want, m.out.String(), m.err.String())
	}
	for _, text := range says {
		if !strings.Contains(m.err.String()+m.out.String(), text) {
			t.Errorf("%s: want %q in:\n%s%s", what, text, m.out.String(), m.err.String())
		}
	}
}

func (m *machine) answer(answers ...prompt.Answer) { m.ask = &prompt.Scripted{Answers: answers} }

// nixos plays git, nixos-rebuild, nix-env and sbctl, on the files of a machine.
type nixos struct {
	*machine

	lines []string
	// fail is the command that fails, counted from 0, before or after it did
	// its work; -1, or the zero value with failing unset, is none.
	failing bool
	fail    int
	after   bool
	// rebuilt changes the boot files right after a rebuild.
	rebuilt func()
	// partial makes sbctl leave PK out, and foreign makes it enrol others.
	partial, foreign bool
	// untracked is what git status prints.
	untracked string
}

func (n *nixos) Run(_ context.Context, c run.Command) (run.Result, error) {
	number := len(n.lines)
	n.lines = append(n.lines, strings.ReplaceAll(c.String(), n.dir, "$ROOT"))
	broken := &run.Error{Command: c.String(), Status: 1, Tail: "made to fail"}
	if n.failing && number == n.fail && !n.after {
		return run.Result{Status: 1}, broken
	}
	result, err := n.play(c)
	if n.failing && number == n.fail {
		return result, broken
	}
	return result, err
}

func (n *nixos) play(c run.Command) (run.Result, error) {
	line := c.String()
	switch {
	case c.Program == "git" && c.Args[4] == "rev-parse":
		return run.Result{Stdout: []byte(c.Args[1] + "\n\n")}, nil
	case c.Program == "git" && c.Args[4] == "status":
		return run.Result{Stdout: []byte(n.untracked)}, nil
	case c.Program == "git" && c.Args[4] == "add":
		n.untracked = ""
	case c.Program == "nix":
		n.write("etc/nixos/flake.lock", "{ }\n")
	case c.Program == "nixos-rebuild":
		n.rebuild(strings.Contains(line, "#NORTH-Secure-Boot"))
	case c.Program == "nix-env":
		var number int
		if _, err := fmt.Sscanf(c.Args[len(c.Args)-1], "%d", &number); err != nil {
			return run.Result{Status: 1}, &run.Error{Command: line, Status: 1}
		}
		n.generation(number)
	case line == "sbctl create-keys":
		if err := n.keys.Save(filepath.Join(n.dir, "var/lib/sbctl")); err != nil {
			n.t.Fatal(err)
		}
	case c.Program == "sbctl" && c.Args[0] == "enroll-keys":
		n.enroll(c.Args[1])
	default:
		return run.Result{Status: 127}, &run.Error{Command: line, Status: 127, Tail: "no such program here"}
	}
	return run.Result{}, nil
}

// rebuild makes generation 42 the default and installs its boot files, as
// lanzaboote or as systemd-boot does, who each leave the other's alone.
func (n *nixos) rebuild(secure bool) {
	n.generation(42)
	if secure {
		n.esp.Lanzaboote(n.keys.DB, 41, 42)
	} else {
		n.esp.Standard(41, 42)
	}
	if n.rebuilt != nil {
		n.rebuilt()
	}
}

func (n *nixos) enroll(flag string) {
	f := fakeesp.Firmware{
		PK: []fakeesp.Key{n.keys.PK}, KEK: []fakeesp.Key{n.keys.KEK}, DB: []fakeesp.Key{n.keys.DB},
		Loader: "systemd-boot 258.2", Entry: "nixos-generation-41.conf",
	}
	if flag == "--microsoft" {
		f.KEK, f.DB = append(f.KEK, n.keys.Microsoft), append(f.DB, n.keys.Microsoft)
	}
	if n.partial {
		f.PK, f.SetupMode = nil, true
	}
	if n.foreign {
		f.PK = []fakeesp.Key{n.keys.Stranger}
	}
	n.firmware(f)
}

// booted is the machine after a boot under Secure Boot.
func (m *machine) booted(secure bool) {
	m.t.Helper()
	m.firmware(fakeesp.Firmware{
		SecureBoot: secure, PK: []fakeesp.Key{m.keys.PK}, KEK: []fakeesp.Key{m.keys.KEK, m.keys.Microsoft},
		DB: []fakeesp.Key{m.keys.DB, m.keys.Microsoft}, Loader: "systemd-boot 258.2", Stub: "lanzastub 1.0.0",
		Entry: "nixos-generation-42-abcdefgh.efi",
	})
}

// target is what config.json says.
func (m *machine) target() string {
	m.t.Helper()
	content, err := os.ReadFile(filepath.Join(m.dir, "etc/nixos/config.json"))
	if err != nil {
		m.t.Fatal(err)
	}
	var config map[string]string
	if err := json.Unmarshal(content, &config); err != nil {
		m.t.Fatal(err)
	}
	return config["target"]
}
