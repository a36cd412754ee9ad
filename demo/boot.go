package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// boot is what a call of initrd-reset did.
type boot struct {
	command string // as a person would type it
	lines   []string
	took    time.Duration
	stdout  []byte
}

// boot runs the binary under one of its names.
func (d *disk) boot(ctx context.Context, binary, name string, args ...string) (boot, error) {
	link := filepath.Join(d.folder, name)
	if err := os.Symlink(binary, link); err != nil && !errors.Is(err, os.ErrExist) {
		return boot{}, err
	}
	args = append([]string{"--plan", d.planPath(), "--report", d.reportPath()}, args...)
	if line, err := os.ReadFile("/proc/cmdline"); name == "initrd-reset" && (err != nil || bytes.Contains(line, []byte("immutability.mode="))) {
		args = append(args, "--mode", "reset") // whatever this machine was booted with
	}
	b := boot{command: strings.ReplaceAll(strings.Join(append([]string{name}, args...), " "), d.folder+"/", "")}
	cmd := exec.CommandContext(ctx, link, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	b.took, b.stdout = time.Since(start), stdout.Bytes()
	for line := range strings.Lines(stderr.String()) {
		b.lines = append(b.lines, strings.TrimPrefix(strings.TrimSpace(line), "initrd-reset: "))
	}
	if err != nil {
		return b, fmt.Errorf("%s: %w\n%s", b.command, err, stderr.String())
	}
	return b, nil
}

// change is a line of what a dry run prints.
type change struct {
	Path       string   `json:"path"`
	PathBase64 string   `json:"pathBase64"`
	Kind       string   `json:"kind"`
	Type       string   `json:"type"`
	Fields     []string `json:"fields"`
}

// onlyTime tells of a directory in which something else changed.
func (c change) onlyTime() bool {
	return c.Kind == string(reset.KindMetadata) && c.Type == "directory" && len(c.Fields) == 1 && c.Fields[0] == "mtime"
}

// preview runs the dry run and gives the changes of each volume.
func (d *disk) preview(ctx context.Context, binary string) (boot, map[string][]change, error) {
	b, err := d.boot(ctx, binary, "initrd-reset", "--dry-run", "--json")
	if err != nil {
		return b, nil, err
	}
	var report struct {
		Changes []struct {
			Volume  string   `json:"volume"`
			Changes []change `json:"changes"`
		} `json:"changes"`
	}
	if err := json.Unmarshal(b.stdout, &report); err != nil {
		return b, nil, fmt.Errorf("%s: %w", b.command, err)
	}
	out := map[string][]change{}
	for _, v := range report.Changes {
		for _, c := range v.Changes {
			if c.onlyTime() {
				continue
			}
			path, err := ui.Path{Path: c.Path, PathBase64: c.PathBase64}.Bytes()
			if err != nil {
				return b, nil, err
			}
			c.Path = path
			out[v.Volume] = append(out[v.Volume], c)
		}
	}
	return b, out, nil
}

// childEnv marks the process that is to die.
const childEnv = "NIXOS_GO_DEMO_CHILD"

// cutOff runs a reset in a process of its own that dies right after a step.
func (d *disk) cutOff(ctx context.Context, step string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "--plan", d.planPath(), "--cut", step)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !killed(exit.ProcessState) {
		return fmt.Errorf("the run that should have died after %q: %w\n%s", step, err, out)
	}
	return nil
}

// killed reports whether a process was ended by a kill, of all things.
func killed(p *os.ProcessState) bool {
	status, ok := p.Sys().(interface{ Signal() unix.Signal })
	return ok && status.Signal() == unix.SIGKILL
}

// runAndDie runs the engine of initrd-reset and kills its own process at a step.
func runAndDie(planPath, step string, u *ui.UI) int {
	err := func() error {
		f, err := os.Open(planPath)
		if err != nil {
			return err
		}
		defer f.Close()
		plan, err := reset.ParsePlanFile(f)
		if err != nil {
			return err
		}
		top, err := btrfs.Mount(plan.Device, btrfs.MountOptions{})
		if err != nil {
			return err
		}
		defer top.Close()
		_, err = reset.Run(top, plan, reset.Options{Trace: func(s reset.Step) {
			if s.Done && s.Name == step {
				_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
				select {} // until the signal is there
			}
		}})
		return err
	}()
	u.Errorf("step %q never came: %v", step, err)
	return 1
}

// floor is the time that snapshots alone take on this disk: one of each volume, at the
// same time, and a sync. No reset by snapshots can be faster.
func (d *disk) floor() (time.Duration, error) {
	start := time.Now()
	done := make(chan error)
	for _, v := range d.plan.Volumes {
		go func() {
			done <- d.in(v.Name, func(src *os.File) error { return btrfs.Snapshot(src, d.top, "floor"+v.Name, false) })
		}()
	}
	var errs []error
	for range d.plan.Volumes {
		errs = append(errs, <-done)
	}
	errs = append(errs, d.sync())
	took := time.Since(start)
	for _, v := range d.plan.Volumes {
		errs = append(errs, btrfs.Destroy(d.top, "floor"+v.Name))
	}
	return took, errors.Join(append(errs, d.sync())...)
}

// cleanup does what the service does after the boot.
func (d *disk) cleanup(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	err := reset.Cleanup(ctx, d.top, d.plan, reset.CleanupOptions{})
	return time.Since(start), errors.Join(err, d.sync())
}
