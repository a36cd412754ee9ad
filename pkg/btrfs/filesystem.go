package btrfs

import (
	"context"
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsBtrfs reports whether an open file lies on btrfs.
func IsBtrfs(f *os.File) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: f.Name(), Err: err}
	}
	return st.Type == unix.BTRFS_SUPER_MAGIC, nil
}

// Filesystem is what BTRFS_IOC_FS_INFO and BTRFS_IOC_DEV_INFO tell of a mounted
// file system.
type Filesystem struct {
	ID      UUID
	Devices []Device
}

// Device is one device of a file system.
type Device struct {
	ID    uint64
	UUID  UUID
	Bytes uint64
	Path  string // empty for a missing device
}

// Missing reports whether the file system works without this device (degraded).
func (d Device) Missing() bool { return d.Path == "" }

// ReadFilesystem tells of the file system that an open file lies on.
func ReadFilesystem(f *os.File) (Filesystem, error) {
	var a fsInfoArgs
	if err := ioctl(f, "read file system info of", iocFSInfo, unsafe.Pointer(&a)); err != nil {
		return Filesystem{}, err
	}
	out := Filesystem{ID: a.fsid}
	for id := uint64(0); id <= a.maxID; id++ {
		d := devInfoArgs{devID: id}
		err := ioctl(f, "read device info of", iocDevInfo, unsafe.Pointer(&d))
		if errors.Is(err, unix.ENODEV) {
			continue // ids have gaps after a device was removed
		}
		if err != nil {
			return Filesystem{}, err
		}
		out.Devices = append(out.Devices, Device{ID: id, UUID: d.uuid, Bytes: d.totalBytes, Path: cString(d.path[:])})
	}
	return out, nil
}

// Sync commits everything that the file system of f holds in memory (syncfs).
func Sync(f *os.File) error {
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

// StartSync starts a commit without waiting and gives its transaction.
func StartSync(f *os.File) (uint64, error) {
	var transID uint64
	err := ioctl(f, "start sync of", iocStartSync, unsafe.Pointer(&transID))
	return transID, err
}

// WaitSync waits until a transaction that StartSync named is on disk.
func WaitSync(f *os.File, transID uint64) error {
	return ioctl(f, "wait for sync of", iocWaitSync, unsafe.Pointer(&transID))
}

// WaitDeleted waits until the destroyed subvolume with the given tree id is gone
// and its space is free. The subvolume must have been destroyed, or this
// waits until the context ends.
//
// The kernel frees it in the background, in a thread that wakes up twice a minute, or
// when BTRFS_IOC_SYNC commits (not syncfs). BTRFS_IOC_SUBVOL_SYNC_WAIT (Linux 6.13)
// would block without regard to the context, so the root tree is asked instead.
func WaitDeleted(ctx context.Context, f *os.File, id uint64) error {
	const longest = 500 * time.Millisecond
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		exists, err := treeExists(f, id)
		if err != nil || !exists {
			return err
		}
		// Again each time: the thread may have been busy when it was woken.
		if err := ioctl(f, "sync", iocSync, nil); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// treeExists reports whether the root tree still has a subvolume.
func treeExists(f *os.File, id uint64) (bool, error) {
	found := false
	key := SearchKey{
		Tree: RootTreeID,
		Min:  Key{id, RootItemKey, 0},
		Max:  Key{id, RootItemKey, ^uint64(0)},
	}
	err := NewLookup(f).Search(key, func(Item) error {
		found = true
		return ErrStop
	})
	return found, err
}

// controlDevice is where the kernel takes device scans.
const controlDevice = "/dev/btrfs-control"

// ScanDevice makes a device known to the driver, as a file system of several
// devices needs before it is mounted (BTRFS_IOC_SCAN_DEV).
func ScanDevice(device string) error {
	return deviceIoctl("scan device", iocScanDev, device)
}

// DevicesReady reports whether all devices of the file system of which device is
// one are known to the driver (BTRFS_IOC_DEVICES_READY).
func DevicesReady(device string) (bool, error) {
	control, a, err := openControl("check devices of", device)
	if err != nil {
		return false, err
	}
	defer control.Close()
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), iocDevicesReady, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return false, &os.PathError{Op: "check devices of", Path: device, Err: errno}
	}
	return n == 0, nil
}

func deviceIoctl(op string, number uintptr, device string) error {
	control, a, err := openControl(op, device)
	if err != nil {
		return err
	}
	defer control.Close()
	err = ioctl(control, op, number, unsafe.Pointer(a))
	if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
		pathErr.Path = device
	}
	return err
}

func openControl(op, device string) (*os.File, *volArgs, error) {
	a := &volArgs{}
	if len(device) >= len(a.name) {
		return nil, nil, &os.PathError{Op: op, Path: device, Err: unix.ENAMETOOLONG}
	}
	copy(a.name[:], device)
	control, err := os.OpenFile(controlDevice, os.O_RDWR, 0)
	return control, a, err
}
