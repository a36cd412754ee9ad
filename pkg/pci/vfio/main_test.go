package vfio_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"nixos-go/pkg/pci"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakepci"
	"nixos-go/pkg/testx/kill"
)

// The test binary is also the watched child, and the process that is killed.
const (
	childArg = "watched-child"
	killArg  = "killed-process"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case childArg:
			if err := vfio.Child(os.Stdin, os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		case killArg:
			if err := killed(os.Args[2], os.Args[3], os.Args[4]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	os.Exit(m.Run())
}

func watchdog() *vfio.Watchdog {
	return &vfio.Watchdog{Program: "/proc/self/exe", Args: []string{childArg}, Limit: 20 * time.Second}
}

// now is when every test happens.
var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// machine is a fake machine with everything a test asks of it.
type machine struct {
	*fakepci.System

	kernel *fakepci.Kernel
	engine *vfio.Engine
	events []string
}

func open(kernel *fakepci.Kernel) (*machine, error) {
	system, err := fakepci.NewSystem(kernel, watchdog())
	if err != nil {
		return nil, err
	}
	m := &machine{System: system, kernel: kernel}
	m.engine = &vfio.Engine{
		System: system,
		Store:  vfio.Store{Files: run.Below(kernel.Dir), Folder: vfio.Folder},
		Settle: time.Millisecond,
		Tell: func(e vfio.Event) {
			if e.Done {
				return
			}
			line := e.Step.String()
			if e.Undo {
				line = "undo: " + line
			}
			m.events = append(m.events, line)
		},
	}
	return m, nil
}

func newMachine(t *testing.T, spec fakepci.Machine) *machine {
	t.Helper()
	kernel, err := fakepci.New(t.TempDir(), spec)
	if err != nil {
		t.Fatal(err)
	}
	m, err := open(kernel)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Root.Close() })
	return m
}

// card is the card at an address; "" is the only candidate.
func (m *machine) card(at string) (pci.Machine, pci.GPU, *vfio.Journal, error) {
	seen, err := m.Machine()
	if err != nil {
		return seen, pci.GPU{}, nil, err
	}
	var address *pci.Address
	if at != "" {
		parsed, err := pci.ParseAddress(at)
		if err != nil {
			return seen, pci.GPU{}, nil, err
		}
		address = &parsed
	}
	g, err := seen.Choose(address)
	if err != nil {
		return seen, g, nil, err
	}
	journal, err := m.engine.Store.Load(g.Display.Address)
	return seen, g, journal, err
}

func (m *machine) detach(ctx context.Context, at string, choices vfio.Choices) error {
	seen, g, journal, err := m.card(at)
	if err != nil {
		return err
	}
	plan, err := vfio.PlanDetach(seen, g, journal, choices, now)
	if err != nil {
		return err
	}
	return m.engine.Detach(ctx, plan)
}

func (m *machine) attach(at string) error {
	seen, g, journal, err := m.card(at)
	if err != nil {
		return err
	}
	plan, err := vfio.PlanAttach(seen, g, journal)
	if err != nil {
		return err
	}
	return m.engine.Attach(context.Background(), plan)
}

// allServices are the services of North that hold the card.
var allServices = vfio.Choices{Services: []string{"nvidia-persistenced.service", "openrgb.service"}}

// killed is the process that dies at the n-th operation of its work, before
// the operation ("3-") or right after it ("3+").
func killed(dir, work, point string) error {
	kernel, err := fakepci.Open(dir)
	if err != nil {
		return err
	}
	m, err := open(kernel)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimRight(point, "+-"))
	if err != nil {
		return err
	}
	m.engine.Tell = func(e vfio.Event) {
		if e.Index == n && e.Done == strings.HasSuffix(point, "+") {
			kill.Now()
		}
	}
	if work == "attach" {
		return m.attach("")
	}
	return m.detach(context.Background(), "", allServices)
}
