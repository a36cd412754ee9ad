package powercut

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/vmtest/powercut/writelog"
)

// daemonProgram serves the disk that is recorded.
const daemonProgram = "qemu-storage-daemon"

// logSectorSize is the unit of the log, the logical sector of the disk, in bytes.
const logSectorSize = 512

// daemonGrace is how long the daemon may take to end before it is killed.
const daemonGrace = 10 * time.Second

// daemon is a running qemu-storage-daemon that serves an image as a FUSE file
// and logs what is written to it.
type daemon struct {
	served  string // the FUSE file
	cmd     *exec.Cmd
	monitor io.WriteCloser // commands of the QEMU Machine Protocol
	stderr  bytes.Buffer
	ended   chan struct{} // closed when the process has ended
	err     error         // how it ended; to be read after that
}

func findDaemon() (string, error) {
	program, err := exec.LookPath(daemonProgram)
	if err != nil {
		return "", fmt.Errorf("%w (Debian: package qemu-system-common; NixOS: qemu)", err)
	}
	return program, nil
}

// startDaemon serves image as the file served, which must not exist yet, and
// returns when it is there.
func startDaemon(ctx context.Context, image, log, served string) (*daemon, error) {
	program, err := findDaemon()
	if err != nil {
		return nil, err
	}
	// The daemon leaves the superblock alone until there is an entry.
	if err := os.WriteFile(log, writelog.Empty(logSectorSize), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(served, nil, 0o600); err != nil {
		return nil, err
	}
	d := &daemon{served: served, ended: make(chan struct{})}
	// Flushes to the host's disk mean nothing here: the log is what counts.
	disk := "driver=file,node-name=image,cache.no-flush=on,discard=unmap,filename=" + escape(image)
	sink := "driver=file,node-name=log-file,cache.no-flush=on,filename=" + escape(log)
	// The log's superblock is written after each entry, so that even the tail of
	// an interrupted recording counts.
	logging := "driver=blklogwrites,node-name=disk,file=image,log=log-file,discard=unmap," +
		"log-super-update-interval=1,log-sector-size=" + strconv.Itoa(logSectorSize)
	d.cmd = exec.Command(program, "--blockdev", disk, "--blockdev", sink, "--blockdev", logging,
		"--export", "type=fuse,id=export,node-name=disk,writable=on,allow-other=off,mountpoint="+escape(served),
		// Options take effect in their order, so the greeting of the monitor
		// comes when the export is there.
		"--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor")
	d.cmd.Stderr = &d.stderr
	if d.monitor, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// A group of its own, so that the terminal's Ctrl-C reaches us alone and the
	// disk does not vanish below a mounted file system.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go d.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	if err := d.waitReady(ctx, stdout); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", daemonProgram, err), d.stop())
	}
	return d, nil
}

// escape protects a file name in QEMU's option syntax, where a comma ends a value.
func escape(name string) string { return strings.ReplaceAll(name, ",", ",,") }

// run starts the daemon and waits for its end, all on one thread: the signal at
// the parent's death comes at the death of the thread that forked.
func (d *daemon) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := d.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	d.err = d.cmd.Wait()
	close(d.ended)
}

// waitReady waits for the greeting of the monitor, and checks that the served
// file is the daemon's and not the empty file below it.
func (d *daemon) waitReady(ctx context.Context, stdout io.Reader) error {
	greeting := make(chan error, 1)
	go func() {
		var message struct {
			QMP *json.RawMessage `json:"QMP"`
		}
		err := json.NewDecoder(stdout).Decode(&message)
		if err == nil && message.QMP == nil {
			err = errors.New("its monitor greets in an unknown way")
		}
		greeting <- err
		_, _ = io.Copy(io.Discard, stdout) // answers and events, until it ends
	}()
	select {
	case err := <-greeting:
		if err != nil {
			return fmt.Errorf("no monitor: %w", err)
		}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.served, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: d.served, Err: err}
	}
	if st.Type != unix.FUSE_SUPER_MAGIC {
		return fmt.Errorf("%s is not served: %w", d.served, unix.ENOTCONN)
	}
	return nil
}

// stop ends the daemon and takes its file away. The log is complete then.
func (d *daemon) stop() error {
	forced := false
	// Not a signal: one that comes just before the daemon goes to sleep does not
	// wake it. That this cannot be written shows in the end that does not come.
	_, _ = io.WriteString(d.monitor, `{"execute": "qmp_capabilities"} {"execute": "quit"}`+"\n")
	select {
	case <-d.ended:
	case <-time.After(daemonGrace):
		forced = true
		_ = d.cmd.Process.Kill()
		<-d.ended
	}
	err := d.err
	switch {
	case forced:
		err = fmt.Errorf("%s had to be killed", daemonProgram)
	case err != nil:
		err = fmt.Errorf("%s: %w\n%s", daemonProgram, plainExit(err), bytes.TrimSpace(d.stderr.Bytes()))
	}
	// A daemon that was killed leaves a dead mount.
	if unmountErr := unix.Unmount(d.served, unix.MNT_DETACH); unmountErr != nil && !errors.Is(unmountErr, unix.EINVAL) {
		err = errors.Join(err, &os.PathError{Op: "unmount", Path: d.served, Err: unmountErr})
	}
	return errors.Join(err, os.Remove(d.served))
}

// plainExit turns an *exec.ExitError into one that no command line library
// takes for an order to exit.
func plainExit(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.New(exit.Error())
	}
	return err
}

// servedName is the file by which the daemon serves the disk of a recording.
func servedName(dir string) string { return filepath.Join(dir, "served.img") }
