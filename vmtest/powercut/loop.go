package powercut

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx"
)

// loopDevice is an attached loop device. It detaches itself when the last file
// open on it closes, however its owner ends.
type loopDevice struct {
	device *testx.LoopDevice
}

// attach makes an image a block device.
func attach(image string) (*loopDevice, error) {
	image, err := filepath.Abs(image)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	device, err := testx.AttachLoop(image, info.Size())
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", image, err)
	}
	return &loopDevice{device}, nil
}

func (l *loopDevice) path() string { return l.device.Path }

// detach closes the device and waits until nobody else has it open, which may
// be a program that probes new disks, but not for long.
func (l *loopDevice) detach() error {
	const patience = 5 * time.Second
	if err := l.device.Detach(); err != nil {
		return &os.PathError{Op: "detach", Path: l.path(), Err: err}
	}
	// The kernel shows the backing file for as long as the device is attached.
	shown := filepath.Join("/sys/block", filepath.Base(l.path()), "loop/backing_file")
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		backing, _ := os.ReadFile(shown) // not there: detached
		if strings.TrimSuffix(string(backing), "\n") != l.device.Image {
			return nil
		}
		if time.Now().After(deadline) {
			return &os.PathError{Op: "detach", Path: l.path(), Err: fmt.Errorf("%s: %w", l.device.Image, unix.EBUSY)}
		}
	}
}
