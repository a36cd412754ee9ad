// Command vm-agent is the agent in a guest. As a service it serves the
// virtio-serial port until the machine ends; as PID 1 it first makes a system
// of an initrd: it mounts what the kernel offers, loads the modules that
// /modules.list names, and then looks after the processes that nobody else
// waits for.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/agent/serve"
)

// portPatience is how long the port may take to appear.
const portPatience = 60 * time.Second

func main() {
	if os.Getpid() == 1 {
		initialise()
		return
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "vm-agent:", err)
		os.Exit(1)
	}
}

// work serves the port until it fails.
func work() error {
	conn, err := openPort()
	if err != nil {
		return err
	}
	if !isSystemd() {
		go offerShell()
	}
	server := &serve.Server{Power: power}
	return server.Serve(conn)
}

// openPort waits for the port and opens it.
func openPort() (io.ReadWriter, error) {
	for deadline := time.Now().Add(portPatience); ; time.Sleep(10 * time.Millisecond) {
		if device := findPort(); device != "" {
			// Blocking: without a host at the other end, a write waits for one.
			fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				return port{os.NewFile(uintptr(fd), device)}, nil
			}
			if !errors.Is(err, unix.ENOENT) { // udev has yet to make it
				return nil, &os.PathError{Op: "open", Path: device, Err: err}
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no virtio-serial port named %s: is virtio_console loaded?", agent.PortName)
		}
	}
}

// findPort is the device of the port, empty where there is none yet.
func findPort() string {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name") // the pattern is good
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(b)) == agent.PortName {
			return "/dev/" + filepath.Base(filepath.Dir(name))
		}
	}
	return ""
}

// port is a virtio-serial port, which reads as ended while no host is there.
type port struct{ *os.File }

func (p port) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// power ends the machine: by the system call where there is no init system,
// else by asking systemd.
func power(how agent.Power) error {
	if isSystemd() {
		verb := map[agent.Power]string{agent.PowerOff: "poweroff", agent.Reboot: "reboot"}[how]
		if verb == "" {
			return fmt.Errorf("unknown way to end: %q", how)
		}
		out, err := exec.Command("systemctl", "--no-block", verb).CombinedOutput()
		if err != nil {
			return fmt.Errorf("systemctl %s: %w\n%s", verb, err, out)
		}
		return nil
	}
	unix.Sync()
	command, ok := map[agent.Power]int{
		agent.PowerOff: unix.LINUX_REBOOT_CMD_POWER_OFF,
		agent.Reboot:   unix.LINUX_REBOOT_CMD_RESTART,
	}[how]
	if !ok {
		return fmt.Errorf("unknown way to end: %q", how)
	}
	return unix.Reboot(command)
}

// isSystemd is how sd_booted(3) tells.
func isSystemd() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}
