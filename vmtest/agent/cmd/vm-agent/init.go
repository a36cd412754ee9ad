package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/vmtest/agent"
)

// busybox gives a script its commands.
const busybox = "/bin/busybox"

// initialise is PID 1.
func initialise() {
	for _, m := range []struct{ what, where string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		complain(mount(m.what, m.where))
	}
	for key, value := range map[string]string{"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root"} {
		complain(os.Setenv(key, value))
	}
	list, err := os.ReadFile("/modules.list")
	if !errors.Is(err, os.ErrNotExist) {
		complain(err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		complain(loadModule(filepath.Join("/lib/modules", name)))
	}
	// Some that the kernel makes only where somebody asks for them.
	if _, err := os.Stat("/sys/firmware/efi/efivars"); err == nil {
		complain(mount("efivarfs", "/sys/firmware/efi/efivars"))
	}
	if _, err := os.Stat(busybox); err == nil {
		out, err := exec.Command(busybox, "--install", "-s", "/bin").CombinedOutput()
		if err != nil {
			complain(fmt.Errorf("busybox --install: %w\n%s", err, out))
		}
	}
	complain(runChild())
	complain(power(agent.PowerOff))
}

// complain goes to the console; the boot goes on, and the host sees what works.
func complain(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm-agent:", err)
	}
}

func mount(what, where string) error {
	if err := os.MkdirAll(where, 0o755); err != nil {
		return err
	}
	err := unix.Mount(what, where, what, 0, "")
	if err != nil && !errors.Is(err, unix.EBUSY) { // the kernel may have mounted /dev
		return &os.PathError{Op: "mount " + what + " on", Path: where, Err: err}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "load module", Path: path, Err: err}
	}
	return nil
}

// consoleShell is in the kernel's command line where somebody wants a shell on the
// console.
const consoleShell = "vm-agent.shell"

// offerShell runs shells on the serial console for ever, one after the other.
func offerShell() {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil || !slices.Contains(strings.Fields(string(cmdline)), consoleShell) {
		return
	}
	// /dev/console itself is no terminal that a shell could control.
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		complain(err)
		return
	}
	names := strings.Fields(string(active))
	for {
		err := runShell("/dev/" + names[len(names)-1])
		if err != nil {
			complain(err)
			time.Sleep(time.Second)
		}
	}
}

func runShell(terminal string) error {
	tty, err := os.OpenFile(terminal, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	shell := exec.Command("/bin/sh", "-l")
	shell.Dir = "/root"
	shell.Stdin, shell.Stdout, shell.Stderr = tty, tty, tty
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = shell.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil // its last command failed
	}
	return err
}

// runChild runs the agent itself as a child, and waits for every process that
// becomes ours until that one ends. Waiting for all and waiting for the
// programs that one has started do not go together in one process.
func runChild() error {
	child, err := os.StartProcess("/proc/self/exe", []string{"vm-agent"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Env:   os.Environ(),
		Dir:   "/",
	})
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("wait4", err)
		}
		if pid == child.Pid {
			return fmt.Errorf("the agent has ended: exit status %d, signal %d", status.ExitStatus(), status.Signal())
		}
	}
}
