package pci

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// Address is where a PCI function sits: domain, bus, device (0 to 31) and
// function (0 to 7). In JSON it is its text.
type Address struct {
	Domain   uint32 `json:"-"`
	Bus      uint8  `json:"-"`
	Device   uint8  `json:"-"`
	Function uint8  `json:"-"`
}

// addressPattern is DDDD:BB:DD.F as the kernel writes it (see
// Documentation/ABI/testing/sysfs-bus-pci); the domain may have more than four
// digits (VMD), and people leave it out.
var addressPattern = regexp.MustCompile(`^(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([01][0-9a-fA-F])\.([0-7])$`)

// ParseAddress reads 0000:01:00.0, or 01:00.0 for domain 0.
func ParseAddress(text string) (Address, error) {
	match := addressPattern.FindStringSubmatch(text)
	if match == nil {
		return Address{}, fmt.Errorf("PCI address %q: want the form 0000:01:00.0", text)
	}
	var a Address
	if match[1] != "" {
		a.Domain = uint32(hex(match[1]))
	}
	a.Bus, a.Device, a.Function = uint8(hex(match[2])), uint8(hex(match[3])), uint8(hex(match[4]))
	return a, nil
}

// hex is the value of digits that the pattern has checked.
func hex(digits string) uint64 {
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		panic("checked by the pattern: " + digits)
	}
	return n
}

// String is the address as sysfs names the device's folder.
func (a Address) String() string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", a.Domain, a.Bus, a.Device, a.Function)
}

// SameSlot tells whether both are functions of one card.
func (a Address) SameSlot(b Address) bool {
	return a.Domain == b.Domain && a.Bus == b.Bus && a.Device == b.Device
}

// Compare orders addresses as lspci does.
func (a Address) Compare(b Address) int {
	return cmp.Or(
		cmp.Compare(a.Domain, b.Domain),
		cmp.Compare(a.Bus, b.Bus),
		cmp.Compare(a.Device, b.Device),
		cmp.Compare(a.Function, b.Function),
	)
}

// MarshalText implements [encoding.TextMarshaler].
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Address) UnmarshalText(text []byte) error {
	parsed, err := ParseAddress(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
