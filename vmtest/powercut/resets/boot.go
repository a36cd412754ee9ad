package resets

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/vmtest/powercut"
	"nixos-go/vmtest/powercut/steptrace"
)

// A program is what runs on a device whose power may be cut.
type program = func(ctx context.Context, device string) error

// boot is one run of initrd-reset, as a boot makes it.
func (t Tools) boot(p *reset.PlanFile) program { return t.quiet(t.initrdReset(p)) }

// cleanup is what runs after the boot.
func (t Tools) cleanup(p *reset.PlanFile) program { return t.quiet(t.helper(cleanupName, p)) }

// takeClean takes CLEAN of all volumes, as an installer does. One that is there
// is left alone, so that it can go on after a cut.
func (t Tools) takeClean(p *reset.PlanFile) program { return t.quiet(t.helper(takeCleanName, p)) }

// A call is a command line that works on a device. It may keep files in a folder.
type call func(dir, device string) (run.Command, error)

func (t Tools) initrdReset(p *reset.PlanFile) call {
	return func(dir, device string) (run.Command, error) {
		plan, err := writePlan(dir, p)
		return run.New(t.InitrdReset, "--plan", plan, "--device", device, "--mode", string(p.Mode),
			"--report", filepath.Join(dir, "report", "report.json")), err
	}
}

func (t Tools) helper(name string, p *reset.PlanFile) call {
	return func(dir, device string) (run.Command, error) {
		plan, err := writePlan(dir, p)
		return run.New(t.Helper, helperWord, name, plan, device), err
	}
}

func writePlan(dir string, p *reset.PlanFile) (string, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "plan.json")
	return name, os.WriteFile(name, text, 0o600)
}

// quiet leaves commits to the program itself.
func (t Tools) quiet(c call) program {
	return inFolder(c, func(ctx context.Context, _ string, c run.Command) error {
		_, err := t.Run.Run(ctx, c)
		return err
	})
}

// restlessly makes the kernel commit a transaction after each change that the program
// makes. It may do that of its own accord, and then far more states reach the disk
// than in the few commits of a quiet run: all that there can be, but for volumes
// overtaking each other.
func restlessly(c call) program {
	return inFolder(c, func(ctx context.Context, device string, c run.Command) error {
		return withTop(device, func(top *os.File) error {
			return steptrace.Run(ctx, c.Program, c.Args, steptrace.Changes, func() error { return powercut.Commit(top) })
		})
	})
}

func inFolder(c call, work func(ctx context.Context, device string, c run.Command) error) program {
	return func(ctx context.Context, device string) (err error) {
		dir, err := os.MkdirTemp("", "powercut-run-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		command, err := c(dir, device)
		if err != nil {
			return err
		}
		return work(ctx, device, command)
	}
}

func withTop(device string, f func(top *os.File) error) error {
	top, err := btrfs.Mount(device, btrfs.MountOptions{})
	if err != nil {
		return err
	}
	return errors.Join(f(top), top.Close())
}

// inOrder runs programs one after the other.
func inOrder(programs ...program) program {
	return func(ctx context.Context, device string) error {
		for _, p := range programs {
			if err := p(ctx, device); err != nil {
				return err
			}
		}
		return nil
	}
}

// mounted is a program that works on the mounted disk.
func mounted(f func(mount string) error) program {
	return func(_ context.Context, device string) error { return powercut.WithMount(device, f) }
}

// mayFail accepts that a boot leaves volumes as they were, which is exit status 1 of
// initrd-reset.
func mayFail(p program) program {
	return func(ctx context.Context, device string) error {
		err := p(ctx, device)
		if status, exited := run.StatusOf(err); exited && status == 1 {
			return nil
		}
		if exit, traced := errors.AsType[*steptrace.ExitError](err); traced && exit.Status == 1 {
			return nil
		}
		return err
	}
}
