package btrfs

import (
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl calls the kernel on an open file; op names the operation in the error.
func ioctl(f *os.File, op string, number uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), number, uintptr(arg))
		runtime.KeepAlive(f)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return &os.PathError{Op: op, Path: f.Name(), Err: errno}
		}
		return nil
	}
}

// CheckName refuses what cannot be the name of one subvolume in a directory: an
// empty or too long name, `.`, `..`, a slash or a NUL. The error wraps EINVAL or
// ENAMETOOLONG.
func CheckName(name string) error {
	switch {
	case len(name) > MaxNameLength:
		return &os.PathError{Op: "check name", Path: name, Err: unix.ENAMETOOLONG}
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return &os.PathError{Op: "check name", Path: name, Err: unix.EINVAL}
	}
	return nil
}

// cString gives the bytes before the first NUL.
func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
