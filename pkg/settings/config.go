package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/atomicfile"
)

// Target is how a configuration boots; each host has one for each.
type Target string

// The targets. A Disk-Operation configuration holds the disk alone, for disko;
// no machine runs it.
const (
	StandardBoot  Target = "Standard-Boot"
	SecureBoot    Target = "Secure-Boot"
	DiskOperation Target = "Disk-Operation"
)

// ParseTarget reads the target of a machine.
func ParseTarget(text string) (Target, error) {
	if t := Target(text); t == StandardBoot || t == SecureBoot {
		return t, nil
	}
	return "", fmt.Errorf("target %q: use %s or %s", text, StandardBoot, SecureBoot)
}

// ConfigName is the file of the local state in the flake's folder.
const ConfigName = "config.json"

// Config is the machine's local state: which configuration of the flake it is.
// Keys that this package does not know survive a rewrite, in their order.
type Config struct {
	// HostPath is the host's file, relative to the flake:
	// "hosts/x86_64/FRACTAL-NORTH.nix".
	HostPath string
	Target   Target

	others []member
}

// member is a key with its value as it stands in the file.
type member struct {
	key   string
	value json.RawMessage
}

// Host is the host's name, from its path.
func (c *Config) Host() string { return strings.TrimSuffix(path.Base(c.HostPath), ".nix") }

// Configuration is the name of the flake's configuration.
func (c *Config) Configuration() string { return Configuration(c.Host(), c.Target) }

// Configuration is the name of a host's configuration for a target.
func Configuration(host string, target Target) string { return host + "-" + string(target) }

// ParseConfig reads config.json.
func ParseConfig(r io.Reader) (*Config, error) {
	c, err := parseConfig(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigName, err)
	}
	return c, nil
}

func parseConfig(r io.Reader) (*Config, error) {
	members, err := readObject(json.NewDecoder(r))
	if err != nil {
		return nil, err
	}
	c := &Config{Target: StandardBoot}
	for _, m := range members {
		switch m.key {
		case "host_path":
			err = json.Unmarshal(m.value, &c.HostPath)
		case "target":
			var text string
			if err = json.Unmarshal(m.value, &text); err == nil {
				c.Target, err = ParseTarget(text)
			}
		default:
			c.others = append(c.others, m)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", m.key, err)
		}
	}
	return c, checkHostPath(c.HostPath)
}

// readObject reads the members of one JSON object in their order.
func readObject(decoder *json.Decoder) ([]member, error) {
	start, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	if start != json.Delim('{') {
		return nil, fmt.Errorf("begins with %v, not with an object", start)
	}
	var members []member
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		if slices.ContainsFunc(members, func(m member) bool { return m.key == name }) {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		members = append(members, member{name, value})
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON document")
	}
	return members, nil
}

// checkHostPath refuses what is no path of a host's file inside the flake.
func checkHostPath(hostPath string) error {
	if hostPath == "" {
		return errors.New(`"host_path" is missing`)
	}
	if !fs.ValidPath(hostPath) || path.Ext(hostPath) != ".nix" || path.Base(hostPath) == ".nix" {
		return fmt.Errorf(`"host_path" is %q: it must name a .nix file inside the flake, such as hosts/x86_64/NAME.nix`, hostPath)
	}
	return nil
}

// JSON is the file's content.
func (c *Config) JSON() ([]byte, error) {
	if err := checkHostPath(c.HostPath); err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigName, err)
	}
	var b bytes.Buffer
	b.WriteByte('{')
	own := []member{}
	for _, field := range []struct{ key, value string }{{"host_path", c.HostPath}, {"target", string(c.Target)}} {
		value, err := json.Marshal(field.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ConfigName, err)
		}
		own = append(own, member{field.key, value})
	}
	for i, m := range append(own, c.others...) {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ConfigName, err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	var out bytes.Buffer
	if err := json.Indent(&out, b.Bytes(), "", "  "); err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigName, err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// ReadConfig reads config.json from the flake's folder.
func ReadConfig(dir string) (*Config, error) {
	f, err := os.Open(path.Join(dir, ConfigName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ParseConfig(f)
}

// WriteConfig replaces config.json in the flake's folder, atomically.
func WriteConfig(dir string, c *Config) error {
	data, err := c.JSON()
	if err != nil {
		return err
	}
	return atomicfile.Write(path.Join(dir, ConfigName), data, 0o644)
}
