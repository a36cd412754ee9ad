package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
	"nixos-go/vmtest/powercut"
	"nixos-go/vmtest/powercut/writelog"
)

func (t *tool) replayCommand() *cli.Command {
	return &cli.Command{
		Name:      "replay",
		Usage:     "try one point of a recording again",
		ArgsUsage: "RECORDING POINT",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "scenario", Required: true, Usage: "the scenario `NAME` that was recorded"},
			initrdResetFlag(), clikit.JSONFlag(),
		},
		Action: t.replay,
	}
}

func (t *tool) replay(c *cli.Context) error {
	if err := t.env.RequireRoot("powercut replay"); err != nil {
		return err
	}
	dir, p, err := recordingAndPoint(c, 2)
	if err != nil {
		return err
	}
	table, err := t.scenarios(c)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(table, func(s *powercut.Scenario) bool { return s.Name == c.String("scenario") })
	if i < 0 {
		return clikit.Usagef("no scenario %q: powercut list shows them", c.String("scenario"))
	}
	r := &powercut.Runner{Run: t.programs(), Repeat: repeatCommand(c.String("initrd-reset"))}
	failure, err := r.Try(c.Context, table[i], dir, p)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := t.env.UI.JSON(failure); err != nil {
			return err
		}
	}
	if failure == nil {
		t.env.UI.Donef("%s at %v holds", table[i].Name, p)
		return nil
	}
	t.tell(failure)
	return clikit.ErrReported
}

// recordingAndPoint reads the arguments that name a point of a recording.
func recordingAndPoint(c *cli.Context, want int) (dir string, p powercut.Point, err error) {
	if c.NArg() != want {
		return "", p, clikit.Usagef("want %s", c.Command.ArgsUsage)
	}
	if p, err = powercut.ParsePoint(c.Args().Get(1)); err != nil {
		return "", p, clikit.Usagef("%v", err)
	}
	return c.Args().First(), p, nil
}

func (t *tool) imageCommand() *cli.Command {
	return &cli.Command{
		Name:      "image",
		Usage:     "make the disk that a cut at a point leaves",
		ArgsUsage: "RECORDING POINT FILE",
		Action: func(c *cli.Context) error {
			dir, p, err := recordingAndPoint(c, 3)
			if err != nil {
				return err
			}
			return withRecording(dir, func(r *powercut.Recording) error {
				f, err := os.OpenFile(c.Args().Get(2), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return err
				}
				return errors.Join(r.Image(f, p), f.Close())
			})
		},
	}
}

func withRecording(dir string, work func(r *powercut.Recording) error) error {
	r, err := powercut.OpenRecording(dir)
	if err != nil {
		return err
	}
	return errors.Join(work(r), r.Close())
}

func (t *tool) showCommand() *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "list the entries of a recording",
		ArgsUsage: "RECORDING",
		Flags:     []cli.Flag{clikit.JSONFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return clikit.Usagef("want %s", c.Command.ArgsUsage)
			}
			return withRecording(c.Args().First(), func(r *powercut.Recording) error {
				if c.Bool("json") {
					return t.env.UI.JSON(newListing(r))
				}
				table := &ui.Table{Head: []string{">entry", ">offset", ">bytes", "flags"}}
				for i, e := range r.Log.Entries {
					table.Row(strconv.Itoa(i), strconv.FormatInt(e.Offset, 10), strconv.FormatInt(e.Length, 10), e.Flags.String())
				}
				return t.env.UI.Table(table)
			})
		},
	}
}

// listing is a recording as JSON.
type listing struct {
	Size    int64           `json:"size"` // of the disk, in bytes
	Counts  writelog.Counts `json:"counts"`
	Entries []listedEntry   `json:"entries"`
}

type listedEntry struct {
	Offset int64  `json:"offset"` // in bytes
	Length int64  `json:"length"`
	Flags  string `json:"flags,omitempty"`
	Note   string `json:"note,omitempty"`
}

func newListing(r *powercut.Recording) listing {
	l := listing{Size: r.Size, Counts: r.Log.Count(), Entries: []listedEntry{}}
	for _, e := range r.Log.Entries {
		l.Entries = append(l.Entries, listedEntry{e.Offset, e.Length, e.Flags.String(), e.Note})
	}
	return l
}

func (t *tool) recordCommand() *cli.Command {
	return &cli.Command{
		Name:      "record",
		Usage:     "record what a program writes to a disk",
		ArgsUsage: "-- PROGRAM [ARGUMENT…]",
		Description: "The program gets a block device with a copy of the image --base in the place of each {} among its " +
			"arguments. It has to leave the device unmounted. The recording is in --out, which must not exist.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Required: true, Usage: "the disk before the program runs: `IMAGE`"},
			&cli.StringFlag{Name: "out", Required: true, Usage: "the new folder `DIR` for the recording"},
		},
		Action: t.record,
	}
}

func (t *tool) record(c *cli.Context) error {
	if err := t.env.RequireRoot("powercut record"); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return clikit.Usagef("want a program: %s", c.Command.ArgsUsage)
	}
	out := c.String("out")
	if err := os.Mkdir(out, 0o700); err != nil {
		return err
	}
	err := powercut.Record(c.Context, out, c.String("base"), func(ctx context.Context, device string) error {
		_, err := t.programs().Run(ctx, commandOn(device, c.Args().Slice()))
		return err
	})
	if err != nil {
		return err
	}
	return withRecording(out, func(r *powercut.Recording) error {
		if err := r.Verify(); err != nil {
			return err
		}
		n := r.Log.Count()
		t.env.UI.Donef("%s: %d writes of %d bytes, %d flushes, %d discards", out, n.Writes, n.Bytes, n.Flushes, n.Discards)
		return nil
	})
}

// commandOn puts the device into a command line.
func commandOn(device string, words []string) run.Command {
	args := slices.Clone(words)
	for i, arg := range args {
		if arg == "{}" {
			args[i] = device
		}
	}
	command := run.New(args[0], args[1:]...)
	command.Stream = true
	return command
}
