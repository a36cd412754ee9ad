package vfio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/pci"
	"nixos-go/pkg/run"
)

// Live is the real machine, or, in a test, a folder that looks like one.
type Live struct {
	// Root is the machine's root; its name is passed on to the children.
	Root *os.Root
	// Runner runs modprobe and systemctl.
	Runner run.Runner
	// Watchdog starts the children that write and unload.
	Watchdog *Watchdog
	// Patience is how long a process may take to end; 0 is ten seconds.
	Patience time.Duration
}

// Machine implements [System].
func (l *Live) Machine() (pci.Machine, error) { return pci.Read(l.Root, Modules()...) }

// Holders implements [System].
func (l *Live) Holders(nodes []string) ([]pci.Holder, int, error) {
	return pci.Holders(l.Root, nodes)
}

// Write implements [System].
func (l *Live) Write(name, value string) error {
	return l.Watchdog.Write(l.Root.Name(), name, value)
}

// UnloadModule implements [System].
func (l *Live) UnloadModule(name string) error { return l.Watchdog.Unload(name) }

// LoadModule implements [System].
func (l *Live) LoadModule(ctx context.Context, name string) error {
	_, err := l.Runner.Run(ctx, run.New("modprobe", name))
	return err
}

// StopService implements [System].
func (l *Live) StopService(ctx context.Context, unit string) error {
	_, err := l.Runner.Run(ctx, run.New("systemctl", "stop", unit))
	return err
}

// StartService implements [System].
func (l *Live) StartService(ctx context.Context, unit string) error {
	_, err := l.Runner.Run(ctx, run.New("systemctl", "start", unit))
	return err
}

// EndProcess asks a process to end (SIGTERM) and waits for it. One that stays
// is an error: what it would lose by SIGKILL is for its owner to decide.
func (l *Live) EndProcess(ctx context.Context, h pci.Holder) error {
	// A handle to the process (pidfd), taken before its start time is
	// compared: the number cannot pass to another process in between.
	p, err := os.FindProcess(h.PID)
	if err != nil {
		return fmt.Errorf("process %d: %w", h.PID, err)
	}
	defer func() { _ = p.Release() }()
	if startOf(h.PID) != h.Start {
		return nil // it has ended
	}
	if err := p.Signal(unix.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return fmt.Errorf("process %d: %w", h.PID, err)
	}
	patience := l.Patience
	if patience == 0 {
		patience = 10 * time.Second
	}
	deadline := time.Now().Add(patience)
	for startOf(h.PID) == h.Start {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s (process %d) was asked to end and is still there", h.Name, h.PID)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
