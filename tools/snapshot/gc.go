package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
)

func (t tool) gcCommand() *cli.Command {
	return &cli.Command{
		Name: "gc", Usage: "delete what the resets put aside",
		Description: "Makes history read-only, destroys the snapshots that were rotated out, and deletes what the last reset " +
			"moved out of the way, all at idle priority. The service immutability-cleanup calls it after each " +
			"boot. It stops between two deletions when it is told to, and goes on from there when it is called " +
			"again. A factory state that rebase replaced stays until a boot has reset to the new one.",
		Action: t.gc,
	}
}

// collected is the result of gc.
type collected struct {
	Applied bool `json:"applied"`
	// Complete says that nothing is left to do.
	Complete bool    `json:"complete"`
	Freed    []freed `json:"freed"`
	// AvailableBefore and AvailableAfter are what df calls available, in bytes. What
	// others wrote meanwhile is in it.
	AvailableBefore uint64 `json:"availableBefore"`
	AvailableAfter  uint64 `json:"availableAfter"`
}

type freed struct {
	Volume string          `json:"volume"`
	Kind   reset.FreedKind `json:"kind"`
	Name   string          `json:"name,omitempty"`
	Names  int64           `json:"names,omitempty"`
}

func (t tool) gc(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	options := clikit.OptionsOf(c)
	m, err := t.open(c, running, options.DryRun)
	if m != nil {
		defer m.close()
	}
	if err != nil {
		return err
	}
	result := &collected{Applied: !options.DryRun, Freed: []freed{}}
	if result.AvailableBefore, _, err = space(m.top); err != nil {
		return err
	}
	err = atIdlePriority(func() error { return t.collect(c.Context, m, result) })
	stopped := c.Err() != nil && errors.Is(err, context.Canceled)
	if err != nil && !stopped {
		return err
	}
	result.Complete = !stopped && !options.DryRun
	if result.AvailableAfter, _, err = space(m.top); err != nil {
		return err
	}
	if options.JSON {
		if err := t.env.UI.JSON(result); err != nil {
			return err
		}
	} else if err := t.showCollected(result); err != nil {
		return err
	}
	if stopped {
		return t.tellStop(c.Context)
	}
	return nil
}

// tellStop says that the work was ended. For the service that is no failure.
func (t tool) tellStop(ctx context.Context) error {
	cause := context.Cause(ctx)
	t.env.UI.Infof("%v: what is left is deleted by the next gc", cause)
	var by *run.InterruptedError
	if errors.As(cause, &by) && by.Signal == syscall.SIGTERM {
		return nil
	}
	return clikit.ErrReported
}

// collect does the work, and waits until the kernel has freed what was destroyed.
func (t tool) collect(ctx context.Context, m *machine, result *collected) error {
	var destroyed []uint64
	options := reset.CleanupOptions{
		DryRun: !result.Applied,
		Freed: func(f reset.Freed) {
			result.Freed = append(result.Freed, freed{f.Volume, f.Kind, f.Name, f.Names})
			if f.Kind == reset.FreedSnapshot {
				destroyed = append(destroyed, f.ID)
			}
		},
	}
	if t.env.UI.IsLive() && result.Applied {
		p := t.env.UI.Progress("Files deleted", 0)
		defer p.End()
		options.Deleted = func() { p.Add(1) }
	}
	if err := reset.Cleanup(ctx, m.top, m.plan, options); err != nil || !result.Applied {
		return err
	}
	if len(destroyed) == 0 {
		return btrfs.Sync(m.top)
	}
	for _, id := range destroyed {
		if err := btrfs.WaitDeleted(ctx, m.top, id); err != nil {
			return err
		}
	}
	return nil
}

// showCollected tells what was done; a plan is a result.
func (t tool) showCollected(r *collected) error {
	lines := r.lines()
	if !r.Applied {
		if len(lines) == 0 {
			t.env.UI.Donef("nothing to delete")
		}
		return t.env.UI.Print(strings.Join(lines, "\n"))
	}
	for _, line := range lines {
		t.env.UI.Infof("%s", line)
	}
	switch {
	case !r.Complete:
	case len(lines) == 0:
		t.env.UI.Donef("nothing was left to delete")
	case r.AvailableAfter > r.AvailableBefore:
		t.env.UI.Donef("%s more available", ui.Size(int64(r.AvailableAfter-r.AvailableBefore)))
	default:
		t.env.UI.Donef("done")
	}
	return nil
}

// lines say what was freed, or would be.
func (r *collected) lines() []string {
	would := func(done, planned string) string {
		if r.Applied {
			return done
		}
		return planned
	}
	var lines, volumes []string
	destroyed, deleted := map[string]int64{}, map[string]int64{}
	for _, f := range r.Freed {
		if !slices.Contains(volumes, f.Volume) {
			volumes = append(volumes, f.Volume)
		}
		switch f.Kind {
		case reset.FreedSnapshot:
			destroyed[f.Volume]++
		case reset.FreedTrash:
			deleted[f.Volume] += f.Names
		case reset.FreedSealed:
			lines = append(lines, fmt.Sprintf("%s: %s %s read-only", f.Volume, f.Name, would("is", "would become")))
		case reset.FreedKept:
			lines = append(lines, fmt.Sprintf("%s: %s, the factory state before this one, stays until a boot has reset to the new one", f.Volume, shortName(f.Name)))
		}
	}
	for _, v := range volumes {
		if destroyed[v]+deleted[v] > 0 {
			lines = append(lines, fmt.Sprintf("%s: %s %s, %s %s", v,
				ui.Count(destroyed[v], "snapshot"), would("destroyed", "to destroy"), ui.Count(deleted[v], "name"), would("deleted", "to delete")))
		}
	}
	return lines
}
