package luks

import (
	"errors"

	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
)

// ErrNotEncrypted is a machine whose settings have no encrypted disk.
var ErrNotEncrypted = errors.New("this machine's disk is not encrypted (settings.disk.encryption.enable is false)")

// Of is the encrypted volume of a machine, or the device that the owner named.
func Of(s *settings.Settings, host run.Host, device string) (Volume, error) {
	if device == "" {
		if !s.Disk.Encryption.Enable {
			return Volume{}, ErrNotEncrypted
		}
		device = s.Disk.ByPartlabel.Main
	}
	return Volume{Device: host.Files.Path(device), Runner: host.Runner}, nil
}
