package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/machine"
)

func (t *tool) runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a program in a guest",
		ArgsUsage: "PROGRAM [ARGUMENT…]",
		Description: "Its output is ours. Where it has flags of its own, -- stands before it. No shell is involved: for " +
			"one, `run -- sh -c '…'`. Exit status 1 says that the program has failed; the message says how.",
		Flags: []cli.Flag{
			nameFlag(),
			&cli.BoolFlag{Name: "stdin", Usage: "give it our standard input to read"},
			&cli.DurationFlag{Name: "timeout", Usage: "kill it after `TIME`"},
		},
		Action: t.run,
	}
}

func (t *tool) run(c *cli.Context) error {
	if c.NArg() == 0 {
		return clikit.Usagef("want a program: %s", c.Command.ArgsUsage)
	}
	m, err := t.attach(c)
	if err != nil {
		return err
	}
	defer m.Detach()
	command := agent.Command{Argv: c.Args().Slice(), Stdout: os.Stdout, Stderr: os.Stderr}
	if c.Bool("stdin") {
		if command.Stdin, err = io.ReadAll(os.Stdin); err != nil {
			return err
		}
	}
	ctx := c.Context
	if timeout := c.Duration("timeout"); timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errors.New("--timeout is over"))
		defer cancel()
	}
	err = m.Within(ctx, func(ctx context.Context) error {
		// An answer first: a guest that does not answer is another thing than a
		// program that takes its time.
		hello, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("its agent does not answer"))
		defer cancel()
		if _, err := m.Agent().Hello(hello); err != nil {
			return err
		}
		_, err := m.Agent().Run(ctx, command)
		return err
	})
	if exit, ok := errors.AsType[*agent.ExitError](err); ok {
		// Its output is on the screen already.
		return fmt.Errorf("%s: exit status %d", exit.Command, exit.Result.Status)
	}
	return err
}

func (t *tool) sshCommand() *cli.Command {
	return &cli.Command{
		Name:  "ssh",
		Usage: "open a shell in a guest",
		Description: "By ssh where the guest has a server (its port 22 is forwarded), else on its serial console, where " +
			"Ctrl-] leaves.",
		Flags:  []cli.Flag{nameFlag()},
		Action: t.ssh,
	}
}

func (t *tool) ssh(c *cli.Context) error {
	m, err := t.attach(c)
	if err != nil {
		return err
	}
	defer m.Detach()
	if port := m.Port(22); port != 0 {
		_, err := t.env.Host.Run(c.Context, sshTo(m, port, c.Args().Slice()))
		return err
	}
	if c.Args().Present() {
		return clikit.Usagef("this guest has no ssh: %s run runs a program", name)
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return clikit.WithHint(errors.New("a console needs a terminal"), name+" run PROGRAM works without one")
	}
	console, err := m.OpenConsole()
	if err != nil {
		return err
	}
	defer console.Close()
	t.env.UI.Hintf("the serial console of %s; Enter wakes it, Ctrl-] leaves", m.Spec.Name)
	state, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return err
	}
	err = talk(c.Context, console, os.Stdin, os.Stdout)
	return errors.Join(err, term.Restore(int(os.Stdin.Fd()), state), t.env.UI.Print(""))
}

// sshTo is the command that logs in to a guest. It is no one's machine for long:
// its host key is new each time.
func sshTo(m *machine.Machine, port int, words []string) run.Command {
	args := []string{
		"-p", strconv.Itoa(port), "-o", "StrictHostKeyChecking=accept-new", "-o", "LogLevel=ERROR",
		"-o", "UserKnownHostsFile=" + filepath.Join(m.Dir, "known_hosts"), "root@127.0.0.1",
	}
	if key := filepath.Join(m.Dir, "ssh_key"); exists(key) {
		args = append([]string{"-i", key}, args...)
	}
	command := run.New("ssh", append(args, words...)...)
	command.Interactive = true
	return command
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// leave is Ctrl-].
const leave = 0x1d

// talk joins a terminal and a console until one of them ends, or the key to leave
// is pressed.
func talk(ctx context.Context, console io.ReadWriter, in io.Reader, out io.Writer) error {
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(out, console)
		ended <- err
	}()
	go func() {
		var key [1]byte
		for {
			_, err := in.Read(key[:])
			if err != nil || key[0] == leave {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				ended <- err
				return
			}
			if _, err := console.Write(key[:]); err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
