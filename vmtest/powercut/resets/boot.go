package resets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
func (t Tools) boot(p *reset.PlanFile) program {
	return t.withPlan(p, func(ctx context.Context, args []string) error {
		_, err := t.Run.Run(ctx, run.New(t.InitrdReset, args...))
		return err
	})
}

// restlessBoot is a boot during which the kernel commits a transaction after
// each change that initrd-reset makes. It may do that of its own accord, and then
// far more states reach the disk than in the few commits of a quiet boot: all
// that there can be, but for volumes overtaking each other.
func (t Tools) restlessBoot(p *reset.PlanFile) program {
	return func(ctx context.Context, device string) error {
		return withTop(device, func(top *os.File) error {
			watched := t.withPlan(p, func(ctx context.Context, args []string) error {
				return steptrace.Run(ctx, t.InitrdReset, args, steptrace.Changes, func() error { return powercut.Commit(top) })
			})
			return watched(ctx, device)
		})
	}
}

// withPlan gives initrd-reset a folder for its plan and its report, and calls it.
func (t Tools) withPlan(p *reset.PlanFile, call func(ctx context.Context, args []string) error) program {
	return func(ctx context.Context, device string) (err error) {
		dir, err := os.MkdirTemp("", "powercut-boot-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		text, err := json.Marshal(p)
		if err != nil {
			return err
		}
		plan := filepath.Join(dir, "plan.json")
		if err := os.WriteFile(plan, text, 0o600); err != nil {
			return err
		}
		return call(ctx, []string{
			"--plan", plan, "--device", device, "--mode", string(p.Mode),
			"--report", filepath.Join(dir, "report", "report.json"),
		})
	}
}

// cleanup is what runs after the boot.
func cleanup(p *reset.PlanFile, trace func(top *os.File) func(reset.Step)) program {
	return func(ctx context.Context, device string) error {
		return withTop(device, func(top *os.File) error {
			return reset.Cleanup(ctx, top, p, reset.CleanupOptions{Trace: trace(top)})
		})
	}
}

// takeClean takes CLEAN of all volumes, as an installer does. One that is there
// is left alone, so that it can go on after a cut.
func takeClean(p *reset.PlanFile, trace func(top *os.File) func(reset.Step)) program {
	return func(_ context.Context, device string) error {
		return withTop(device, func(top *os.File) error {
			for _, v := range p.Volumes {
				err := reset.TakeClean(top, p, v.Name, reset.CleanupOptions{Trace: trace(top)})
				if err != nil && !errors.Is(err, os.ErrExist) {
					return fmt.Errorf("volume %s: %w", v.Name, err)
				}
			}
			return nil
		})
	}
}

// quiet leaves commits to the program itself.
func quiet(*os.File) func(reset.Step) { return nil }

// restless commits before and after each step of the program.
func restless(top *os.File) func(reset.Step) {
	return func(reset.Step) { _ = powercut.Commit(top) } // a failure shows in the step that follows
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
