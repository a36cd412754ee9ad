package pci

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Machine is what one look at a machine showed.
type Machine struct {
	Functions []Function `json:"functions"`
	// CPU is the processor's vendor: GenuineIntel, AuthenticAMD, "" for one
	// that does not say (ARM).
	CPU string `json:"cpu"`
	// CommandLine is the kernel's.
	CommandLine []string `json:"commandLine"`
	// Modules are the loaded modules that were asked for, by name.
	Modules map[string]Module `json:"modules"`
	// BootID differs from boot to boot.
	BootID string `json:"bootId"`
}

// Module is one loaded kernel module.
type Module struct {
	// Uses counts who holds it, other modules and open devices alike.
	Uses int `json:"uses"`
	// Holders are the modules that need it.
	Holders []string `json:"holders,omitempty"`
}

// Read looks at the whole machine; modules names those it should tell about.
func Read(root *os.Root, modules ...string) (Machine, error) {
	m := Machine{Modules: map[string]Module{}}
	var err error
	if m.Functions, err = Scan(root); err != nil {
		return m, err
	}
	for _, name := range modules {
		module, loaded, err := readModule(root, name)
		if err != nil {
			return m, err
		}
		if loaded {
			m.Modules[name] = module
		}
	}
	if m.CPU, err = readCPU(root); err != nil {
		return m, err
	}
	line, err := readText(root, "proc/cmdline")
	if err != nil {
		return m, err
	}
	m.CommandLine = strings.Fields(line)
	m.BootID, err = readText(root, "proc/sys/kernel/random/boot_id")
	return m, err
}

// readModule reads /sys/module/NAME. A driver built into the kernel has a
// folder there too, but no refcnt: it cannot be unloaded, and counts as not
// loaded here.
func readModule(root *os.Root, name string) (Module, bool, error) {
	dir := path.Join("sys/module", name)
	text, err := readText(root, path.Join(dir, "refcnt"))
	if err != nil || text == "" {
		return Module{}, false, err
	}
	uses, err := strconv.Atoi(text)
	if err != nil {
		return Module{}, false, fmt.Errorf("%s/refcnt: %w", dir, err)
	}
	holders, err := list(root, path.Join(dir, "holders"))
	return Module{Uses: uses, Holders: holders}, true, err
}

func readCPU(root *os.Root) (string, error) {
	text, err := readText(root, "proc/cpuinfo")
	if err != nil {
		return "", err
	}
	scanner := bufio.NewScanner(bytes.NewReader([]byte(text)))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		key, value, found := strings.Cut(scanner.Text(), ":")
		if found && strings.TrimSpace(key) == "vendor_id" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", scanner.Err()
}

// IOMMU tells whether the kernel has put any function into an IOMMU group.
func (m Machine) IOMMU() bool {
	return slices.ContainsFunc(m.Functions, func(f Function) bool { return f.Group != nil })
}

// Function finds a function by its address.
func (m Machine) Function(address Address) (Function, bool) {
	i := slices.IndexFunc(m.Functions, func(f Function) bool { return f.Address == address })
	if i < 0 {
		return Function{}, false
	}
	return m.Functions[i], true
}
