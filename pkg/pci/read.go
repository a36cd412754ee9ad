// Package pci reads what the kernel tells about PCI functions: class, driver,
// IOMMU group, device nodes, displays, and the processes that hold them.
//
// Everything is read below one [os.Root], which is / on a real machine and a
// folder in a test; nothing is ever written, and nothing is cached. What a
// file does not exist for is told as absent (no driver, no group); a file that
// is there and cannot be understood is an error that names it. Changing
// drivers is the business of the package vfio below this one.
package pci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Devices is the folder of all PCI functions, relative to the root.
const Devices = "sys/bus/pci/devices"

// Function is one PCI function as the kernel sees it now.
type Function struct {
	Address Address `json:"address"`
	Class   Class   `json:"class"`
	Kind    string  `json:"kind"`
	Vendor  ID      `json:"vendor"`
	Device  ID      `json:"device"`
	// Name is the product's name where its driver tells it.
	Name string `json:"name,omitempty"`
	// Modalias is what modprobe finds the function's driver by.
	Modalias string `json:"modalias,omitempty"`
	// Driver is what the function is bound to, "" for none.
	Driver string `json:"driver,omitempty"`
	// Override is the content of driver_override, "" where it is not set.
	Override string `json:"driverOverride,omitempty"`
	// Group is the IOMMU group, nil where the kernel made none.
	Group *int `json:"iommuGroup,omitempty"`
	// BootDisplay tells whether the firmware drew on it.
	BootDisplay bool `json:"bootDisplay,omitempty"`
	// Nodes are its device nodes, as absolute paths.
	Nodes []string `json:"nodes,omitempty"`
	// Connectors are its display outputs.
	Connectors []Connector `json:"connectors,omitempty"`
}

// Connector is one display output of a function.
type Connector struct {
	Name string `json:"name"`
	// Connected tells whether a display is plugged in.
	Connected bool `json:"connected"`
	// Active tells whether the kernel drives it now.
	Active bool `json:"active"`
}

// Path is the function's folder, relative to the root.
func (f Function) Path() string { return path.Join(Devices, f.Address.String()) }

// Title names the function for a person: address, product, kind.
func (f Function) Title() string {
	name := f.Name
	if name == "" {
		name = fmt.Sprintf("%s %s:%s", f.Vendor.Maker(), f.Vendor, f.Device)
	}
	return fmt.Sprintf("%s %s, %s", f.Address, name, f.Kind)
}

// Scan reads every PCI function, ordered by address.
func Scan(root *os.Root) ([]Function, error) {
	entries, err := list(root, Devices)
	if err != nil {
		return nil, fmt.Errorf("read the PCI devices: %w", err)
	}
	functions := make([]Function, 0, len(entries))
	for _, entry := range entries {
		address, err := ParseAddress(entry)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Devices, err)
		}
		function, err := readFunction(root, address)
		if err != nil {
			return nil, err
		}
		functions = append(functions, function)
	}
	slices.SortFunc(functions, func(a, b Function) int { return a.Address.Compare(b.Address) })
	return functions, nil
}

func readFunction(root *os.Root, address Address) (Function, error) {
	f := Function{Address: address}
	class, err := readHex(root, path.Join(f.Path(), "class"), 24)
	if err != nil {
		return f, err
	}
	vendor, err := readHex(root, path.Join(f.Path(), "vendor"), 16)
	if err != nil {
		return f, err
	}
	device, err := readHex(root, path.Join(f.Path(), "device"), 16)
	if err != nil {
		return f, err
	}
	f.Class, f.Vendor, f.Device = Class(class), ID(vendor), ID(device)
	f.Kind = f.Class.String()
	if f.Driver, err = linkName(root, path.Join(f.Path(), "driver")); err != nil {
		return f, err
	}
	if f.Modalias, err = readText(root, path.Join(f.Path(), "modalias")); err != nil {
		return f, err
	}
	if f.Override, err = readOverride(root, f); err != nil {
		return f, err
	}
	if f.Group, err = readGroup(root, f); err != nil {
		return f, err
	}
	if f.BootDisplay, err = readBootDisplay(root, f); err != nil {
		return f, err
	}
	return f, readNodes(root, &f)
}

// readOverride reads driver_override, which says "(null)" when it is not set.
func readOverride(root *os.Root, f Function) (string, error) {
	text, err := readText(root, path.Join(f.Path(), "driver_override"))
	if err != nil || text == "(null)" {
		return "", err
	}
	return text, nil
}

func readGroup(root *os.Root, f Function) (*int, error) {
	name, err := linkName(root, path.Join(f.Path(), "iommu_group"))
	if err != nil || name == "" {
		return nil, err
	}
	group, err := strconv.Atoi(name)
	if err != nil {
		return nil, fmt.Errorf("%s/iommu_group: %w", f.Path(), err)
	}
	return &group, nil
}

// readBootDisplay asks boot_vga (VGA devices), and boot_display, which kernels
// from 6.17 on have for every display controller.
func readBootDisplay(root *os.Root, f Function) (bool, error) {
	for _, file := range []string{"boot_vga", "boot_display"} {
		text, err := readText(root, path.Join(f.Path(), file))
		if err != nil {
			return false, err
		}
		if text == "1" {
			return true, nil
		}
	}
	return false, nil
}

// readText is a file's content without surrounding space, "" where there is no
// such file.
func readText(root *os.Root, name string) (string, error) {
	data, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(data)), nil
}

func readHex(root *os.Root, name string, bits int) (uint64, error) {
	data, err := root.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n, err := parseHex(strings.TrimSpace(string(data)), bits)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

func parseHex(text string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, bits)
	if err != nil {
		return 0, fmt.Errorf("a hexadecimal number of %d bits: %w", bits, err)
	}
	return n, nil
}

// linkName is the last component of a symlink's target, "" where there is no
// such link.
func linkName(root *os.Root, name string) (string, error) {
	target, err := root.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return path.Base(target), nil
}

// list is the names in a folder, sorted; nil where there is no such folder.
func list(root *os.Root, name string) ([]string, error) {
	dir, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}
