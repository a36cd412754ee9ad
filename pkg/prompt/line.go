package prompt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	t.explain(q)
	_, _ = fmt.Fprintf(t.out, "%s %s: ", t.mark(), q.Text)
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
	keys, err := newKeyboard(ctx, in)
	if err != nil {
		return 0, err
	}
	defer keys.Close()
	for n := 0; ; n++ {
		var one [1]byte
		_, err := keys.Read(one[:])
		switch {
		case errors.Is(err, io.EOF): // Ctrl-D, or the terminal is gone
			return 0, ErrInterrupted
		case err != nil:
			return 0, err
		case one[0] == '\n':
			return n, nil
		case n == len(buffer):
			return 0, fmt.Errorf("the answer is longer than %d bytes", len(buffer))
		}
		buffer[n] = one[0]
	}
}

// line shows a question and reads a visible answer.
func (t *Terminal) line(ctx context.Context, question string) (string, error) {
	_, _ = fmt.Fprintf(t.out, "%s %s ", t.mark(), question)
	buffer := make([]byte, longestLine)
	n, err := readLine(ctx, t.in, buffer)
	if err != nil {
		_, _ = fmt.Fprintln(t.out)
		return "", err
	}
	return strings.TrimSpace(string(buffer[:n])), nil
}

// mark stands before every question, survey's as well.
func (t *Terminal) mark() string {
	if t.linesOnly() || t.getenv("NO_COLOR") != "" {
		return "?"
	}
	return "\x1b[32m?\x1b[0m"
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
