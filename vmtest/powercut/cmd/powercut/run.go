package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
	"nixos-go/vmtest/powercut"
)

func (t *tool) runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "cut the power of scenarios",
		ArgsUsage: "[SCENARIO…]",
		Description: "Without --all: every flush, and of the writes, of the subsets of writes that may be lost, and of " +
			"the commits that the -restless scenarios force, a sample that --seed draws. A scenario can be a pattern " +
			"such as 'reset-*'.\n\n" +
			"A point that fails leaves its image and its recording, and the command that tries it again. " +
			"Exit status 1 says that there is one.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "every flush and every write, and more subsets"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "draws the sample and the subsets: `N`"},
			&cli.IntFlag{Name: "workers", Value: runtime.NumCPU(), Usage: "try `N` points at a time"},
			&cli.StringFlag{Name: "dir", Value: powercut.WorkDir(), Usage: "the folder `DIR` for images, best on a tmpfs"},
			initrdResetFlag(), clikit.JSONFlag(),
		},
		Action: t.run,
	}
}

// selection is what the flags ask for.
func selection(c *cli.Context) powercut.Selection {
	s := powercut.Selection{
		Flushes: true, Writes: true, Subsets: 3, Sample: 6, Firsts: 3, Dense: 24, Seed: c.Uint64("seed"),
	}
	if c.Bool("all") {
		s.Subsets, s.Sample, s.Firsts, s.Dense = 4, 0, 0, 0
	}
	return s
}

func (t *tool) run(c *cli.Context) error {
	if err := t.env.RequireRoot("powercut run"); err != nil {
		return err
	}
	table, err := t.scenarios(c)
	if err != nil {
		return err
	}
	chosen, err := choose(table, c.Args().Slice())
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(c.String("dir"), name+"-")
	if err != nil {
		return err
	}
	r := &powercut.Runner{
		Select: selection(c), Workers: c.Int("workers"), Dir: dir, Run: t.programs(),
		Repeat: repeatCommand(c.String("initrd-reset")),
	}
	results, err := t.cutAll(c, r, chosen)
	if len(results) > 0 {
		if printErr := t.print(results, c.Bool("json")); printErr != nil {
			return printErr
		}
	}
	failed := slices.ContainsFunc(results, func(r *powercut.Result) bool { return r.Failed() > 0 })
	switch {
	case c.Err() != nil && !failed:
		return errors.Join(err, os.RemoveAll(dir))
	case err != nil:
		return fmt.Errorf("%w (what it left is in %s)", err, dir)
	case failed:
		t.env.UI.Hintf("images and recordings of what failed are in %s", dir)
		return clikit.ErrReported
	}
	return os.Remove(dir) // empty
}

// choose takes the scenarios that match any of the patterns; without any, all.
func choose(table []*powercut.Scenario, patterns []string) ([]*powercut.Scenario, error) {
	if len(patterns) == 0 {
		return table, nil
	}
	var chosen []*powercut.Scenario
	used := map[string]bool{}
	for _, s := range table {
		for _, pattern := range patterns {
			matches, err := path.Match(pattern, s.Name)
			if err != nil {
				return nil, clikit.Usagef("pattern %q: %v", pattern, err)
			}
			if matches {
				used[pattern] = true
				chosen = append(chosen, s)
				break
			}
		}
	}
	for _, pattern := range patterns {
		if !used[pattern] {
			return nil, clikit.Usagef("no scenario %q: powercut list shows them", pattern)
		}
	}
	return chosen, nil
}

func (t *tool) cutAll(c *cli.Context, r *powercut.Runner, chosen []*powercut.Scenario) ([]*powercut.Result, error) {
	var results []*powercut.Result
	var errs []error
	for _, s := range chosen {
		result, err := r.Cut(c.Context, s)
		if err != nil && c.Err() != nil {
			return results, context.Cause(c.Context)
		}
		if err != nil {
			// One that cannot be tried says nothing of the others.
			t.env.UI.Errorf("%v", err)
			errs = append(errs, fmt.Errorf("%s could not be tried", s.Name))
			continue
		}
		results = append(results, result)
		took := time.Duration(result.Seconds * float64(time.Second)).Round(100 * time.Millisecond)
		if result.Failed() == 0 {
			t.env.UI.Donef("%s: %d points hold (%v)", s.Name, result.Tried(), took)
			continue
		}
		t.env.UI.Errorf("%s: %d of %d points do not hold (%v)", s.Name, result.Failed(), result.Tried(), took)
		for _, f := range result.Failures {
			t.tell(&f)
		}
	}
	return results, errors.Join(errs...)
}

// tell says what did not hold at a point, and how to see it again.
func (t *tool) tell(f *powercut.Failure) {
	t.env.UI.Infof("%s at %s, %s: %s", f.Scenario, f.Point, f.Phase, ui.Printable(f.Error))
	t.env.UI.Infof("  image: %s", f.Image)
	t.env.UI.Infof("  again: %s", f.Repeat)
}

// repeatCommand gives the command line that tries a point again.
func repeatCommand(initrdReset string) func(*powercut.Scenario, string, powercut.Point) string {
	return func(s *powercut.Scenario, dir string, p powercut.Point) string {
		return "scripts/powercut " + strings.TrimPrefix(run.New(name, "replay", "--scenario", s.Name,
			"--initrd-reset", initrdReset, dir, p.String()).String(), name+" ")
	}
}

// print shows the counts by mode and kind, or everything as JSON.
func (t *tool) print(results []*powercut.Result, asJSON bool) error {
	if asJSON {
		return t.env.UI.JSON(map[string]any{"version": 1, "scenarios": results})
	}
	table := &ui.Table{Head: []string{"mode", ">scenarios", ">flush", ">write", ">subset", ">cut twice", ">all", ">failed"}}
	var modes []string
	for _, r := range results {
		if !slices.Contains(modes, r.Mode) {
			modes = append(modes, r.Mode)
		}
	}
	for _, mode := range modes {
		table.Row(row(mode, results, func(r *powercut.Result) bool { return r.Mode == mode })...)
	}
	table.Row(row("all", results, func(*powercut.Result) bool { return true })...)
	return t.env.UI.Table(table)
}

func row(name string, results []*powercut.Result, which func(*powercut.Result) bool) []string {
	var scenarios, twice, tried, failed int
	kinds := map[powercut.Kind]int{}
	for _, r := range results {
		if !which(r) {
			continue
		}
		scenarios++
		tried += r.Tried()
		failed += r.Failed()
		for kind, tally := range r.Points {
			kinds[kind] += tally.Tried
		}
		for _, tally := range r.Twice {
			twice += tally.Tried
		}
	}
	cells := []string{name}
	for _, n := range []int{
		scenarios, kinds[powercut.Start] + kinds[powercut.Flush], kinds[powercut.Write], kinds[powercut.Subset], twice, tried, failed,
	} {
		cells = append(cells, strconv.Itoa(n))
	}
	return cells
}

func (t *tool) listCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the scenarios",
		Flags: []cli.Flag{initrdResetFlag(), clikit.JSONFlag()},
		Action: func(c *cli.Context) error {
			if err := clikit.NoArgs(c); err != nil {
				return err
			}
			scenarios, err := t.scenarios(c)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				var names []string
				for _, s := range scenarios {
					names = append(names, s.Name)
				}
				return t.env.UI.JSON(names)
			}
			table := &ui.Table{Head: []string{"scenario", "mode", "cut twice"}}
			for _, s := range scenarios {
				table.Row(s.Name, s.Mode, map[bool]string{true: "yes", false: "no"}[s.CutTwice])
			}
			return t.env.UI.Table(table)
		},
	}
}
