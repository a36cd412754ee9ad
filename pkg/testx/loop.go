package testx

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

const (
	loopControl  = "/dev/loop-control"
	btrfsControl = "/dev/btrfs-control"

	// BTRFS_IOC_FORGET_DEV (linux/btrfs.h): _IOW(0x94, 5, struct
	// btrfs_ioctl_vol_args), 4,096 bytes: an s64 and the path.
	iocForgetDevice = 1<<30 | 4096<<16 | 0x94<<8 | 5
)

// A LoopDevice is a block device over a file.
type LoopDevice struct {
	Path  string // "/dev/loop7"
	Image string

	// The kernel frees the device when the last file open on it is closed
	// (LO_FLAGS_AUTOCLEAR): this one, or that of the mount. So a test that is
	// killed leaves no device behind, unless it leaves a mount. Nil: detached.
	file *os.File
}

// NewLoopDevice makes a loop device over a file, which is made, sparse and of
// the given size, where there is none. The test's end detaches it.
func NewLoopDevice(tb testing.TB, image string, size int64) *LoopDevice {
	tb.Helper()
	NeedRoot(tb)

	device, err := AttachLoop(image, size)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		Unavailable(tb, "no loop device to be had: "+err.Error())
	}

	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() {
		if err := device.Detach(); err != nil {
			tb.Error(err)
		}
	})

	return device
}

// Detach frees the device, at once or when what is mounted from it goes.
func (d *LoopDevice) Detach() error {
	if d.detached() {
		return nil
	}

	err := d.file.Close()
	d.file = nil

	return err
}

func (d *LoopDevice) detached() bool { return d.file == nil }

// AttachLoop is NewLoopDevice for a program that is no test: the caller detaches the
// device.
func AttachLoop(image string, size int64) (*LoopDevice, error) {
	backing, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer backing.Close()

	info, err := backing.Stat()
	if err != nil {
		return nil, err
	}

	if info.Size() == 0 {
		if err := backing.Truncate(size); err != nil {
			return nil, err
		}
	}

	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()

	var file *os.File

	// Between asking for a free device and taking it, anyone else may take it.
	err = retry(func(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) }, func() error {
		file, err = takeLoopDevice(control, backing)

		return err
	})
	if err != nil {
		return nil, err
	}

	return &LoopDevice{Path: file.Name(), Image: image, file: file}, nil
}

// takeLoopDevice makes one attempt.
func takeLoopDevice(control, backing *os.File) (*os.File, error) {
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, &os.PathError{Op: "LOOP_CTL_GET_FREE", Path: loopControl, Err: err}
	}

	file, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}

	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	// As losetup does; a longer name is cut, here as in the kernel.
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name())

	if err := unix.IoctlLoopConfigure(int(file.Fd()), &config); err != nil {
		_ = file.Close() // nothing was attached

		return nil, &os.PathError{Op: "LOOP_CONFIGURE", Path: file.Name(), Err: err}
	}

	return file, nil
}

// scan makes the device known to the driver.
func (d *LoopDevice) scan() error {
	if d.detached() {
		return nil
	}

	return btrfs.ScanDevice(d.Path)
}

// forget makes the driver forget the device. It is no error if it does not know
// it.
func (d *LoopDevice) forget() error {
	if d.detached() {
		return nil
	}

	control, err := os.OpenFile(btrfsControl, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()

	var args [4096]byte

	copy(args[8:], d.Path)

	// Busy: the kernel is still at the unmount that came before.
	return retry(isBusy, func() error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), iocForgetDevice, uintptr(unsafe.Pointer(&args)))
		if errno != 0 && errno != unix.ENOENT {
			return &os.PathError{Op: "BTRFS_IOC_FORGET_DEV", Path: d.Path, Err: errno}
		}

		return nil
	})
}

// retry calls f until it succeeds, fails in a way that is not passing, or ten
// seconds have gone by.
func retry(passing func(error) bool, f func() error) error {
	deadline := time.Now().Add(10 * time.Second)

	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := f()
		if err == nil || !passing(err) || time.Now().After(deadline) {
			return err
		}

		time.Sleep(pause)
	}
}
