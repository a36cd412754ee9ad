// Package standin puts recording programs in the place of nix, nixos-rebuild
// and the like, for tests of whole command lines by testscript.
//
// A stand-in called NAME writes down its call and then runs the shell script
// $STANDIN/NAME with its arguments and standard input; without that script it
// fails, so that no call passes unnoticed. What it was given is kept:
//
//	$STANDIN/calls        one line a call, quoted as for a shell
//	$STANDIN/log/N.args   the arguments, each ended by a NUL
//	$STANDIN/log/N.env    the environment, each ended by a NUL
//	$STANDIN/log/N.stdin  what it was given to read
package standin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/run"
)

// variable names the folder of scripts and records.
const variable = "STANDIN"

// statusUnknown is the exit status of a call that no script answers.
const statusUnknown = 97

// Commands are stand-ins of these names, for [testscript.Main].
func Commands(names ...string) map[string]func() {
	commands := map[string]func(){}
	for _, name := range names {
		commands[name] = func() { os.Exit(call(name, os.Args[1:])) }
	}
	return commands
}

// Setup makes the folder of a script's stand-ins: $WORK/standin.
func Setup(env *testscript.Env) error {
	dir := filepath.Join(env.WorkDir, "standin")
	env.Setenv(variable, dir)
	return os.MkdirAll(filepath.Join(dir, "log"), 0o777)
}

func call(name string, args []string) int {
	dir := os.Getenv(variable)
	stdin, err := record(dir, name, args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "stand-in for %s: %v\n", name, err)
		return statusUnknown
	}
	script := filepath.Join(dir, name)
	if _, err := os.Stat(script); err != nil {
		fmt.Fprintf(os.Stderr, "stand-in for %s: no script answers it\n", name)
		return statusUnknown
	}
	cmd := exec.Command("sh", append([]string{script}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintf(os.Stderr, "stand-in for %s: %v\n", name, err)
		return statusUnknown
	}
	return 0
}

// record writes a call down and gives what stands on its standard input; a
// terminal is not read.
func record(dir, name string, args []string) (stdin []byte, err error) {
	if _, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS); err != nil {
		if stdin, err = io.ReadAll(os.Stdin); err != nil {
			return nil, err
		}
	}
	number, err := next(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	base := filepath.Join(dir, "log", number)
	err = errors.Join(
		os.WriteFile(base+".args", joinNUL(append([]string{name}, args...)), 0o666),
		os.WriteFile(base+".env", joinNUL(os.Environ()), 0o666),
		os.WriteFile(base+".stdin", stdin, 0o666))
	if err != nil {
		return nil, err
	}
	calls, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(calls, run.New(name, args...))
	return stdin, errors.Join(err, calls.Close())
}

// next reserves the number of a call.
func next(dir string) (string, error) {
	for n := 1; ; n++ {
		number := fmt.Sprintf("%03d", n)
		f, err := os.OpenFile(filepath.Join(dir, number), os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return number, f.Close()
	}
}

func joinNUL(words []string) []byte {
	return []byte(strings.Join(words, "\x00") + "\x00")
}
