package settings

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/run"
)

// builtSettings is what modules/settings.nix makes of a host, cut down.
const builtSettings = `{
  "boot": {"method": "Secure-Boot", "pkiBundle": "/var/lib/sbctl", "timeout": 3},
  "disk": {
    "device": "/dev/nvme0n1",
    "byPartlabel": {"esp": "/dev/disk/by-partlabel/disk-main-esp", "main": "/dev/disk/by-partlabel/disk-main-luks"},
    "encryption": {"enable": true, "mapper": "root", "allowDiscards": true, "passwordFile": "/run/nixos-go/luks-passphrase"},
    "espSizeMiB": 1024,
    "immutability": {"enable": true, "device": "/dev/mapper/root", "snapshots": {"subvolume": "@snapshots", "clean": "CLEAN"}},
    "subvolumes": {
      "root": {"name": "@root", "mountPoint": "/", "resetOnBoot": true, "flag": null},
      "swap": {"name": "@swap", "mountPoint": "/.swap", "resetOnBoot": false, "flag": "swap"},
      "home": {"name": "@home", "mountPoint": "/home", "resetOnBoot": true, "flag": null}
    },
    "swap": {"enable": true, "sizeGiB": 64}
  },
  "networking": {"hostName": "FRACTAL-NORTH"},
  "secrets": {"path": "/var/lib/nixos-go/secrets", "hashedPasswordFile": "/var/lib/nixos-go/secrets/hashed-password"},
  "tpm": {"enable": true},
  "user": {"admin": {"name": "admin", "fullName": "", "homeManager": true}},
  "apps": {"virt": {"enable": true}}
}`

func TestParse(t *testing.T) {
	s, err := Parse(strings.NewReader(builtSettings))
	if err != nil {
		t.Fatal(err)
	}
	want := &Settings{
		Boot: Boot{Method: "Secure-Boot", PKIBundle: "/var/lib/sbctl"},
		Disk: Disk{
			Device:       "/dev/nvme0n1",
			ByPartlabel:  ByPartlabel{ESP: "/dev/disk/by-partlabel/disk-main-esp", Main: "/dev/disk/by-partlabel/disk-main-luks"},
			Encryption:   Encryption{Enable: true, Mapper: "root", PasswordFile: "/run/nixos-go/luks-passphrase"},
			ESPSizeMiB:   1024,
			Immutability: Immutability{Enable: true, Device: "/dev/mapper/root", Snapshots: Snapshots{Subvolume: "@snapshots", Clean: "CLEAN"}},
			Subvolumes: map[string]Subvolume{
				"root": {Name: "@root", MountPoint: "/", ResetOnBoot: true},
				"home": {Name: "@home", MountPoint: "/home", ResetOnBoot: true},
				"swap": {Name: "@swap", MountPoint: "/.swap", Flag: "swap"},
			},
			Swap: Swap{Enable: true, SizeGiB: 64},
		},
		Networking: Networking{HostName: "FRACTAL-NORTH"},
		Secrets:    Secrets{Path: "/var/lib/nixos-go/secrets", HashedPasswordFile: "/var/lib/nixos-go/secrets/hashed-password"},
		TPM:        TPM{Enable: true},
		User:       User{Admin: Admin{Name: "admin", HomeManager: true}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("Parse() (-want +got):\n%s", diff)
	}
	order := make([]string, 0, 3)
	for _, volume := range s.Disk.Volumes() {
		order = append(order, volume.MountPoint)
	}
	if got, want := strings.Join(order, " "), "/ /.swap /home"; got != want {
		t.Errorf("Volumes() = %s, want %s", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, change := range map[string][2]string{
		"no JSON":           {"{", ""},
		"a wrong type":      {`"espSizeMiB": 1024`, `"espSizeMiB": "big"`},
		"no admin":          {`"name": "admin"`, `"name": ""`},
		"an odd admin":      {`"name": "admin"`, `"name": "../root"`},
		"relative secrets":  {`"/var/lib/nixos-go/secrets"`, `"secrets"`},
		"secrets in root":   {`"/var/lib/nixos-go/secrets"`, `"/./"`},
		"no password file":  {`"hashedPasswordFile"`, `"otherFile"`},
		"a second document": {`"apps": {"virt": {"enable": true}}`, `"apps": {}}{`},
	} {
		text := strings.Replace(builtSettings, change[0], change[1], 1)
		if s, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%s: Parse() = %+v, want an error", name, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(builtSettings)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(strings.NewReader(text))
		if err == nil && (s.User.Admin.Name == "" || !filepath.IsAbs(s.Secrets.Path)) {
			t.Errorf("Parse() let %+v through", s)
		}
	})
}

func machine(t *testing.T, content map[string]string) (run.Host, *run.Recorder) {
	t.Helper()
	root := t.TempDir()
	for name, text := range content {
		full := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	rec := &run.Recorder{}
	return run.Host{Runner: rec, Files: run.Below(root)}, rec
}

// TestLoadAsksTheBuiltSystemFirst and evaluates once where it says nothing.
func TestLoadAsksTheBuiltSystemFirst(t *testing.T) {
	host, rec := machine(t, map[string]string{File: builtSettings})
	if s, err := Load(t.Context(), host, host.Files.Path("/etc/nixos")); err != nil || s.Networking.HostName != "FRACTAL-NORTH" {
		t.Errorf("Load() = %+v, %v", s, err)
	}
	if lines := rec.Lines(); len(lines) != 0 {
		t.Errorf("Load() ran %q, want nothing", lines)
	}

	host, rec = machine(t, map[string]string{
		"/etc/nixos/flake.nix":   "",
		"/etc/nixos/config.json": `{"host_path": "hosts/x86_64/H.nix"}`,
	})
	rec.On("git").Reply("/etc/nixos\n\n")
	rec.On("nix").Reply(builtSettings)
	if s, err := Load(t.Context(), host, host.Files.Path("/etc/nixos")); err != nil || s.Disk.Device != "/dev/nvme0n1" {
		t.Errorf("Load() = %+v, %v", s, err)
	}
	want := `nix --extra-experimental-features 'nix-command flakes' eval --json --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations."H-Standard-Boot".config.settings'`
	if lines := rec.Lines(); len(lines) != 2 || lines[1] != want {
		t.Errorf("Load() ran %q, want git, then %s", lines, want)
	}

	host, _ = machine(t, map[string]string{File: "{}"})
	if _, err := Load(t.Context(), host, host.Files.Path("/etc/nixos")); err == nil || !strings.Contains(err.Error(), File) {
		t.Errorf("Load(broken file) = %v, want an error that names the file", err)
	}
	host, _ = machine(t, nil)
	if _, err := Load(t.Context(), host, host.Files.Path("/etc/nixos")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load(nothing) = %v, want fs.ErrNotExist", err)
	}
}

func TestConfigKeepsUnknownKeys(t *testing.T) {
	const before = `{"zeta": [1, 2.50], "host_path": "hosts/x86_64/A.nix", "note": {"b": 1, "a": "<&>"}, "target": "Secure-Boot"}`
	c, err := ParseConfig(strings.NewReader(before))
	if err != nil {
		t.Fatal(err)
	}
	if c.Host() != "A" || c.Target != SecureBoot || c.Configuration() != "A-Secure-Boot" {
		t.Errorf("ParseConfig() = %+v, %s", c, c.Configuration())
	}
	c.Target = StandardBoot
	got, err := c.JSON()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "host_path": "hosts/x86_64/A.nix",
  "target": "Standard-Boot",
  "zeta": [
    1,
    2.50
  ],
  "note": {
    "b": 1,
    "a": "<&>"
  }
}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON() (-want +got):\n%s", diff)
	}
}

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                  `config.json: "host_path" is missing`,
		`[]`:                                  `config.json: begins with [, not with an object`,
		`{"host_path": 1}`:                    `config.json: "host_path": json: cannot unmarshal number into Go value of type string`,
		`{"host_path": "../x.nix"}`:           `config.json: "host_path" is "../x.nix": it must name a .nix file inside the flake, such as hosts/x86_64/NAME.nix`,
		`{"host_path": "hosts/x86_64/A"}`:     `config.json: "host_path" is "hosts/x86_64/A": it must name a .nix file inside the flake, such as hosts/x86_64/NAME.nix`,
		`{"host_path": "a.nix", "target": ""`: `config.json: "target": target "": use Standard-Boot or Secure-Boot`,
		`{"host_path": "a.nix", "target": "Disk-Operation"}`: `config.json: "target": target "Disk-Operation": use Standard-Boot or Secure-Boot`,
		`{"host_path": "a.nix", "host_path": "b.nix"}`:       `config.json: "host_path" is there twice`,
		`{"host_path": "a.nix"} x`:                           `config.json: something follows the JSON document`,
	} {
		_, err := ParseConfig(strings.NewReader(text))
		if err == nil {
			t.Errorf("ParseConfig(%s) is no error", text)
		} else if err.Error() != want && text[len(text)-1] == '}' {
			t.Errorf("ParseConfig(%s) = %v, want %s", text, err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(`{"host_path": "hosts/x86_64/A.nix", "target": "Secure-Boot", "other": {"a": 1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig(strings.NewReader(text))
		if err != nil {
			return
		}
		once, err := c.JSON()
		if err != nil {
			t.Fatalf("JSON() of %q: %v", text, err)
		}
		again, err := ParseConfig(strings.NewReader(string(once)))
		if err != nil {
			t.Fatalf("%q was written as %s, which does not parse: %v", text, once, err)
		}
		twice, err := again.JSON()
		if err != nil || string(once) != string(twice) {
			t.Errorf("%q changes when it is written again: %s, then %s, %v", text, once, twice, err)
		}
	})
}

func TestConfigFile(t *testing.T) {
	host, _ := machine(t, map[string]string{"/etc/nixos/config.json": `{"host_path":"hosts/x86_64/A.nix","extra":true}`})
	dir := host.Files.Path("/etc/nixos")
	c, err := ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.HostPath = "hosts/x86_64/B.nix"
	if err := WriteConfig(dir, c); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "config.json"))
	want := "{\n  \"host_path\": \"hosts/x86_64/B.nix\",\n  \"target\": \"Standard-Boot\",\n  \"extra\": true\n}\n"
	if err != nil || string(got) != want {
		t.Errorf("config.json = %q, %v, want %q", got, err, want)
	}
	if err := WriteConfig(dir, &Config{}); err == nil {
		t.Error("WriteConfig(empty) is no error")
	}
	if _, err := ReadConfig(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadConfig(missing) = %v, want fs.ErrNotExist", err)
	}
}

func TestHosts(t *testing.T) {
	host, _ := machine(t, map[string]string{
		"/etc/nixos/hosts/x86_64/A.nix":    "",
		"/etc/nixos/hosts/x86_64/B.C.nix":  "",
		"/etc/nixos/hosts/x86_64/notes.md": "",
		"/etc/nixos/hosts/aarch64/P.nix":   "",
		"/etc/nixos/hosts/README":          "",
	})
	got, err := Hosts(host.Files.Path("/etc/nixos"))
	if err != nil {
		t.Fatal(err)
	}
	want := []HostFile{
		{"P", "aarch64", "hosts/aarch64/P.nix"},
		{"A", "x86_64", "hosts/x86_64/A.nix"},
		{"B.C", "x86_64", "hosts/x86_64/B.C.nix"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Hosts() (-want +got):\n%s", diff)
	}
	if h, err := FindHost(got, "B.C"); err != nil || h.Path != "hosts/x86_64/B.C.nix" {
		t.Errorf("FindHost() = %+v, %v", h, err)
	}
	if _, err := FindHost(got, "Z"); err == nil || err.Error() != `no host is named "Z"; there are: P, A, B.C` {
		t.Errorf("FindHost(Z) = %v", err)
	}
	if _, err := Hosts(host.Files.Path("/etc")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Hosts(no flake) = %v, want fs.ErrNotExist", err)
	}
}

func TestWriteSecret(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the folder of secrets is root's")
	}
	host, _ := machine(t, nil)
	const name = "/var/lib/nixos-go/secrets/hashed-password"
	if err := WriteSecret(host.Files, name, []byte("$y$x")); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]fs.FileMode{name: 0o600, filepath.Dir(name): 0o700 | fs.ModeDir, "/var/lib/nixos-go": 0o755 | fs.ModeDir} {
		if info, err := os.Lstat(host.Files.Path(path)); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, mode)
		}
	}
	dir := host.Files.Path(filepath.Dir(name))
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := WriteSecret(host.Files, name, nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("WriteSecret(open folder) = %v, want fs.ErrPermission", err)
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 1000, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := WriteSecret(host.Files, name, nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("WriteSecret(foreign folder) = %v, want fs.ErrPermission", err)
	}
	if got, err := os.ReadFile(host.Files.Path(name)); string(got) != "$y$x" || err != nil {
		t.Errorf("the secret is now %q, %v", got, err)
	}
}
