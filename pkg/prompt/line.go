package prompt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/run"
)

// longestLine is what a terminal accepts as one line, in bytes (N_TTY of
// Linux).
const longestLine = 4096

// Password implements [Prompter]. The line is read into one buffer that never
// grows, so that no copy of it stays behind in memory, as term.ReadPassword
// would leave.
func (t *Terminal) Password(ctx context.Context, q Question) (secret []byte, err error) {
	if err := t.check(q); err != nil {
		return nil, err
	}
	restore, err := hideInput(t.in)
	if err != nil {
		return nil, err
	}
	defer func() {
		restore()
		_, _ = fmt.Fprintln(t.out)
	}()
	_, _ = fmt.Fprintf(t.out, "%s: ", q.Text)
	buffer := make([]byte, longestLine)
	defer run.Wipe(buffer)
	n, err := readLine(ctx, t.in, buffer)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(buffer[:n]), nil
}

// hideInput turns the echo off, lines and signals stay with the kernel.
func hideInput(in *os.File) (restore func(), err error) {
	fd := int(in.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("reading the terminal's state: %w", err)
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	// TCSETSF drops what was typed before the question could be seen.
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &hidden); err != nil {
		return nil, fmt.Errorf("hiding what is typed: %w", err)
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// readLine reads up to a newline, which is not part of the result, or until
// the context ends.
func readLine(ctx context.Context, in *os.File, buffer []byte) (int, error) {
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("pipe: %w", err)
	}
	defer func() { _ = unix.Close(wake[0]) }()
	stop := context.AfterFunc(ctx, func() { _ = unix.Close(wake[1]) })
	defer func() {
		if stop() {
			_ = unix.Close(wake[1])
		}
	}()
	n := 0
	for {
		ready := []unix.PollFd{
			{Fd: int32(in.Fd()), Events: unix.POLLIN},
			{Fd: int32(wake[0]), Events: unix.POLLIN},
		}
		if _, err := unix.Poll(ready, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return 0, fmt.Errorf("waiting for the terminal: %w", err)
		}
		if ready[1].Revents != 0 {
			return 0, ErrInterrupted
		}
		var one [1]byte
		got, err := unix.Read(int(in.Fd()), one[:])
		switch {
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return 0, fmt.Errorf("reading from the terminal: %w", err)
		case got == 0: // Ctrl-D, or the terminal is gone
			return 0, ErrInterrupted
		case one[0] == '\n':
			return n, nil
		case n == len(buffer):
			return 0, fmt.Errorf("the answer is longer than %d bytes", len(buffer))
		}
		buffer[n] = one[0]
		n++
	}
}

// line shows a question and reads a visible answer.
func (t *Terminal) line(ctx context.Context, question string) (string, error) {
	_, _ = fmt.Fprintf(t.out, "%s ", question)
	buffer := make([]byte, longestLine)
	n, err := readLine(ctx, t.in, buffer)
	if err != nil {
		_, _ = fmt.Fprintln(t.out)
		return "", err
	}
	return strings.TrimSpace(string(buffer[:n])), nil
}

func (t *Terminal) explain(q Question) {
	if q.Help != "" {
		_, _ = fmt.Fprintln(t.out, q.Help)
	}
}

func (t *Terminal) confirmLine(ctx context.Context, q Question, byDefault bool) (bool, error) {
	t.explain(q)
	choices := "[y/N]"
	if byDefault {
		choices = "[Y/n]"
	}
	for {
		answer, err := t.line(ctx, q.Text+" "+choices)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(answer) {
		case "":
			return byDefault, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		_, _ = fmt.Fprintln(t.out, "Answer yes or no.")
	}
}

func (t *Terminal) selectLine(ctx context.Context, q Question, options []string, byDefault int) (int, error) {
	t.explain(q)
	for i, option := range options {
		_, _ = fmt.Fprintf(t.out, "%3d) %s\n", i+1, option)
	}
	for {
		answer, err := t.line(ctx, fmt.Sprintf("%s [%d]", q.Text, byDefault+1))
		if err != nil {
			return 0, err
		}
		if answer == "" {
			return byDefault, nil
		}
		if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= len(options) {
			return n - 1, nil
		}
		_, _ = fmt.Fprintf(t.out, "Answer a number from 1 to %d.\n", len(options))
	}
}

func (t *Terminal) inputLine(ctx context.Context, q Question, byDefault string) (string, error) {
	t.explain(q)
	question := q.Text + ":"
	if byDefault != "" {
		question = fmt.Sprintf("%s [%s]:", q.Text, byDefault)
	}
	answer, err := t.line(ctx, question)
	if err == nil && answer == "" {
		answer = byDefault
	}
	return answer, err
}
