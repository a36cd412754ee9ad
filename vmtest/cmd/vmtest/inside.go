package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
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
		Action: t.action(someProgram, t.run),
	}
}

func someProgram(c *cli.Context) error {
	if c.NArg() == 0 {
		return clikit.Usagef("want a program: %s", c.Command.ArgsUsage)
	}
	return nil
}

func (t *tool) run(c *cli.Context, p place) error {
	m, err := p.attach(c, c.String("name"))
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
		if err := answers(ctx, m); err != nil {
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

// answers is an error where the guest's agent does not say a word for a while.
func answers(ctx context.Context, m *machine.Machine) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("its agent does not answer"))
	defer cancel()
	_, err := m.Agent().Hello(ctx)
	return err
}
