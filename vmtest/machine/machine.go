package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"nixos-go/pkg/run"
	"nixos-go/vmtest/agent"
	"nixos-go/vmtest/qmp"
	"nixos-go/vmtest/serial"
)

var (
	// ErrRunning says that the machine has to be stopped for this.
	ErrRunning = errors.New("the machine is running")
	// ErrStopped says that the machine has to be running for this, or has
	// ended meanwhile.
	ErrStopped = errors.New("the machine is not running")
)

const (
	// socketPatience is how long QEMU may take to open its sockets.
	socketPatience = 30 * time.Second
	// endPatience is how long a program may take to end when it should.
	endPatience = 10 * time.Second
)

// Machine is a machine in its folder. Its fields may be changed while it is
// stopped; [Machine.Start] takes them as they are then. Methods are not for
// several goroutines at a time, but Agent, QMP and Console are.
type Machine struct {
	// Spec is what it is.
	Spec Spec
	// Dir is its folder.
	Dir string

	qemu, tpm *process // nil where another process has started them
	boot      *boot
	ports     map[int]int
	load      string // the snapshot that the next start begins from
	loadFrom  string // the version of QEMU that made it
}

// boot is what belongs to one run of QEMU.
type boot struct {
	qmp     *qmp.Client
	agent   *agent.Client
	console *serial.Log
	ctx     context.Context // ends, with a cause, when the machine cannot go on
	cancel  context.CancelCauseFunc
	keys    net.Conn // to the console, once something was typed
}

// StartOption changes how a machine is started.
type StartOption func(*startOptions)

type startOptions struct {
	detached bool
	paused   bool
	tolerant bool
}

// Detached lets the machine go on when this process ends; [Load] and
// [Machine.Attach] find it again.
func Detached() StartOption { return func(o *startOptions) { o.detached = true } }

// Paused leaves the processors stopped until the QMP command "cont".
func Paused() StartOption { return func(o *startOptions) { o.paused = true } }

// Tolerant does not take what looks like a failure on the console for one.
func Tolerant() StartOption { return func(o *startOptions) { o.tolerant = true } }

func (m *Machine) path(name string) string { return filepath.Join(m.Dir, name) }

// Running tells whether QEMU runs, as far as this process knows.
func (m *Machine) Running() bool {
	if m.boot == nil {
		return false
	}
	select {
	case <-m.boot.qmp.Done():
		return false
	default:
		return true
	}
}

// Start starts the machine. It returns when QEMU does its work; [Machine.Ready]
// waits for the guest.
func (m *Machine) Start(ctx context.Context, options ...StartOption) error {
	var o startOptions
	for _, option := range options {
		option(&o)
	}
	if m.Running() {
		return ErrRunning
	}
	m.Spec = m.Spec.withDefaults()
	if err := m.Spec.check(); err != nil {
		return err
	}
	if err := m.prepare(); err != nil {
		return err
	}
	err := m.startPrograms(ctx, o)
	if err == nil {
		err = m.connect(ctx, o.tolerant)
	}
	if err == nil && m.load != "" {
		err = m.loadMemory(ctx, o.paused)
	}
	if err != nil {
		return fmt.Errorf("machine %s: %w", m.Spec.Name, m.giveUp(err))
	}
	return nil
}

// giveUp ends a machine that does not start. Why QEMU does not want to says more
// than that it has hung up.
func (m *Machine) giveUp(err error) error {
	qemu := m.qemu
	closed := errors.Is(err, qmp.ErrClosed) || errors.Is(err, agent.ErrClosed)
	patience := time.Duration(0)
	if closed {
		patience = endPatience
	}
	m.end(patience)
	if closed && qemu != nil {
		if failure := qemu.failure(); failure != nil {
			return failure
		}
	}
	return err
}

// prepare writes the files that a start needs, and takes those away that an
// earlier one has left.
func (m *Machine) prepare() error {
	for _, name := range []string{monitorSock, agentSock, consoleSock, tpmSock, pidFile, logFile} {
		if err := os.Remove(m.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	for name, value := range m.Spec.Credentials {
		if err := os.WriteFile(m.path(credentialFile(name)), []byte(value), 0o600); err != nil {
			return err
		}
	}
	m.ports = map[int]int{}
	if n := m.Spec.Network; n != nil {
		for _, port := range n.Forward {
			free, err := freePort()
			if err != nil {
				return err
			}
			m.ports[port] = free
		}
	}
	b, err := json.Marshal(m.ports)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(m.path(portsFile), b, 0o600), m.writeSpec())
}

// freePort is a TCP port that nobody has at the moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it is one
	return port, l.Close()
}

func (m *Machine) startPrograms(ctx context.Context, o startOptions) error {
	argv := append(slices.Clone(m.Spec.qemu()), m.Spec.arguments(m.ports, o.paused || m.load != "")...)
	script := "#!/bin/sh\n# What this machine was started with.\ncd " + run.Quote(m.Dir) + " || exit\n"
	if m.Spec.TPM {
		script += commandLine(m.tpmCommand()) + " &\nsleep 1\n"
	}
	// Not paused: the script boots, whatever memory this start goes on from.
	script += "exec " + commandLine(append(slices.Clone(m.Spec.qemu()), m.Spec.arguments(m.ports, false)...)) + "\n"
	if err := os.WriteFile(m.path(commandFile), []byte(script), 0o700); err != nil {
		return err
	}
	if m.Spec.TPM {
		if err := m.startTPM(ctx, o.detached); err != nil {
			return err
		}
	}
	var err error
	if m.qemu, err = startProcess(argv, m.Dir, logFile, o.detached); err != nil {
		return err
	}
	return os.WriteFile(m.path(pidFile), []byte(strconv.Itoa(m.qemu.cmd.Process.Pid)), 0o600)
}

func commandLine(argv []string) string { return run.New(argv[0], argv[1:]...).String() }

// Repeat is the shell command that boots the machine again with the very
// arguments of the last start, on the disks as they are now.
func (m *Machine) Repeat() string { return "sh " + run.Quote(m.path(commandFile)) }

// CommandLine is QEMU's command line of the last start, empty before the first.
func (m *Machine) CommandLine() string {
	b, err := os.ReadFile(m.path(commandFile))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "exec ")
}

// connect opens the sockets and begins to watch.
func (m *Machine) connect(ctx context.Context, tolerant bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, socketPatience, errors.New("QEMU does not answer"))
	defer cancel()
	monitor, err := m.dial(ctx, monitorSock)
	if err != nil {
		return err
	}
	b := &boot{}
	if b.qmp, err = qmp.New(ctx, monitor); err != nil {
		return err
	}
	channel, err := m.dial(ctx, agentSock)
	if err != nil {
		return errors.Join(err, b.qmp.Close())
	}
	b.agent = agent.NewClient(channel)
	fail := serial.Failures()
	if tolerant {
		fail = nil
	}
	b.console = serial.Open(m.path(consoleLog), fail)
	if m.boot != nil { // the boots before this one are seen
		if err := b.console.Follow(m.boot.console); err != nil {
			return errors.Join(err, b.agent.Close(), b.qmp.Close())
		}
	}
	b.ctx, b.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	m.boot = b
	go m.watch(b, m.qemu)
	return nil
}

// watch ends what waits for the machine when it cannot come any more.
func (m *Machine) watch(b *boot, qemu *process) {
	go func() {
		if err := b.console.WaitFailed(b.ctx); err != nil {
			b.cancel(err)
		}
	}()
	<-b.qmp.Done()
	if qemu != nil {
		<-qemu.ended
		if err := qemu.failure(); err != nil {
			b.cancel(fmt.Errorf("%w: %w", ErrStopped, err))
			return
		}
	}
	b.cancel(ErrStopped)
}

// dial opens a socket of the folder as soon as it is there.
func (m *Machine) dial(ctx context.Context, name string) (net.Conn, error) {
	for {
		conn, err := dialIn(m.Dir, name)
		if err == nil {
			return conn, nil
		}
		var ended <-chan struct{}
		if m.qemu != nil {
			ended = m.qemu.ended
		}
		select {
		case <-ended:
			if failure := m.qemu.failure(); failure != nil {
				return nil, failure
			}
			return nil, ErrStopped
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// dialIn opens a socket in a folder whose name may be longer than the address of
// a socket can be.
func dialIn(dir, name string) (net.Conn, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name))
}

// Attach connects to a machine that another process has started. Where it does
// not run, it is [ErrStopped].
func (m *Machine) Attach(ctx context.Context) error {
	if m.Running() {
		return nil
	}
	conn, err := dialIn(m.Dir, monitorSock)
	if err != nil {
		return fmt.Errorf("machine %s: %w", m.Spec.Name, ErrStopped)
	}
	_ = conn.Close() // QEMU takes one at a time
	b, err := os.ReadFile(m.path(portsFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &m.ports); err != nil {
		return fmt.Errorf("%s: %w", m.path(portsFile), err)
	}
	return m.connect(ctx, true)
}

// Detach closes the connections; the machine goes on if it was started
// detached.
func (m *Machine) Detach() {
	if m.boot != nil {
		m.disconnect()
		m.boot = nil
	}
}

func (m *Machine) disconnect() {
	_ = m.boot.agent.Close() // nothing is under way
	_ = m.boot.qmp.Close()
	if m.boot.keys != nil {
		_ = m.boot.keys.Close()
	}
	m.boot.cancel(ErrStopped)
}

// end makes sure that nothing runs any more. QEMU gets some time.
func (m *Machine) end(patience time.Duration) {
	if m.qemu != nil {
		m.qemu.stop(patience)
		m.qemu = nil
	}
	if m.tpm != nil {
		m.tpm.stop(min(patience, endPatience))
		m.tpm = nil
	}
	if m.boot != nil {
		m.disconnect()
	}
}
