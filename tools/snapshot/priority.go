package snapshot

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Of ioprio_set(2), linux/ioprio.h.
const (
	ioprioWhoProcess = 1
	ioprioClassIdle  = 3
	ioprioClassShift = 13
)

// lowestNice is the least favourable of setpriority(2).
const lowestNice = 19

// atIdlePriority does work on a thread that gets the disk only when nobody else wants
// it, and the processor last. Both priorities are a thread's own, so the thread is given
// up afterwards.
func atIdlePriority(work func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := lowerPriority()
		if err == nil {
			err = work()
		}
		done <- err
	}()
	return <-done
}

func lowerPriority() error {
	thread := unix.Gettid()
	if err := unix.Setpriority(unix.PRIO_PROCESS, thread, lowestNice); err != nil {
		return os.NewSyscallError("setpriority", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(thread), ioprioClassIdle<<ioprioClassShift)
	if errno != 0 {
		return os.NewSyscallError("ioprio_set", errno)
	}
	return nil
}
