package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// HostFile is a host of the flake.
type HostFile struct {
	// Name is the host's name: the file's, without its ending.
	Name string `json:"name"`
	// System is the folder it is in: "x86_64", "aarch64".
	System string `json:"system"`
	// Path is the file, relative to the flake.
	Path string `json:"path"`
}

// Hosts lists the files hosts/<system>/<name>.nix of a flake's folder.
func Hosts(dir string) ([]HostFile, error) {
	systems, err := os.ReadDir(path.Join(dir, "hosts"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no folder hosts: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	var hosts []HostFile
	for _, system := range systems {
		if !system.IsDir() {
			continue
		}
		entries, err := os.ReadDir(path.Join(dir, "hosts", system.Name()))
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			name, found := strings.CutSuffix(entry.Name(), ".nix")
			if !found || name == "" || entry.IsDir() {
				continue
			}
			hosts = append(hosts, HostFile{
				Name: name, System: system.Name(),
				Path: path.Join("hosts", system.Name(), entry.Name()),
			})
		}
	}
	return hosts, nil
}

// FindHost finds a host by its name.
func FindHost(hosts []HostFile, name string) (HostFile, error) {
	names := make([]string, 0, len(hosts))
	for _, host := range hosts {
		if host.Name == name {
			return host, nil
		}
		names = append(names, host.Name)
	}
	return HostFile{}, fmt.Errorf("no host is named %q; there are: %s", name, strings.Join(names, ", "))
}
