// Package settings is the typed view of a machine's settings.
//
// The facts come from files that the built system carries (settings.json, and
// the reset's plan.json, which pkg/reset reads), so that asking costs nothing;
// only where they are missing does one nix eval of config.settings answer. The
// machine's local state, which configuration it is, is in config.json
// ([Config]). Secrets are files of root in a folder of root ([WriteSecret]).
//
// The settings are those of modules/settings.nix; fields that no tool needs are
// not read, and unknown ones are no error, since a newer configuration may have
// more of them than an older tool knows.
package settings

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/nix"
	"nixos-go/pkg/run"
)

// Where a built system carries its facts.
const (
	// File is the settings of the running system, as JSON.
	File = "/etc/nixos-go/settings.json"
	// PlanFile is the reset's plan of the running system.
	PlanFile = "/etc/immutability/plan.json"
	// SystemProfile is the default generation, which the next boot starts. A
	// system's files of /etc are below its etc.
	SystemProfile = "/nix/var/nix/profiles/system"
	// RunningSystem is the system that was activated last.
	RunningSystem = "/run/current-system"
)

// Settings are the facts of a machine that the tools need.
type Settings struct {
	Boot       Boot       `json:"boot"`
	Disk       Disk       `json:"disk"`
	Networking Networking `json:"networking"`
	Secrets    Secrets    `json:"secrets"`
	TPM        TPM        `json:"tpm"`
	User       User       `json:"user"`
}

// Boot is how the machine boots.
type Boot struct {
	// Method is "Standard-Boot" or "Secure-Boot".
	Method string `json:"method"`
	// PKIBundle is the folder of the Secure Boot keys.
	PKIBundle string `json:"pkiBundle"`
}

// Networking holds the machine's name.
type Networking struct {
	HostName string `json:"hostName"`
}

// Secrets says where secrets are.
type Secrets struct {
	Path               string `json:"path"`
	HashedPasswordFile string `json:"hashedPasswordFile"`
}

// TPM says whether the boot asks the TPM2.
type TPM struct {
	Enable bool `json:"enable"`
}

// User is the people of the machine.
type User struct {
	Admin Admin `json:"admin"`
}

// Admin is the one person of a workstation.
type Admin struct {
	Name        string `json:"name"`
	FullName    string `json:"fullName"`
	HomeManager bool   `json:"homeManager"`
}

// Disk is the disk and what is on it.
type Disk struct {
	Device       string               `json:"device"`
	ByPartlabel  ByPartlabel          `json:"byPartlabel"`
	Encryption   Encryption           `json:"encryption"`
	ESPSizeMiB   int64                `json:"espSizeMiB"`
	Immutability Immutability         `json:"immutability"`
	Subvolumes   map[string]Subvolume `json:"subvolumes"`
	Swap         Swap                 `json:"swap"`
}

// ByPartlabel are the paths of the partitions.
type ByPartlabel struct {
	ESP  string `json:"esp"`
	Main string `json:"main"`
}

// Encryption is the LUKS2 container.
type Encryption struct {
	Enable bool   `json:"enable"`
	Mapper string `json:"mapper"`
	// PasswordFile is where disko reads the passphrase.
	PasswordFile string `json:"passwordFile"`
}

// Immutability is the reset.
type Immutability struct {
	Enable    bool      `json:"enable"`
	Device    string    `json:"device"`
	Snapshots Snapshots `json:"snapshots"`
}

// Snapshots names where history is.
type Snapshots struct {
	Subvolume string `json:"subvolume"`
	Clean     string `json:"clean"`
}

// Subvolume is a subvolume of the file system.
type Subvolume struct {
	Name        string `json:"name"`
	MountPoint  string `json:"mountPoint"`
	ResetOnBoot bool   `json:"resetOnBoot"`
	Flag        string `json:"flag"`
}

// Swap is the swap file.
type Swap struct {
	Enable  bool  `json:"enable"`
	SizeGiB int64 `json:"sizeGiB"`
}

// Parse reads settings from JSON and checks what every tool relies on.
func Parse(r io.Reader) (*Settings, error) {
	var s Settings
	decoder := json.NewDecoder(r)
	if err := decoder.Decode(&s); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("settings: something follows the JSON document")
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return &s, nil
}

func (s *Settings) check() error {
	required := map[string]string{
		"secrets.path":               s.Secrets.Path,
		"secrets.hashedPasswordFile": s.Secrets.HashedPasswordFile,
	}
	for _, name := range []string{"secrets.path", "secrets.hashedPasswordFile"} {
		if value := required[name]; !path.IsAbs(value) || path.Clean(value) == "/" {
			return fmt.Errorf("%s is %q, which is no absolute path", name, value)
		}
	}
	if s.User.Admin.Name == "" || strings.ContainsAny(s.User.Admin.Name, "/: \n") {
		return fmt.Errorf("user.admin.name is %q, which is no user's name", s.User.Admin.Name)
	}
	return nil
}

// Volumes are the subvolumes, the one mounted highest first.
func (d *Disk) Volumes() []Subvolume {
	volumes := make([]Subvolume, 0, len(d.Subvolumes))
	for _, volume := range d.Subvolumes {
		volumes = append(volumes, volume)
	}
	slices.SortFunc(volumes, func(a, b Subvolume) int { return strings.Compare(a.MountPoint, b.MountPoint) })
	return volumes
}

// Read takes the settings from the file that a built system carries.
func Read(files run.Files, name string) (*Settings, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s, nil
}

// Load takes the settings of the machine from the running system's file, or,
// where it carries none, evaluates the configuration that config.json in the
// flake's folder names.
func Load(ctx context.Context, host run.Host, dir string) (*Settings, error) {
	s, err := Read(host.Files, File)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	config, err := ReadConfig(dir)
	if err != nil {
		return nil, fmt.Errorf("this system carries no %s, and which configuration it is cannot be read: %w", File, err)
	}
	flake, err := nix.Open(ctx, host, dir)
	if err != nil {
		return nil, err
	}
	return Evaluate(ctx, host, flake, config.Configuration())
}

// Evaluate takes the settings of a configuration from one nix eval.
func Evaluate(ctx context.Context, r run.Runner, flake nix.Flake, configuration string) (*Settings, error) {
	result, err := r.Run(ctx, flake.Eval(configuration, "config.settings"))
	if err != nil {
		return nil, fmt.Errorf("evaluating the settings of %s: %w", configuration, err)
	}
	s, err := Parse(bytes.NewReader(result.Stdout))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configuration, err)
	}
	return s, nil
}
