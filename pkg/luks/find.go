package luks

import (
	"errors"

	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
)

// ErrNotEncrypted is a machine whose settings have no encrypted disk.
var ErrNotEncrypted = errors.New("this machine's disk is not encrypted (settings.disk.encryption.enable is false)")

// ErrNoDevice is a machine whose settings do not name the encrypted disk.
var ErrNoDevice = errors.New("the settings do not name the encrypted disk: name it with --device")

// Of is the encrypted volume of a machine, or the device that the owner named.
func Of(s *settings.Settings, host run.Host, device string) (Volume, error) {
	if device == "" {
		if !s.Disk.Encryption.Enable {
			return Volume{}, ErrNotEncrypted
		}
		device = s.Disk.ByPartlabel.Main
	}
	if device == "" {
		return Volume{}, ErrNoDevice
	}
	return Volume{Device: host.Files.Path(device), Runner: host.Runner}, nil
}
