package tpm2

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PCRs that matter for a disk's key (systemd.pcrlock(7), TCG PC Client
// Platform Firmware Profile).
const (
	// PCRSecureBoot changes with the Secure Boot state and its keys.
	PCRSecureBoot = 7
	// PCRCommandLine holds what reaches the kernel from outside the signed
	// image: an overridden command line, credentials.
	PCRCommandLine = 12
	// PCRVolumeKey is zero until the initrd has measured the key of a volume.
	PCRVolumeKey = 15
)

// ErrPCRs is a list of PCRs that cannot be meant.
var ErrPCRs = errors.New("want PCR numbers joined by +, such as 7+12")

// ParsePCRs reads "7+12". The numbers come back sorted, each once.
func ParsePCRs(text string) ([]int, error) {
	var pcrs []int
	for part := range strings.SplitSeq(text, "+") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || n >= pcrCount || strconv.Itoa(n) != part {
			return nil, fmt.Errorf("PCRs %q: %w", text, ErrPCRs)
		}
		pcrs = append(pcrs, n)
	}
	slices.Sort(pcrs)
	return slices.Compact(pcrs), nil
}

// Policy is what a disk's key is bound to.
type Policy struct {
	// PCRs must have the values that they have now.
	PCRs []int `json:"pcrs"`
	// VolumeKeyUnmeasured wants PCR 15 at zero as well: only the first volume
	// that is opened in a boot gets its key.
	VolumeKeyUnmeasured bool `json:"volumeKeyUnmeasured"`
	// PIN wants a PIN besides.
	PIN bool `json:"pin"`
}

// Argument is the policy as systemd-cryptenroll's --tpm2-pcrs takes it.
func (p Policy) Argument() string {
	parts := make([]string, 0, len(p.PCRs)+1)
	for _, pcr := range p.PCRs {
		parts = append(parts, strconv.Itoa(pcr))
	}
	if p.VolumeKeyUnmeasured {
		parts = append(parts, fmt.Sprintf("%d:%s=%s", PCRVolumeKey, SHA256, strings.Repeat("0", 64)))
	}
	return strings.Join(parts, "+")
}

// String is the policy for a person.
func (p Policy) String() string {
	parts := make([]string, 0, len(p.PCRs)+1)
	for _, pcr := range p.PCRs {
		parts = append(parts, strconv.Itoa(pcr))
	}
	text := "PCR " + strings.Join(parts, "+")
	if p.VolumeKeyUnmeasured {
		text += fmt.Sprintf(" and PCR %d at zero", PCRVolumeKey)
	}
	if p.PIN {
		text += ", with a PIN"
	}
	return text
}

// PolicyOf is the policy that a token was made for, to make it again. Of
// PCR 15 only its zero is ever asked for.
func PolicyOf(t Token) Policy {
	policy := Policy{PIN: t.PIN}
	for _, pcr := range t.PCRs {
		if pcr == PCRVolumeKey {
			policy.VolumeKeyUnmeasured = true
			continue
		}
		policy.PCRs = append(policy.PCRs, pcr)
	}
	return policy
}
