package powercut

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// errDaemonEnded is why a recorded program is interrupted when its disk is gone.
var errDaemonEnded = errors.New(daemonProgram + " ended while the disk was in use")

// Record runs a program on a disk that is a copy of the image base, and leaves
// in dir, which must exist, the recording of what was written. The program gets
// the name of a block device and must have unmounted it when it returns.
//
// An error of the program is returned as it is, and leaves the recording all the
// same; so does the end of ctx, which the program has to obey. Whatever happens,
// a panic of the program included, the device, the daemon and mounts of the
// device are gone when Record returns.
//
// It needs root, loop devices, FUSE and qemu-storage-daemon.
func Record(ctx context.Context, dir, base string, program func(ctx context.Context, device string) error) (err error) {
	before, last := filepath.Join(dir, baseName), filepath.Join(dir, lastName)
	if err := copyFile(before, base); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err := copyFile(last, base); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	d, err := startDaemon(ctx, last, filepath.Join(dir, logName), servedName(dir))
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	loop, err := attach(d.served)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer func() { err = errors.Join(err, unmountAll(loop.path()), loop.detach()) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-d.ended:
			cancel(errDaemonEnded)
		case <-ctx.Done():
		}
	}()
	return program(ctx, loop.path())
}

// CanRecord says what this machine lacks for recording a disk.
func CanRecord() error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("no FUSE: %w", err)
	}
	_, err := findDaemon()
	return err
}

// unmountAll takes away what is still mounted from a device, and reports it.
func unmountAll(device string) error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	var errs []error
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		// 36 35 98:0 /root /point options [optional…] - type source options,
		// proc_pid_mountinfo(5)
		mount, source, _ := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(mount), strings.Fields(source)
		if len(left) < 5 || len(right) < 2 || right[1] != device {
			continue
		}
		point := unescapeMount.Replace(left[4])
		errs = append(errs, fmt.Errorf("%s is still mounted on %s", device, point))
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			errs = append(errs, &os.PathError{Op: "unmount", Path: point, Err: err})
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}

// unescapeMount undoes the octal escapes of mountinfo.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
