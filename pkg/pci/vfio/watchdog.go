package vfio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/pci"
)

// Watchdog lets a child process do what can hang inside the kernel: a write to
// a sysfs file (the driver's remove function runs in it, and NVIDIA's waits
// for ever while the card is in use) and the removal of a module.
//
// The child is the tool itself, called with arguments after which it runs
// [Child]. A child that overruns is killed; one that cannot be killed, because
// it sleeps inside the kernel, is left behind and reported as [*HungError].
type Watchdog struct {
	// Program and Args start the child; Name is its argv[0], by which the one
	// binary of all tools knows which tool it is ("" is Program).
	Program string
	Name    string
	Args    []string
	// Limit is how long one operation may take; 0 is 30 seconds.
	Limit time.Duration
	// Kill ends an overdue child; nil is SIGKILL. A test that needs a child
	// which cannot be killed replaces it.
	Kill func(*os.Process) error
}

// HungError is an operation that never came back.
type HungError struct {
	Op, Path string
	Limit    time.Duration
	// PID and Start name the child that still hangs in the kernel; PID is 0
	// where it could be killed.
	PID   int
	Start uint64
}

// Error says what hangs.
func (e *HungError) Error() string {
	text := fmt.Sprintf("%s %s: no answer from the kernel within %s", e.Op, e.Path, e.Limit)
	if e.PID != 0 {
		text += fmt.Sprintf(" (process %d hangs in it and cannot be ended)", e.PID)
	}
	return text
}

// Unwrap makes it match [context.DeadlineExceeded].
func (e *HungError) Unwrap() error { return context.DeadlineExceeded }

// request is what the child is asked for, on its standard input.
type request struct {
	Op    string `json:"op"` // "write" or "unload"
	Root  string `json:"root,omitempty"`
	Path  string `json:"path"`
	Value string `json:"value,omitempty"`
}

// reply is what the child answers, on its standard output.
type reply struct {
	Errno syscall.Errno `json:"errno"`
	Text  string        `json:"text"`
}

// Write writes a value to a file below root, in one write(2) as sysfs wants
// it. Errors are *fs.PathError around the errno, or *HungError.
func (w *Watchdog) Write(root, path, value string) error {
	return w.run(request{Op: "write", Root: root, Path: path, Value: value})
}

// Unload removes a kernel module that nothing uses (delete_module(2) with
// O_NONBLOCK).
func (w *Watchdog) Unload(module string) error {
	return w.run(request{Op: "unload", Path: module})
}

func (w *Watchdog) limit() time.Duration {
	if w.Limit > 0 {
		return w.Limit
	}
	return 30 * time.Second
}

func (w *Watchdog) run(r request) error {
	input, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.Op, r.Path, err)
	}
	var output bytes.Buffer
	child := exec.Command(w.Program, w.Args...)
	if w.Name != "" {
		child.Args[0] = w.Name
	}
	child.Stdin = bytes.NewReader(input)
	child.Stdout = &output
	// Ctrl-C at the terminal must not tear a half-done transaction apart.
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	child.WaitDelay = time.Second
	if err := child.Start(); err != nil {
		return fmt.Errorf("%s %s: start the watched child: %w", r.Op, r.Path, err)
	}
	done := make(chan struct{})
	var waitErr error
	go func() {
		waitErr = child.Wait()
		close(done)
	}()
	timer := time.NewTimer(w.limit())
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		return w.overdue(r, child.Process, done)
	}
	var answer reply
	if decodeErr := json.Unmarshal(output.Bytes(), &answer); decodeErr != nil {
		return fmt.Errorf("%s %s: the watched child gave no answer (%s): %w", r.Op, r.Path, ending(child, waitErr), decodeErr)
	}
	switch {
	case answer.Errno != 0:
		return &fs.PathError{Op: r.Op, Path: r.Path, Err: answer.Errno}
	case answer.Text != "":
		return fmt.Errorf("%s %s: %w", r.Op, r.Path, errors.New(answer.Text))
	}
	return nil
}

// ending is how a child ended, as text: an *exec.ExitError must not escape, see
// [run.Error].
func ending(child *exec.Cmd, err error) string {
	if child.ProcessState != nil {
		return child.ProcessState.String()
	}
	return err.Error()
}

// overdue ends a child that takes too long.
func (w *Watchdog) overdue(r request, p *os.Process, done <-chan struct{}) error {
	hung := &HungError{Op: r.Op, Path: r.Path, Limit: w.limit(), PID: p.Pid, Start: startOf(p.Pid)}
	kill := w.Kill
	if kill == nil {
		kill = (*os.Process).Kill
	}
	if err := kill(p); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(hung, err)
	}
	select {
	case <-done:
		hung.PID, hung.Start = 0, 0
	case <-time.After(2 * time.Second):
	}
	return hung
}

// startOf is when a process began, 0 where it has ended.
func startOf(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	stat, err := pci.ParseStat(text)
	if err != nil || stat.State == 'Z' {
		return 0
	}
	return stat.Start
}

// Alive tells whether the child that hung is still there. It has to look at
// the real /proc, whatever root the machine is read from.
func (e *HungError) Alive() bool {
	return e.PID != 0 && e.Start != 0 && startOf(e.PID) == e.Start
}

// Child is the watched process: it reads one request, does it and answers.
func Child(in io.Reader, out io.Writer) error {
	var r request
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	var answer reply
	if err := serve(r); err != nil {
		answer.Text = err.Error()
		errors.As(err, &answer.Errno)
	}
	return json.NewEncoder(out).Encode(answer)
}

func serve(r request) error {
	switch r.Op {
	case "write":
		return write(r)
	case "unload":
		return unix.DeleteModule(r.Path, unix.O_NONBLOCK)
	default:
		return fmt.Errorf("unknown operation %q", r.Op)
	}
}

func write(r request) error {
	root, err := os.OpenRoot(r.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	file, err := root.OpenFile(r.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(r.Value)
	return errors.Join(err, file.Close())
}
