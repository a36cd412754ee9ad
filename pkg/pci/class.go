package pci

import "fmt"

// Class is the 24-bit class code of a function: base class, subclass,
// programming interface (PCI Code and ID Assignment Specification).
type Class uint32

// Base classes and subclasses that matter to a graphics card, from the
// kernel's include/linux/pci_ids.h.
const (
	baseDisplay = 0x03
	baseBridge  = 0x06

	subVGA   = 0x0300
	sub3D    = 0x0302
	subAudio = 0x0403
	subUSB   = 0x0c03
	// subSerialOther is what NVIDIA's USB-C controller (UCSI) reports.
	subSerialOther = 0x0c80
)

func (c Class) base() uint32 { return uint32(c) >> 16 }
func (c Class) sub() uint32  { return uint32(c) >> 8 }

// Display tells whether the function draws: VGA, 3D or another display
// controller.
func (c Class) Display() bool { return c.base() == baseDisplay }

// Bridge tells whether the function only connects buses. A bridge in an IOMMU
// group stays with its own driver (Documentation/driver-api/vfio.rst).
func (c Class) Bridge() bool { return c.base() == baseBridge }

// String is what the function is, in a word or two.
func (c Class) String() string {
	switch c.sub() {
	case subVGA:
		return "VGA"
	case sub3D:
		return "3D"
	case subAudio:
		return "audio"
	case subUSB:
		return "USB"
	case subSerialOther:
		return "UCSI"
	}
	switch c.base() {
	case 0x01:
		return "storage"
	case 0x02:
		return "network"
	case baseDisplay:
		return "display"
	case 0x04:
		return "multimedia"
	case baseBridge:
		return "bridge"
	}
	return fmt.Sprintf("class %06x", uint32(c))
}

// MarshalText gives the six digits that lspci -nn starts from.
func (c Class) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%06x", uint32(c)), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Class) UnmarshalText(text []byte) error {
	n, err := parseHex(string(text), 24)
	if err != nil {
		return fmt.Errorf("PCI class %q: %w", text, err)
	}
	*c = Class(n)
	return nil
}

// ID is a vendor or device number.
type ID uint16

// Vendors that make graphics cards or the processors beside them.
const (
	AMD    ID = 0x1002
	NVIDIA ID = 0x10de
	Intel  ID = 0x8086
)

// String is the number in four digits.
func (id ID) String() string { return fmt.Sprintf("%04x", uint16(id)) }

// Maker is the vendor's name where it is one that makes graphics cards.
func (id ID) Maker() string {
	switch id {
	case AMD:
		return "AMD"
	case NVIDIA:
		return "NVIDIA"
	case Intel:
		return "Intel"
	}
	return "vendor"
}

// MarshalText implements [encoding.TextMarshaler].
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *ID) UnmarshalText(text []byte) error {
	n, err := parseHex(string(text), 16)
	if err != nil {
		return fmt.Errorf("PCI id %q: %w", text, err)
	}
	*id = ID(n)
	return nil
}
