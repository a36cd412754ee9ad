package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/ui"
	"nixos-go/vmtest/machine"
	"nixos-go/vmtest/stage"
)

// checkpointIn is the checkpoint in the folder of a stage.
func checkpointIn(p place, name string) string {
	return filepath.Join(p.stages.Path(name), "checkpoint")
}

func (t *tool) snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:      "snapshot",
		Usage:     "keep what a machine is now under a name",
		ArgsUsage: "NAME",
		Description: "Disks, firmware variables and TPM; of a running machine the memory too, and it goes on. A " +
			"checkpoint of that name must not exist.",
		Flags:  []cli.Flag{nameFlag()},
		Action: t.action(oneName, t.snapshot),
	}
}

func (t *tool) snapshot(c *cli.Context, p place) error {
	called := c.Args().First()
	m, err := p.load(c.String("name"))
	if err != nil {
		return err
	}
	if _, err := p.stages.Meta(called); !errors.Is(err, stage.ErrUnknown) {
		return clikit.WithHint(fmt.Errorf("there is a checkpoint %s already", called), "%s clean-from %s takes it away", name, called)
	}
	if err := m.Attach(c.Context); err != nil && !errors.Is(err, machine.ErrStopped) {
		return err
	}
	_, err = p.stages.Ensure(c.Context, stage.Stage{
		Name: called, Inputs: []string{time.Now().String()},
		Make: func(ctx context.Context, dir, _ string) error {
			return m.Checkpoint(ctx, filepath.Join(dir, "checkpoint"))
		},
	})
	running := m.Running()
	m.Detach()
	if err != nil {
		return err
	}
	if running {
		t.env.UI.Donef("%s: %s as it runs", called, m.Spec.Name)
	} else {
		t.env.UI.Donef("%s: %s, which is off", called, m.Spec.Name)
	}
	t.env.UI.Hintf("%s restore %s goes back there", name, called)
	return nil
}

func (t *tool) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "take a machine back to a checkpoint",
		ArgsUsage: "NAME",
		Description: "What the machine is now is lost. One that was running when the checkpoint was made goes on from " +
			"there, in a second; one that was off stays off.",
		Flags:  []cli.Flag{nameFlag(), timeoutFlag()},
		Action: t.action(oneName, t.restore),
	}
}

func (t *tool) restore(c *cli.Context, p place) error {
	called := c.Args().First()
	manifest, err := machine.ReadManifest(checkpointIn(p, called))
	if errors.Is(err, os.ErrNotExist) {
		return clikit.WithHint(fmt.Errorf("there is no checkpoint %s", called), name+" list shows those that there are")
	}
	if err != nil {
		return err
	}
	if err := t.remove(c, p, c.String("name")); err != nil {
		return err
	}
	m, err := fromCheckpoint(c, p, called)
	if err != nil {
		return err
	}
	if !manifest.Memory {
		t.env.UI.Donef("%s is what %s was, off", m.Spec.Name, called)
		t.env.UI.Hintf("%s up starts it", name)
		return nil
	}
	return t.start(c, m)
}

// fromCheckpoint makes the machine that --name names.
func fromCheckpoint(c *cli.Context, p place, called string) (*machine.Machine, error) {
	return machine.FromCheckpoint(c.Context, checkpointIn(p, called), p.machine(c.String("name")), func(s *machine.Spec) {
		s.Name = c.String("name")
	})
}

// remove ends a machine and takes it away. It is no error if there is none.
func (t *tool) remove(c *cli.Context, p place, called string) error {
	if err := checkName(called); err != nil {
		return err
	}
	m, err := machine.Load(p.machine(called))
	if err == nil {
		if err := m.Attach(c.Context); err == nil {
			if err := m.Stop(); err != nil {
				return err
			}
		} else if !errors.Is(err, machine.ErrStopped) {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(p.machine(called))
}

func (t *tool) cleanCommand() *cli.Command {
	return &cli.Command{
		Name:        "clean",
		Usage:       "end all machines and take them away",
		Description: "Checkpoints, stages and the cache stay.",
		Action:      t.action(clikit.NoArgs, t.clean),
	}
}

func (t *tool) clean(c *cli.Context, p place) error {
	names, err := p.names()
	if err != nil {
		return err
	}
	for _, called := range names {
		if err := t.remove(c, p, called); err != nil {
			return err
		}
		t.env.UI.Donef("machine %s is gone", called)
	}
	return os.RemoveAll(filepath.Join(p.state, "machines"))
}

func (t *tool) cleanAllCommand() *cli.Command {
	return &cli.Command{
		Name:   "clean-all",
		Usage:  "take away machines, checkpoints, stages and the cache",
		Flags:  []cli.Flag{clikit.YesFlag()},
		Action: t.action(clikit.NoArgs, t.cleanAll),
	}
}

func (t *tool) cleanAll(c *cli.Context, p place) error {
	ok, err := t.env.Confirm(c.Context, clikit.OptionsOf(c), "Take away all of "+p.state+" and "+p.cache+"?",
		"Guests have to be fetched and built again.")
	if err != nil || !ok {
		return err
	}
	if err := errors.Join(t.clean(c, p), os.RemoveAll(p.state), os.RemoveAll(p.cache)); err != nil {
		return err
	}
	t.env.UI.Donef("%s and %s are gone", p.state, p.cache)
	return nil
}

func (t *tool) cleanFromCommand() *cli.Command {
	return &cli.Command{
		Name:      "clean-from",
		Usage:     "forget a checkpoint or stage and all that came after it",
		ArgsUsage: "STAGE",
		Action:    t.action(oneName, t.cleanFrom),
	}
}

func (t *tool) cleanFrom(c *cli.Context, p place) error {
	gone, err := p.stages.RemoveFrom(c.Args().First())
	for _, one := range gone {
		t.env.UI.Donef("%s is gone", one)
	}
	if errors.Is(err, stage.ErrUnknown) {
		return clikit.WithHint(err, name+" list shows those that there are")
	}
	return err
}

// checkpoint is a line of list.
type checkpoint struct {
	Name    string    `json:"name"`
	After   string    `json:"after,omitempty"`
	Machine string    `json:"machine,omitempty"`
	Memory  bool      `json:"memory"`
	Made    time.Time `json:"made"`
	Bytes   int64     `json:"bytes"`
}

func (t *tool) listCommand() *cli.Command {
	return &cli.Command{
		Name:   "list",
		Usage:  "list checkpoints and stages",
		Flags:  []cli.Flag{clikit.JSONFlag()},
		Action: t.action(clikit.NoArgs, t.list),
	}
}

func (t *tool) list(c *cli.Context, p place) error {
	all, err := checkpoints(p)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return t.env.UI.JSON(all)
	}
	if len(all) == 0 {
		t.env.UI.Infof("there are no checkpoints: %s snapshot NAME makes one", name)
		return nil
	}
	table := &ui.Table{Head: []string{"checkpoint", "after", "machine", "of", ">size", "made"}}
	for _, one := range all {
		of := map[bool]string{true: "disks and memory", false: "disks"}[one.Memory]
		if one.Machine == "" {
			of = "files"
		}
		table.Row(one.Name, one.After, one.Machine, of, ui.Size(one.Bytes), one.Made.Local().Format(time.DateTime)) //nolint:gosmopolitan // for people
	}
	return t.env.UI.Table(table)
}

func checkpoints(p place) ([]checkpoint, error) {
	all, err := p.stages.List()
	if err != nil {
		return nil, err
	}
	lines := []checkpoint{}
	for _, meta := range all {
		line := checkpoint{Name: meta.Name, After: meta.After, Made: meta.Made}
		manifest, err := machine.ReadManifest(checkpointIn(p, meta.Name))
		if err == nil {
			line.Machine, line.Memory = manifest.Spec.Name, manifest.Memory
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if line.Bytes, err = occupied(p.stages.Path(meta.Name)); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return slices.Clip(lines), nil
}
