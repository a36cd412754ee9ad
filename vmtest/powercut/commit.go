package powercut

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The label ioctls of linux/fs.h: _IOR and _IOW(0x94, 49 and 50, char[256]).
const (
	labelSize     = 256 // FSLABEL_MAX
	iocLabelRead  = 2<<30 | labelSize<<16 | 0x94<<8 | 49
	iocLabelWrite = 1<<30 | labelSize<<16 | 0x94<<8 | 50
)

// Commit ends the running transaction of a btrfs without writing the files' data
// first. The kernel does so on its own every thirty seconds, and whenever some
// other program needs it, so a program must survive it at any moment.
//
// It sets the label to what it is. BTRFS_IOC_START_SYNC would be plainer, but may
// wait those thirty seconds: the kernel's transaction thread misses a wakeup that
// comes just before it goes to sleep.
func Commit(top *os.File) error {
	var label [labelSize]byte
	for _, number := range []uintptr{iocLabelRead, iocLabelWrite} {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, top.Fd(), number, uintptr(unsafe.Pointer(&label)))
		if errno != 0 {
			return &os.PathError{Op: "commit", Path: top.Name(), Err: errno}
		}
	}
	return nil
}
