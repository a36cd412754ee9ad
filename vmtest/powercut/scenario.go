package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"

	"nixos-go/pkg/btrfs"
)

// A Scenario is a program whose power is cut, and what must hold afterwards.
type Scenario struct {
	Name string // what is cut, in words joined by dashes
	Mode string // heads the scenario's group in tables

	// Size of the disk in bytes; 0 is DefaultSize.
	Size int64

	// Prepare fills a fresh btrfs on a device, unmounted, with what the program
	// finds. None of it is recorded, all of it is on disk before the program runs.
	Prepare func(ctx context.Context, device string) error

	// Run is the program. It mounts the device itself and leaves it unmounted.
	Run func(ctx context.Context, device string) error

	// Again is what happens on the disk after the cut: the next boot. Nil is Run.
	Again func(ctx context.Context, device string) error

	// Checker makes the checker of one recording.
	Checker func() Checker

	// Dense says that there are many flushes, one after each small change, so that
	// a sample of them has to do where all is too much.
	Dense bool

	// CutTwice cuts the power again during Again, after a cut at a flush of Run.
	CutTwice bool
}

// DefaultSize is the size of a disk, in bytes.
const DefaultSize = 256 << 20

// again is what happens after a cut.
func (s *Scenario) again() func(context.Context, string) error {
	if s.Again != nil {
		return s.Again
	}
	return s.Run
}

// A Checker knows what must hold on the disk of one recording. Check looks at
// the top level of the file system, mounted at the path mount.
//
// It first learns, one call after the other, from the phases Before to
// MaySettle. Then it is asked about crash images, by several goroutines.
type Checker interface {
	Check(ctx context.Context, mount string, phase Phase) error
}

// Phase is the moment of a check.
type Phase string

// The phases in which a checker learns. None of these runs was cut off. What
// fails here is no fault of a power cut, so it ends the whole scenario.
const (
	Before Phase = "before" // the disk as the program found it
	Done   Phase = "done"   // as the program left it

	// MayRecover is the disk after the next run, and MaySettle after the one
	// after that: both once for a program that did nothing yet, and once for
	// one that was done.
	MayRecover Phase = "may-recover"
	MaySettle  Phase = "may-settle"
)

// The phases in which something has to hold.
const (
	Crashed   Phase = "crashed"   // after the cut
	Recovered Phase = "recovered" // after the next run
	Settled   Phase = "settled"   // after one more run
)

// CheckFunc is a Checker that is one function.
type CheckFunc func(ctx context.Context, mount string, phase Phase) error

// Check calls the function.
func (f CheckFunc) Check(ctx context.Context, mount string, phase Phase) error {
	return f(ctx, mount, phase)
}

// WithMount mounts the top level of the btrfs on a device for the time of a
// function, which gets a path to it that other processes can use too. No mount
// table shows the mount, and it goes with the process at the latest.
func WithMount(device string, f func(mount string) error) (err error) {
	root, err := btrfs.Mount(device, btrfs.MountOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return f(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.Fd()))
}

// withDevice makes an image a block device for the time of a function.
func withDevice(image string, f func(device string) error) (err error) {
	loop, err := attach(image)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmountAll(loop.path()), loop.detach()) }()
	return f(loop.path())
}

// withImage mounts an image for the time of a function.
func withImage(image string, f func(mount string) error) error {
	return withDevice(image, func(device string) error { return WithMount(device, f) })
}
