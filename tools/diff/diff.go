// Package diff is nixos-diff: it lists what the next boot wipes, changes back or
// brings back.
//
// It asks the reset's own planner ([reset.Preview]) about the live, mounted volumes
// and writes nothing to them, so what it lists is what the next boot does. A run goes
// from a request (what was asked for) over a target (the plan file and the file
// system) and findings (one a path) to a view, the rows that are shown.
package diff

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/settings"
)

// App is the tool.
func App() *cli.App { return newApp(clikit.System()) }

const description = "Compares the live volumes with their factory state, CLEAN, and lists what the next boot " +
	"wipes, changes back or brings back: what lies outside of the paths that are kept. It asks the " +
	"same planner as the reset does and changes nothing.\n\n" +
	"A path is added (it is not in CLEAN: wiped), modified (other content or links: changed back), " +
	"metadata (other owner, mode, time, attributes: changed back), type (a directory is a file now: " +
	"replaced) or deleted (brought back). A directory that is wiped or brought back stands for all " +
	"that is in it.\n\n" +
	"The rules are those of the default generation, which the next boot starts, even if another " +
	"is running. Directories with a changed time alone, and symlinks into the Nix store, which the " +
	"configuration makes, are only counted unless --all or --show-symlinks asks for them.\n\n" +
	"A PATH shows only what is at or below it. A GLOB with a slash is a path as the rules of " +
	"settings.disk.immutability.persist write it, and stands for all below; one without is a name, anywhere."

func newApp(env *clikit.Env) *cli.App {
	t := tool{env}
	app := &cli.App{
		Name:        "nixos-diff",
		Usage:       "list what the next boot wipes, changes back or brings back",
		ArgsUsage:   "[PATH…]",
		Description: description,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "depth", DefaultText: "no bound", Usage: "sum up what is more than `N` components deep"},
			&cli.StringFlag{Name: "children", Usage: "show what lies in the directory `PATH`, one row an entry, even where the whole of it is wiped"},
			&cli.StringFlag{Name: "content", Usage: "show how the file `PATH` differs from CLEAN, line by line"},
			&cli.StringSliceFlag{Name: "pattern", Usage: "show only what matches `GLOB`, also inside directories; may be repeated"},
			&cli.StringSliceFlag{Name: "ignore", Usage: "leave out what matches a line of `FILE`; may be repeated"},
			&cli.BoolFlag{Name: "recent", Usage: "show only what is new since the last run"},
			&cli.BoolFlag{Name: "kept", Usage: "show what changed in the kept paths instead, which no boot touches"},
			&cli.StringFlag{Name: "since", Value: "clean", Usage: "compare with CLEAN, or with the state that the last boot left: `WHEN` is clean or boot"},
			&cli.BoolFlag{Name: "show-symlinks", Usage: "show symlinks into the Nix store too"},
			&cli.BoolFlag{Name: "all", Usage: "show those, and directories with a changed time alone"},
			clikit.JSONFlag(),
			&cli.StringFlag{Name: "plan", Usage: "take the rules from the plan file `FILE`"},
			&cli.StringFlag{Name: "device", Usage: "the file system is on the device `PATH`, or its top level is mounted there"},
		},
		Action: t.run,
		Commands: []*cli.Command{{
			Name: "suggest", Usage: "turn what would be lost into lines for the configuration",
			ArgsUsage: "[PATH…]",
			Description: "Writes settings.disk.immutability.persist.paths with what the next boot would wipe or " +
				"change back, ready for a host's file, sorted by the systemd unit that owns each path. " +
				"What a NixOS system usually keeps says why; what is not worth keeping, such as caches and " +
				"files that are made anew at each boot, is left out and named. Read it before you copy it: " +
				"a path that nobody keeps is a path that can be trusted.\n\n" +
				"--pattern, --ignore, --recent, --plan, --device and --json are those of nixos-diff.",
			Action: t.suggest,
		}},
		DisableSliceFlagSeparator: true,
	}
	return clikit.New(app, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "sudo nixos-diff", Does: "what the next boot throws away"},
			{Command: "sudo nixos-diff --depth 2", Does: "the same, summed up by /etc/…, /var/…, /home/…"},
			{Command: "sudo nixos-diff --children /home/alice/.config", Does: "what is in a directory that would be wiped, with sizes"},
			{Command: "sudo nixos-diff --recent", Does: "what an application that was just started has written"},
			{Command: "sudo nixos-diff --pattern '*.conf' /etc", Does: "only such files, only there"},
			{Command: "sudo nixos-diff --content /etc/hosts", Does: "what was changed in a file"},
			{Command: "sudo nixos-diff --kept --since boot", Does: "what was written to the kept paths since the machine was booted"},
			{Command: "sudo nixos-diff suggest", Does: "lines for the configuration that keep it all"},
		},
		Files: []clikit.File{
			{Path: settings.SystemProfile + settings.PlanFile, Does: "the rules of the next boot"},
			{Path: settings.PlanFile, Does: "those of the running system"},
			{Path: stateFile, Does: "what the last run listed, for --recent; a run that shows a part does not count"},
		},
		Choices: map[string][]string{"WHEN": {"clean", "boot"}},
		SeeAlso: []string{"nixos-snapshot(8)", "nixos-update(8)"},
	})
}

type tool struct{ env *clikit.Env }

// request is what the command line asks for.
type request struct {
	paths     []string // absolute: only what is at or below one of them
	depth     int      // 0: as deep as it is
	children  string
	content   string
	patterns  []string
	ignore    []string // files
	recent    bool
	kept      bool
	sinceBoot bool
	symlinks  bool
	times     bool
	json      bool
	plan      string
	device    string
}

func newRequest(c *cli.Context) (request, error) {
	r := request{
		depth: c.Int("depth"), patterns: c.StringSlice("pattern"), ignore: c.StringSlice("ignore"),
		recent: c.Bool("recent"), kept: c.Bool("kept"),
		symlinks: c.Bool("show-symlinks") || c.Bool("all"), times: c.Bool("all"), json: c.Bool("json"),
		plan: c.String("plan"), device: c.String("device"),
	}
	switch c.String("since") {
	case "clean":
	case "boot":
		r.sinceBoot = true
	default:
		return r, clikit.Usagef("--since %s: use clean or boot", c.String("since"))
	}
	if c.IsSet("depth") && r.depth < 1 {
		return r, clikit.Usagef("--depth %d: use 1 or more", r.depth)
	}
	for _, name := range []string{"children", "content", "plan", "device"} {
		if c.IsSet(name) && c.String(name) == "" {
			return r, clikit.Usagef("--%s needs a value", name)
		}
	}
	for _, p := range c.Args().Slice() {
		abs, err := absolute(p)
		if err != nil {
			return r, err
		}
		r.paths = append(r.paths, abs)
	}
	for _, p := range []struct {
		to   *string
		flag string
	}{{&r.children, "children"}, {&r.content, "content"}} {
		if !c.IsSet(p.flag) {
			continue
		}
		var err error
		if *p.to, err = absolute(c.String(p.flag)); err != nil {
			return r, err
		}
	}
	return r, r.check()
}

// check refuses what contradicts itself.
func (r request) check() error {
	partial := len(r.patterns) > 0 || len(r.ignore) > 0 || r.recent || r.depth > 0 || r.kept || len(r.paths) > 0
	for _, conflict := range []struct {
		is    bool
		flags string
	}{
		{r.content != "" && r.children != "", "--content and --children"},
		{r.content != "" && partial, "--content PATH and what selects or sums up paths"},
		{r.children != "" && len(r.paths) > 0, "--children PATH and another PATH"},
		{r.recent && (r.plan != "" || r.device != ""), "--recent, which knows this machine's last run, and --plan or --device"},
	} {
		if conflict.is {
			return clikit.Usagef("%s exclude each other", conflict.flags)
		}
	}
	return nil
}

func absolute(path string) (string, error) {
	if path == "" {
		return "", clikit.Usagef("a path is empty")
	}
	return filepath.Abs(path)
}

// wantsVolume tells whether anything of a volume can be shown.
func (r request) wantsVolume(mountPoint string, all []string) bool {
	paths := r.paths
	for _, p := range []string{r.children, r.content} {
		if p != "" {
			paths = []string{p}
		}
	}
	if len(paths) == 0 {
		return true
	}
	return slices.ContainsFunc(paths, func(p string) bool {
		return owner(p, all) == mountPoint || below(mountPoint, p)
	})
}

// owner is the mount point of the volume that a path lies on.
func owner(path string, mountPoints []string) string {
	best := ""
	for _, m := range mountPoints {
		if below(path, m) && len(m) > len(best) {
			best = m
		}
	}
	return best
}

// below reports whether a path lies below dir, or is it.
func below(path, dir string) bool {
	return path == dir || dir == "/" || len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/'
}

func (t tool) run(c *cli.Context) error {
	r, err := newRequest(c)
	if err != nil {
		return err
	}
	if err := t.env.RequireRoot("nixos-diff"); err != nil {
		return err
	}
	filter, err := newFilter(r)
	if err != nil {
		return err
	}
	tgt, err := t.open(c.Context, r)
	if err != nil {
		return err
	}
	defer tgt.close()
	if r.content != "" {
		return t.content(r, tgt)
	}
	return t.list(c.Context, r, tgt, filter)
}

// list shows findings, and notes what it has shown.
func (t tool) list(ctx context.Context, r request, tgt *target, filter *filter) error {
	memory, err := t.recall(r)
	if err != nil {
		return err
	}
	filter.memory = memory
	v, err := t.look(ctx, r, tgt, filter)
	if err != nil {
		return err
	}
	if r.json {
		err = t.env.UI.JSON(newReport(r, tgt, v))
	} else {
		err = t.show(r, tgt, v)
	}
	if err != nil {
		return err
	}
	if r.countsAsRun() {
		t.remember(r, tgt, memory, time.Now())
	}
	if tgt.failed() {
		return clikit.ErrReported
	}
	return nil
}
