package luks

import (
	"crypto/rand"
	"fmt"

	"nixos-go/pkg/run"
)

// modhex are the 16 letters of recovery keys: those that stand in the same
// place on most keyboards (systemd's recovery-key.c, after Yubico's modhex).
const modhex = "cbdefghijklnrtuv"

// The form of a recovery key: 256 bits as eight groups of eight letters.
const (
	recoveryBytes = 32
	recoveryGroup = 8 // letters between two dashes
)

// NewRecoveryKey makes a recovery key of the form that systemd makes and
// accepts. The caller wipes it.
func NewRecoveryKey() ([]byte, error) {
	random := make([]byte, recoveryBytes)
	defer run.Wipe(random)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	// The capacity is exact: growing would leave a copy behind.
	key := make([]byte, 0, 2*recoveryBytes+2*recoveryBytes/recoveryGroup-1)
	for i, b := range random {
		if i > 0 && i%(recoveryGroup/2) == 0 {
			key = append(key, '-')
		}
		key = append(key, modhex[b>>4], modhex[b&0xf])
	}
	return key, nil
}
