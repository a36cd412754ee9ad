package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"time"

	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/qmp"
	"nixos-go/vmtest/serial"
)

// Agent speaks with the guest; nil before the first start.
func (m *Machine) Agent() *agent.Client {
	if m.boot == nil {
		return nil
	}
	return m.boot.agent
}

// QMP speaks with QEMU; nil before the first start.
func (m *Machine) QMP() *qmp.Client {
	if m.boot == nil {
		return nil
	}
	return m.boot.qmp
}

// Console is what the guest has written to its serial console in all boots.
func (m *Machine) Console() *serial.Log {
	if m.boot == nil {
		return serial.Open(m.path(consoleLog), nil)
	}
	return m.boot.console
}

// Port is the host's port of 127.0.0.1 that leads to a port of the guest which
// the spec forwards; 0 where it does not.
func (m *Machine) Port(guest int) int { return m.ports[guest] }

// Within runs work under a context that ends early when the machine ends or its
// console shows a failure, with that as its cause.
func (m *Machine) Within(ctx context.Context, work func(ctx context.Context) error) error {
	if m.boot == nil {
		return fmt.Errorf("machine %s: %w", m.Spec.Name, ErrStopped)
	}
	b := m.boot
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(b.ctx, func() { cancel(context.Cause(b.ctx)) }) //nolint:contextcheck // the machine's life, beside the caller's
	defer stop()
	err := work(ctx)
	if err != nil && (errors.Is(err, agent.ErrClosed) || errors.Is(err, qmp.ErrClosed)) {
		// The connection ends a little before it is known why.
		select {
		case <-b.ctx.Done():
			err = fmt.Errorf("%w: %w", context.Cause(b.ctx), err) //nolint:contextcheck // as above
		case <-time.After(endPatience):
		}
	}
	return err
}

// Ready waits until the guest's agent answers.
func (m *Machine) Ready(ctx context.Context) (agent.Hello, error) {
	var hello agent.Hello
	err := m.Within(ctx, func(ctx context.Context) (err error) {
		hello, err = m.Agent().Hello(ctx)
		return err
	})
	return hello, m.explain(err)
}

// explain adds the end of the console to what kept a guest from coming up.
func (m *Machine) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("machine %s: %w; the end of its console:\n%s", m.Spec.Name, err, m.Console().Tail(25))
}

// Run runs a program in the guest; see [agent.Client.Run].
func (m *Machine) Run(ctx context.Context, argv ...string) (agent.Result, error) {
	var result agent.Result
	err := m.Within(ctx, func(ctx context.Context) (err error) {
		result, err = m.Agent().Run(ctx, agent.Command{Argv: argv})
		return err
	})
	return result, err
}

// Shell runs a script in the guest; see [agent.Client.Shell].
func (m *Machine) Shell(ctx context.Context, script string, args ...string) (string, error) {
	var out string
	err := m.Within(ctx, func(ctx context.Context) (err error) {
		out, err = m.Agent().Shell(ctx, script, args...)
		return err
	})
	return out, err
}

// Expect waits for a pattern on the console; see [serial.Log.Expect].
func (m *Machine) Expect(ctx context.Context, pattern string) ([]string, error) {
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	var groups []string
	err = m.Within(ctx, func(ctx context.Context) (err error) {
		groups, err = m.Console().Expect(ctx, expression)
		return err
	})
	return groups, err
}

// OpenConsole connects to the guest's serial console, for a terminal. One
// connection at a time is served.
func (m *Machine) OpenConsole() (net.Conn, error) {
	conn, err := dialIn(m.Dir, consoleSock)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Spec.Name, errors.Join(ErrStopped, err))
	}
	return conn, nil
}

// Type sends text to the guest's serial console as if it was typed.
func (m *Machine) Type(text string) error {
	if !m.Running() {
		return fmt.Errorf("machine %s: %w", m.Spec.Name, ErrStopped)
	}
	if m.boot.keys == nil {
		conn, err := m.OpenConsole()
		if err != nil {
			return err
		}
		m.boot.keys = conn
		// What comes back is in the log too; unread it would stop the guest.
		go func() { _, _ = io.Copy(io.Discard, conn) }()
	}
	_, err := io.WriteString(m.boot.keys, text)
	return err
}

// PowerOff ends the guest in an orderly way and waits until all has stopped.
func (m *Machine) PowerOff(ctx context.Context) error {
	if m.boot == nil {
		return fmt.Errorf("machine %s: %w", m.Spec.Name, ErrStopped)
	}
	if err := m.Agent().Power(ctx, agent.PowerOff); err != nil {
		return err
	}
	return m.Wait(ctx)
}

// Wait waits until the machine has ended by itself. An end that QEMU takes for
// a failure is one.
func (m *Machine) Wait(ctx context.Context) error {
	if m.boot == nil {
		return nil
	}
	select {
	case <-m.boot.qmp.Done():
	case <-ctx.Done():
		return fmt.Errorf("machine %s does not end: %w", m.Spec.Name, context.Cause(ctx))
	}
	qemu := m.qemu
	m.end(endPatience)
	if qemu == nil {
		return nil
	}
	return qemu.failure()
}

// Reboot reboots the guest in an orderly way and waits for its agent. The spec
// has to allow it (Reboots).
func (m *Machine) Reboot(ctx context.Context) (agent.Hello, error) {
	var hello agent.Hello
	err := m.Within(ctx, func(ctx context.Context) error {
		before, err := m.Agent().Hello(ctx)
		if err != nil {
			return err
		}
		if err := m.Agent().Power(ctx, agent.Reboot); err != nil {
			return err
		}
		hello, err = m.Agent().WaitBoot(ctx, before.Boot)
		return err
	})
	return hello, m.explain(err)
}

// Reset presses the reset button. What the guest has not written is lost.
func (m *Machine) Reset(ctx context.Context) error {
	return m.Within(ctx, func(ctx context.Context) error { return m.QMP().Do(ctx, "system_reset", nil, nil) })
}

// Stop ends the machine as pulling the plug does, and waits until nothing of it
// runs. It is no error if nothing does. What the guest had written is there all
// the same: this is no model of a power cut.
func (m *Machine) Stop() error {
	if m.boot != nil && m.qemu == nil && m.Running() { // started by another process
		// The boot's own context ends with the machine, which is not a failure here.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(m.boot.ctx), endPatience)
		defer cancel()
		if err := m.QMP().Do(ctx, "quit", nil, nil); err != nil && !errors.Is(err, qmp.ErrClosed) {
			return err
		}
		select {
		case <-m.QMP().Done():
		case <-ctx.Done():
			return fmt.Errorf("machine %s does not end: %w", m.Spec.Name, ctx.Err())
		}
	}
	m.end(0)
	return nil
}

// PID is QEMU's process id; 0 where this process has not started it.
func (m *Machine) PID() int {
	if m.qemu == nil {
		return 0
	}
	return m.qemu.cmd.Process.Pid
}
