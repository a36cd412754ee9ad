package pci

import (
	"fmt"
	"os"
	"path"
)

// Hop is a device and function on one bus, as firmware counts them.
type Hop struct {
	Device, Function uint8
}

// Follow finds the function that a path of the firmware's leads to: from the
// root bus of that number over bridges, bus by bus. Buses are numbered by the
// kernel, so that only the tree of devices tells which is which. A path of no
// hops leads nowhere.
func Follow(root *os.Root, number int, hops []Hop) (Function, bool, error) {
	dir := fmt.Sprintf("sys/devices/pci0000:%02x", number)
	var found *Address
	for _, hop := range hops {
		names, err := list(root, dir)
		if err != nil {
			return Function{}, false, err
		}
		found = nil
		for _, name := range names {
			a, err := ParseAddress(name)
			if err == nil && a.Device == hop.Device && a.Function == hop.Function {
				found = &a
				dir = path.Join(dir, name)
				break
			}
		}
		if found == nil {
			return Function{}, false, nil
		}
	}
	if found == nil {
		return Function{}, false, nil
	}
	function, err := readFunction(root, *found)
	return function, err == nil, err
}
