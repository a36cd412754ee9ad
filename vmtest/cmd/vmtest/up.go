package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/vmtest/accel"
	"nixos-go/vmtest/machine"
)

func (t *tool) guestFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "guest", EnvVars: []string{"VM_GUEST"}, Value: t.guests[0].name,
		Usage: "the kind of machine: `GUEST`, one of those that setup lists",
	}
}

func (t *tool) setupCommand() *cli.Command {
	return &cli.Command{
		Name:   "setup",
		Usage:  "fetch and build what a guest needs",
		Flags:  []cli.Flag{t.guestFlag()},
		Action: t.action(clikit.NoArgs, t.setup),
	}
}

func (t *tool) setup(c *cli.Context, p place) error {
	g, err := t.guest(c.String("guest"))
	if err != nil {
		return err
	}
	if _, err := t.prepare(c.Context, p, g); err != nil {
		return err
	}
	for _, g := range t.guests {
		t.env.UI.Infof("guest %s: %s", g.name, g.about)
	}
	t.env.UI.Hintf("%s up --guest %s boots it", name, g.name)
	return nil
}

// prepare makes a guest's files, and finds out how it runs here.
func (t *tool) prepare(ctx context.Context, p place, g guest) (machine.Spec, error) {
	t.env.UI.Stepf("guest %s", g.name)
	spec, err := g.make(ctx, p)
	if err != nil {
		return spec, err
	}
	if spec.Arch == machine.Arch(runtime.GOARCH) {
		choice, err := accel.Probe(ctx, p.cache, p.packages())
		if err != nil {
			return spec, err
		}
		t.env.UI.Infof("runs under %s: %s", choice.Accel, choice.Why)
		spec.Accel = choice.Accel
	}
	return spec, nil
}

func timeoutFlag() cli.Flag {
	return &cli.DurationFlag{Name: "timeout", Value: 5 * time.Minute, Usage: "how long the guest may take to come up: `TIME`"}
}

func (t *tool) upCommand() *cli.Command {
	return &cli.Command{
		Name:  "up",
		Usage: "boot a machine and leave it running",
		Description: "A machine that was stopped starts again on its own disks. Otherwise it is made: from a checkpoint " +
			"with --from, else as a new one of the kind --guest.",
		Flags: []cli.Flag{
			nameFlag(), t.guestFlag(), timeoutFlag(),
			&cli.StringFlag{Name: "from", Usage: "begin at the checkpoint `NAME`"},
		},
		Action: t.action(clikit.NoArgs, t.up),
	}
}

func (t *tool) up(c *cli.Context, p place) error {
	m, err := t.machine(c, p)
	if err != nil {
		return err
	}
	return t.start(c, m)
}

// machine finds the machine or makes it.
func (t *tool) machine(c *cli.Context, p place) (*machine.Machine, error) {
	called := c.String("name")
	if err := checkName(called); err != nil {
		return nil, err
	}
	m, err := machine.Load(p.machine(called))
	switch {
	case err == nil && (c.String("from") != "" || c.IsSet("guest")):
		return nil, clikit.WithHint(fmt.Errorf("there is a machine %s already", called), name+" clean takes it away; --name makes another")
	case err == nil || !errors.Is(err, os.ErrNotExist):
		return m, err
	case c.String("from") != "":
		return fromCheckpoint(c, p, c.String("from"))
	}
	g, err := t.guest(c.String("guest"))
	if err != nil {
		return nil, err
	}
	spec, err := t.prepare(c.Context, p, g)
	if err != nil {
		return nil, err
	}
	spec.Name = called
	return machine.Create(c.Context, p.machine(called), spec)
}

// start starts a machine so that it outlives this process, and waits for its
// guest.
func (t *tool) start(c *cli.Context, m *machine.Machine) error {
	if err := m.Attach(c.Context); err == nil {
		t.env.UI.Donef("%s is running already", m.Spec.Name)
		return nil
	}
	began := time.Now()
	if err := m.Start(c.Context, machine.Detached()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(c.Context, c.Duration("timeout"), errors.New("--timeout is over"))
	defer cancel()
	hello, err := m.Ready(ctx)
	if err != nil {
		return clikit.WithHint(err, "it goes on: "+name+" ssh shows its console, "+name+" stop --kill ends it")
	}
	t.env.UI.Donef("%s is up in %v: Linux %s on %s", m.Spec.Name, time.Since(began).Round(100*time.Millisecond), hello.Kernel, hello.Machine)
	if n := m.Spec.Network; n != nil {
		for _, port := range n.Forward {
			t.env.UI.Infof("its port %d is 127.0.0.1:%d", port, m.Port(port))
		}
	}
	t.env.UI.Hintf("%[1]s ssh, %[1]s run PROGRAM, %[1]s stop; its files are in %[2]s", name, m.Dir)
	m.Detach()
	return nil
}

func (t *tool) stopCommand() *cli.Command {
	return &cli.Command{
		Name:  "stop",
		Usage: "power a machine off",
		Flags: []cli.Flag{
			nameFlag(),
			&cli.BoolFlag{Name: "kill", Usage: "pull the plug, for a guest that does not answer"},
			&cli.DurationFlag{Name: "timeout", Value: 2 * time.Minute, Usage: "how long the guest may take: `TIME`"},
		},
		Action: t.action(clikit.NoArgs, t.stop),
	}
}

func (t *tool) stop(c *cli.Context, p place) error {
	m, err := p.load(c.String("name"))
	if err != nil {
		return err
	}
	err = m.Attach(c.Context)
	if errors.Is(err, machine.ErrStopped) {
		t.env.UI.Donef("%s is not running", m.Spec.Name)
		return nil
	}
	if err != nil {
		return err
	}
	if c.Bool("kill") {
		err = m.Stop()
	} else {
		ctx, cancel := context.WithTimeoutCause(c.Context, c.Duration("timeout"), errors.New("--timeout is over"))
		defer cancel()
		err = m.PowerOff(ctx)
	}
	if err != nil {
		return clikit.WithHint(err, name+" stop --kill does not ask the guest")
	}
	t.env.UI.Donef("%s is off", m.Spec.Name)
	return nil
}
