package prompt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// keyboard reads from a terminal until a context ends; then its Read gives
// [ErrInterrupted].
type keyboard struct {
	file *os.File
	wake [2]int
	stop func() bool
}

func newKeyboard(ctx context.Context, file *os.File) (*keyboard, error) {
	k := &keyboard{file: file}
	if err := unix.Pipe2(k.wake[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	// The reading end becomes ready when the writing end is closed.
	k.stop = context.AfterFunc(ctx, func() { _ = unix.Close(k.wake[1]) })
	return k, nil
}

// Close releases what wakes the reader; the terminal stays open.
func (k *keyboard) Close() {
	if k.stop() {
		_ = unix.Close(k.wake[1])
	}
	_ = unix.Close(k.wake[0])
}

// Fd is the terminal's descriptor, whose modes survey sets.
func (k *keyboard) Fd() uintptr { return k.file.Fd() }

// Read implements [io.Reader].
func (k *keyboard) Read(p []byte) (int, error) {
	for {
		ready := []unix.PollFd{
			{Fd: int32(k.file.Fd()), Events: unix.POLLIN},
			{Fd: int32(k.wake[0]), Events: unix.POLLIN},
		}
		if _, err := unix.Poll(ready, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return 0, fmt.Errorf("waiting for the terminal: %w", err)
		}
		if ready[1].Revents != 0 {
			return 0, ErrInterrupted
		}
		n, err := unix.Read(int(k.file.Fd()), p)
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return 0, fmt.Errorf("reading from the terminal: %w", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
