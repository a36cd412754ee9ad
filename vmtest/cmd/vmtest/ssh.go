package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/vmtest/machine"
)

func (t *tool) sshCommand() *cli.Command {
	return &cli.Command{
		Name:      "ssh",
		Usage:     "open a shell in a guest, or run a command line there",
		ArgsUsage: "[NAME] [-- COMMAND…]",
		Description: "By ssh as root where the guest has a server (its port 22 is forwarded), with a key that the machine's " +
			"folder has; else on its serial console, where Ctrl-] leaves. The guest's shell reads COMMAND, as ssh has it; " +
			"the exit status is that of it, or 255 where there is no connection.",
		Flags: []cli.Flag{
			nameFlag(),
			&cli.BoolFlag{Name: "console", Usage: "take the console, even where there is a server"},
		},
		Action: t.action(maybeMachine, t.ssh),
	}
}

// maybeMachine takes the name of a machine before "--", as --name does.
func maybeMachine(c *cli.Context) error {
	before, _ := clikit.SplitArgs(c)
	switch {
	case len(before) > 1:
		return clikit.Usagef("unexpected argument %q: a command stands after --", before[1])
	case len(before) == 1 && c.IsSet("name"):
		return clikit.Usagef("the machine is named twice: %s and --name", before[0])
	case len(before) == 1:
		return c.Set("name", before[0])
	}
	return nil
}

func (t *tool) ssh(c *cli.Context, p place) error {
	_, command := clikit.SplitArgs(c)
	m, err := p.attach(c, c.String("name"))
	if err != nil {
		return err
	}
	defer m.Detach()
	port := m.Port(sshPort)
	if port == 0 || c.Bool("console") {
		return t.console(c.Context, m, command)
	}
	key, err := m.SSHKey()
	if err != nil {
		return err
	}
	if err := admit(c.Context, m, key.Authorized); err != nil {
		return clikit.WithHint(err, "%s ssh --console shows what it does", name)
	}
	m.Detach() // its sockets serve one at a time, and others may want them meanwhile
	t.env.UI.Infof("%s by ssh, as root", m.Spec.Name)
	terminal := isTerminal(os.Stdin) && isTerminal(os.Stdout)
	_, err = t.env.Host.Run(c.Context, sshTo(port, key.File, terminal, command))
	if status, ok := run.StatusOf(err); ok {
		return &clikit.StatusError{Status: status}
	}
	return err
}

// sshPort is where a guest with a server listens.
const sshPort = 22

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// admit lets the key of a line of authorized_keys(5) in. The agent puts it there
// each time: a reset of the guest takes it away.
func admit(ctx context.Context, m *machine.Machine, key string) error {
	return m.Within(ctx, func(ctx context.Context) error {
		if err := answers(ctx, m); err != nil {
			return err
		}
		_, err := m.Agent().Shell(ctx, `umask 077; mkdir -p /root/.ssh; cd /root/.ssh; grep -qxsF "$1" authorized_keys || echo "$1" >> authorized_keys`, key)
		return err
	})
}

// sshTo is the command that connects to a port of this machine, which is QEMU's
// as long as that runs; so the host's key, which is another one in each guest,
// says nothing that is not known. Nothing of the person's own configuration
// counts.
func sshTo(port int, key string, terminal bool, words []string) run.Command {
	args := []string{
		"-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "PreferredAuthentications=publickey",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "ConnectTimeout=60", "-p", strconv.Itoa(port),
	}
	if terminal {
		args = append(args, "-t")
	}
	command := run.New("ssh", append(append(args, "root@127.0.0.1", "--"), words...)...)
	command.Interactive = true
	return command
}

// console joins the terminal and the machine's serial console.
func (t *tool) console(ctx context.Context, m *machine.Machine, command []string) (err error) {
	if len(command) > 0 {
		return clikit.Usagef("a console runs no command: %s run does", name)
	}
	if !isTerminal(os.Stdin) {
		return clikit.WithHint(errors.New("a console needs a terminal"), name+" run PROGRAM works without one")
	}
	console, err := m.OpenConsole()
	if err != nil {
		return err
	}
	defer console.Close()
	m.Detach()
	t.env.UI.Infof("%s on its serial console; Enter wakes it, Ctrl-] leaves", m.Spec.Name)
	state, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return err
	}
	err = talk(ctx, console, os.Stdin, os.Stdout)
	return errors.Join(err, term.Restore(int(os.Stdin.Fd()), state), t.env.UI.Print(""))
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
