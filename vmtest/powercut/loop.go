package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// loopDevice is an attached loop device. It detaches itself when the last file
// open on it closes, however its owner ends.
type loopDevice struct {
	file  *os.File
	image string // absolute
}

// attach makes an image a block device.
func attach(ctx context.Context, image string) (*loopDevice, error) {
	image, err := filepath.Abs(image)
	if err != nil {
		return nil, err
	}
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", image, err)
	}
	defer control.Close()
	for {
		device, err := attachFree(control, backing)
		// Between finding a free device and taking it, another process may.
		if !errors.Is(err, unix.EBUSY) {
			if err != nil {
				return nil, fmt.Errorf("attach %s: %w", image, err)
			}
			return device, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

func attachFree(control, backing *os.File) (*loopDevice, error) {
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, os.NewSyscallError("LOOP_CTL_GET_FREE", err)
	}
	f, err := os.OpenFile("/dev/loop"+strconv.Itoa(number), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{
		Fd:   uint32(backing.Fd()),
		Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name())
	if err := unix.IoctlLoopConfigure(int(f.Fd()), &config); err != nil {
		return nil, errors.Join(&os.PathError{Op: "configure", Path: f.Name(), Err: err}, f.Close())
	}
	return &loopDevice{file: f, image: backing.Name()}, nil
}

func (l *loopDevice) path() string { return l.file.Name() }

// detach closes the device and waits until nobody else has it open, which may
// be a program that probes new disks, but not for long.
func (l *loopDevice) detach() error {
	const patience = 5 * time.Second
	var info unix.Stat_t
	path := l.file.Name()
	if err := errors.Join(unix.Fstat(int(l.file.Fd()), &info), l.file.Close()); err != nil {
		return &os.PathError{Op: "detach", Path: path, Err: err}
	}
	// The kernel shows the backing file for as long as the device is attached.
	shown := fmt.Sprintf("/sys/dev/block/%d:%d/loop/backing_file", unix.Major(info.Rdev), unix.Minor(info.Rdev))
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		backing, _ := os.ReadFile(shown) // not there: detached
		if strings.TrimSuffix(string(backing), "\n") != l.image {
			return nil
		}
		if time.Now().After(deadline) {
			return &os.PathError{Op: "detach", Path: path, Err: fmt.Errorf("%s: %w", l.image, unix.EBUSY)}
		}
	}
}
