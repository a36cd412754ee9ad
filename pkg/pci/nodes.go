package pci

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// readNodes fills in the device nodes and display outputs of a function.
func readNodes(root *os.Root, f *Function) error {
	for _, read := range []func(*os.Root, *Function) error{readDRM, readSound, readI2C, readVFIO, readNVIDIA} {
		if err := read(root, f); err != nil {
			return fmt.Errorf("device nodes of %s: %w", f.Address, err)
		}
	}
	slices.Sort(f.Nodes)
	return nil
}

// readDRM reads drm/: card1 and renderD128 are nodes, card1/card1-DP-1 is an
// output.
func readDRM(root *os.Root, f *Function) error {
	dir := path.Join(f.Path(), "drm")
	names, err := list(root, dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		f.Nodes = append(f.Nodes, "/dev/dri/"+name)
		if !strings.HasPrefix(name, "card") {
			continue
		}
		children, err := list(root, path.Join(dir, name))
		if err != nil {
			return err
		}
		for _, child := range children {
			output, ok := strings.CutPrefix(child, name+"-")
			if !ok {
				continue
			}
			connector, err := readConnector(root, path.Join(dir, name, child), output)
			if err != nil {
				return err
			}
			f.Connectors = append(f.Connectors, connector)
		}
	}
	return nil
}

func readConnector(root *os.Root, dir, name string) (Connector, error) {
	status, err := readText(root, path.Join(dir, "status"))
	if err != nil {
		return Connector{}, err
	}
	enabled, err := readText(root, path.Join(dir, "enabled"))
	if err != nil {
		return Connector{}, err
	}
	return Connector{Name: name, Connected: status == "connected", Active: enabled == "enabled"}, nil
}

// readSound reads sound/card1/: controlC1, pcmC1D3p and the like.
func readSound(root *os.Root, f *Function) error {
	dir := path.Join(f.Path(), "sound")
	cards, err := list(root, dir)
	if err != nil {
		return err
	}
	for _, card := range cards {
		names, err := list(root, path.Join(dir, card))
		if err != nil {
			return err
		}
		for _, name := range names {
			if isSoundNode(name) {
				f.Nodes = append(f.Nodes, "/dev/snd/"+name)
			}
		}
	}
	return nil
}

func isSoundNode(name string) bool {
	for _, prefix := range []string{"controlC", "pcmC", "hwC", "midiC"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// readI2C finds the buses to displays and lights, which openrgb holds.
func readI2C(root *os.Root, f *Function) error {
	names, err := list(root, f.Path())
	if err != nil {
		return err
	}
	for _, name := range names {
		if number, ok := strings.CutPrefix(name, "i2c-"); ok && number != "dev" {
			f.Nodes = append(f.Nodes, "/dev/"+name)
		}
	}
	return nil
}

// readVFIO finds what a virtual machine holds once vfio-pci has the function:
// the group's node, and the device's own (vfio-dev, from 6.2 on).
func readVFIO(root *os.Root, f *Function) error {
	if f.Driver != "vfio-pci" {
		return nil
	}
	if f.Group != nil {
		f.Nodes = append(f.Nodes, fmt.Sprintf("/dev/vfio/%d", *f.Group))
	}
	names, err := list(root, path.Join(f.Path(), "vfio-dev"))
	if err != nil {
		return err
	}
	for _, name := range names {
		f.Nodes = append(f.Nodes, "/dev/vfio/devices/"+name)
	}
	return nil
}

// readNVIDIA asks NVIDIA's own driver for the card's name and its minor
// number: /dev/nvidia1 need not be the second card on the bus.
func readNVIDIA(root *os.Root, f *Function) error {
	if f.Driver != "nvidia" {
		return nil
	}
	text, err := readText(root, path.Join("proc/driver/nvidia/gpus", f.Address.String(), "information"))
	if err != nil {
		return err
	}
	scanner := bufio.NewScanner(bytes.NewReader([]byte(text)))
	for scanner.Scan() {
		key, value, found := strings.Cut(scanner.Text(), ":")
		value = strings.TrimSpace(value)
		switch {
		case !found:
		case key == "Model":
			f.Name = value
		case key == "Device Minor":
			f.Nodes = append(f.Nodes, "/dev/nvidia"+value)
		}
	}
	return scanner.Err()
}

// SharedNVIDIANodes are the nodes that every user of NVIDIA's driver opens,
// whichever card it works on.
func SharedNVIDIANodes() []string {
	return []string{"/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}
}
