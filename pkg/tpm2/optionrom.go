package tpm2

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// OptionROM is a driver that the firmware loaded from a device's own memory: a
// graphics card's picture, a network card's boot. They are signed by
// Microsoft; under Secure Boot without Microsoft's certificates the firmware
// does not run them.
type OptionROM struct {
	// DevicePath is where it came from, as UEFI writes it.
	DevicePath string `json:"devicePath"`
	// Hops are the PCI devices from the root bus to the card.
	Hops []Hop `json:"-"`
	// Root is the number of the PCI root.
	Root int `json:"-"`
}

// Hop is a device and function on one PCI bus.
type Hop struct {
	Device, Function uint8
}

// pcrDrivers is where firmware measures drivers that are not its own.
const pcrDrivers = 2

// OptionROMs are the option ROMs in an event log, each once.
func OptionROMs(events []Event) []OptionROM {
	var roms []OptionROM
	seen := map[string]bool{}
	for _, event := range events {
		if event.PCR != pcrDrivers || (event.Type != EventBootDriver && event.Type != EventRuntimeDriver) {
			continue
		}
		rom := OptionROM{DevicePath: "unknown place"}
		if path, ok := imagePath(event.Data); ok {
			rom = readDevicePath(path)
		}
		if !seen[rom.DevicePath] {
			seen[rom.DevicePath] = true
			roms = append(roms, rom)
		}
	}
	return roms
}

// imagePath is the device path in a UEFI_IMAGE_LOAD_EVENT: three 64-bit
// numbers (place, length, link time address), the path's length, the path.
func imagePath(data []byte) ([]byte, bool) {
	const head = 4 * 8
	if len(data) < head {
		return nil, false
	}
	length := binary.LittleEndian.Uint64(data[head-8:])
	if length > uint64(len(data)-head) {
		return nil, false
	}
	return data[head : head+int(length)], true
}

// Nodes of device paths (UEFI Specification, 10.3): type and subtype.
const (
	nodePCI    = 0x0101
	nodeACPI   = 0x0201
	nodeOffset = 0x0408
	nodeEnd    = 0x7fff
)

// pciRoots are the ACPI names of PCI roots, PNP0A03 and PNP0A08, as compressed
// EISA IDs.
var pciRoots = map[uint32]bool{0x0a0341d0: true, 0x0a0841d0: true}

// readDevicePath writes a device path as UEFI does, as far as PCI goes.
func readDevicePath(path []byte) OptionROM {
	var rom OptionROM
	var parts []string
	for len(path) >= 4 {
		kind := int(path[0])<<8 | int(path[1])
		length := int(binary.LittleEndian.Uint16(path[2:]))
		if length < 4 || length > len(path) || kind == nodeEnd {
			break
		}
		parts = append(parts, rom.node(kind, path[4:length]))
		path = path[length:]
	}
	rom.DevicePath = strings.Join(parts, "/")
	if rom.DevicePath == "" {
		rom.DevicePath = "unknown place"
	}
	return rom
}

func (rom *OptionROM) node(kind int, body []byte) string {
	switch {
	case kind == nodeACPI && len(body) >= 8 && pciRoots[binary.LittleEndian.Uint32(body)]:
		rom.Root = int(binary.LittleEndian.Uint32(body[4:]))
		return fmt.Sprintf("PciRoot(%#x)", rom.Root)
	case kind == nodePCI && len(body) >= 2:
		hop := Hop{Function: body[0], Device: body[1]}
		rom.Hops = append(rom.Hops, hop)
		return fmt.Sprintf("Pci(%#x,%#x)", hop.Device, hop.Function)
	case kind == nodeOffset && len(body) >= 20:
		return fmt.Sprintf("Offset(%#x,%#x)", binary.LittleEndian.Uint64(body[4:]), binary.LittleEndian.Uint64(body[12:]))
	default:
		return fmt.Sprintf("Path(%d,%d,%x)", kind>>8, kind&0xff, body)
	}
}
