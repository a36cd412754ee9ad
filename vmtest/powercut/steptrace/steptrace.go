// Package steptrace runs a program and stops it after each system call that
// changes something, so that a test can act between any two steps of it.
package steptrace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Call is a system call that a thread makes.
type Call struct {
	Number uint64
	Args   [6]uint64
}

// changing are the system calls that change a file system through names or open
// files. Opening a file may make one, but nothing comes of that alone.
var changing = []uint64{
	unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_UNLINKAT,
	unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_SYMLINKAT,
	unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE,
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
}

// Changes reports whether a call is one that changes a file system. Of ioctls
// those count whose number says that they take data from the caller and that are
// no searches: reading a tree is no change.
func Changes(c Call) bool {
	const (
		write       = 1 << 30    // _IOC_WRITE
		treeSearch  = 0xd0009411 // BTRFS_IOC_TREE_SEARCH
		treeSearch2 = 0xc0709411 // BTRFS_IOC_TREE_SEARCH_V2
		inodeLookup = 0xd0009412 // BTRFS_IOC_INO_LOOKUP
		inodePaths  = 0xc0389423 // BTRFS_IOC_INO_PATHS
		deviceInfo  = 0xd000941e // BTRFS_IOC_DEV_INFO
	)
	if c.Number != unix.SYS_IOCTL {
		return slices.Contains(changing, c.Number)
	}
	switch c.Args[1] {
	case treeSearch, treeSearch2, inodeLookup, inodePaths, deviceInfo:
		return false
	}
	return c.Args[1]&write != 0
}

// From linux/ptrace.h and linux/sched.h; x/sys has no names for them.
const (
	getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO
	infoEntry      = 1      // PTRACE_SYSCALL_INFO_ENTRY
	infoExit       = 2      // PTRACE_SYSCALL_INFO_EXIT
	syscallStop    = syscall.SIGTRAP | 0x80
)

// syscallInfo is struct ptrace_syscall_info, as far as it is read.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	call Call // at an entry; at an exit its result stands here
	_    [4]byte
}

// Run runs a program with arguments and calls after each time one of its threads
// has come out of a system call for which when is true, while that thread stands
// still. The others go on; children are not watched. What the program writes to its two outputs is returned with
// the error if it does not end with status 0. When the context ends, or after
// fails, the program is killed.
func Run(ctx context.Context, program string, args []string, when func(Call) bool, after func() error) error {
	result := make(chan error)
	go func() {
		// All of ptrace(2) has to come from the thread that started the program.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		result <- run(ctx, program, args, when, after)
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("%s, stopped after each change: %w", program, err)
	}
	return nil
}

func run(ctx context.Context, program string, args []string, when func(Call) bool, after func() error) (err error) {
	output, err := os.CreateTemp("", "steptrace-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, output.Close(), os.Remove(output.Name())) }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(program, append([]string{program}, args...), &os.ProcAttr{
		Files: []*os.File{null, output, output},
		Sys:   &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	t := &tracer{leader: p.Pid, when: when, after: after, inside: map[int]Call{}}
	stop := context.AfterFunc(ctx, func() { _ = unix.Kill(-t.leader, unix.SIGKILL) })
	defer stop()
	status, err := t.loop()
	_ = p.Release() // the loop has waited for it
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case status.Exited() && status.ExitStatus() == 0:
		return nil
	}
	text, err := os.ReadFile(output.Name())
	return errors.Join(&ExitError{Status: status.ExitStatus(), Output: string(bytes.TrimSpace(text))}, err)
}

// ExitError is the end of a program with another status than 0; -1 says that a
// signal ended it.
type ExitError struct {
	Status int
	Output string // both streams
}

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d\n%s", e.Status, e.Output) }

type tracer struct {
	leader int
	when   func(Call) bool
	after  func() error
	inside map[int]Call // the system call that a thread is in
	failed error
}

// loop lets the program run from stop to stop until it has ended.
func (t *tracer) loop() (unix.WaitStatus, error) {
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	set := false
	for {
		var status unix.WaitStatus
		// By group: a plain -1 would take the ends of our other children.
		tid, err := unix.Wait4(-t.leader, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("wait4", err)
		}
		if status.Exited() || status.Signaled() {
			delete(t.inside, tid)
			if tid == t.leader {
				return status, t.failed
			}
			continue
		}
		if !set {
			if err := unix.PtraceSetOptions(tid, options); err != nil {
				return 0, os.NewSyscallError("PTRACE_SETOPTIONS", err)
			}
			set = true
		}
		signal := 0
		s := status.StopSignal()
		switch {
		case s == syscallStop:
			t.syscallStop(tid)
		case s != unix.SIGTRAP && s != unix.SIGSTOP: // those are of exec, of a clone, of a new thread
			signal = int(s)
		}
		// ESRCH: killed in the meantime, which the next wait tells.
		if err := unix.PtraceSyscall(tid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, os.NewSyscallError("PTRACE_SYSCALL", err)
		}
	}
}

// syscallStop notes which call a thread goes into, and acts when it comes out.
func (t *tracer) syscallStop(tid int) {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info),
		uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return // killed in the meantime
	}
	switch info.op {
	case infoEntry:
		t.inside[tid] = info.call
	case infoExit:
		if t.failed != nil || !t.when(t.inside[tid]) {
			return
		}
		if t.failed = t.after(); t.failed != nil {
			_ = unix.Kill(-t.leader, unix.SIGKILL)
		}
	}
}
