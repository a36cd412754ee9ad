package snapshot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
)

func (t tool) restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "fetch files and directories back from a snapshot", ArgsUsage: "PATH…",
		Description: "Makes each PATH what it was, by sharing its data: content, owner, mode, time, attributes, access " +
			"control lists, flags, and which names are linked with each other. Directories that led to it come " +
			"back as they were, and a directory with all that was in it.\n\n" +
			"Nothing is overwritten without --force; a directory is merged with the one that is there, and what " +
			"only that has always stays. Each PATH appears whole or not at all, and a restore that was cut off " +
			"is finished by calling it again. A PATH leads through no symlink and no other mount.\n\n" +
			"What is not kept is wiped by the next boot again.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Value: reset.NamePrevious, Usage: "take it from `SNAPSHOT`: PREVIOUS, PENULTIMATE or REPLACED"},
			&cli.BoolFlag{Name: "force", Usage: "overwrite what is there"},
		},
		Action: t.restore,
	}
}

// sources are the snapshots that a restore takes from.
func sources() []string {
	return []string{reset.NamePrevious, reset.NamePenultimate, reset.NameReplaced}
}

// restoring is one restore of paths, volume by volume.
type restoring struct {
	tool
	*machine

	from    string
	options clikit.Options
	force   bool
	volumes []*volumeRestore
	lock    *os.File
}

// volumeRestore is what is restored in one volume.
type volumeRestore struct {
	spec         *reset.PlanFileVolume
	paths        []string // in the volume
	live, source *os.File
	plan         *reset.Restore
}

func (r *restoring) close() {
	for _, v := range r.volumes {
		for _, f := range []*os.File{v.live, v.source} {
			if f != nil {
				f.Close()
			}
		}
	}
	if r.lock != nil {
		r.lock.Close()
	}
}

func (t tool) restore(c *cli.Context) error {
	paths, err := absolutePaths(c.Args().Slice())
	switch {
	case err != nil:
		return err
	case len(paths) == 0:
		return clikit.Usagef("which path?")
	case !slices.Contains(sources(), strings.ToUpper(c.String("from"))):
		return clikit.Usagef("--from %s: use one of %s", c.String("from"), strings.Join(sources(), ", "))
	}
	options := clikit.OptionsOf(c)
	m, err := t.open(c, running, options.DryRun)
	if m != nil {
		defer m.close()
	}
	if err != nil {
		return err
	}
	r := &restoring{tool: t, machine: m, from: strings.ToUpper(c.String("from")), options: options, force: c.Bool("force")}
	defer r.close()
	if !options.DryRun {
		if r.lock, err = reset.Lock(m.top, m.plan); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if err := r.choose(path); err != nil {
			return err
		}
	}
	for _, v := range r.volumes {
		if err := r.prepare(v); err != nil {
			return err
		}
	}
	return r.run(c)
}

// choose adds a path to the volume that it lies on.
func (r *restoring) choose(path string) error {
	spec, rel, err := r.volumeOf(path)
	if err != nil {
		return err
	}
	if rel == "/" {
		return clikit.WithHint(fmt.Errorf("%s is a whole volume", path),
			"the boot menu's entry \"restore previous\" puts it back; name what in it you want")
	}
	for _, v := range r.volumes {
		if v.spec == spec {
			v.paths = append(v.paths, rel)
			return nil
		}
	}
	r.volumes = append(r.volumes, &volumeRestore{spec: spec, paths: []string{rel}})
	return nil
}

// prepare opens the trees of a volume and plans its restore.
func (r *restoring) prepare(v *volumeRestore) error {
	var err error
	if v.live, err = r.openLive(v.spec); err != nil {
		return err
	}
	v.source, err = reset.OpenSnapshot(r.top, r.plan, v.spec.Name, r.from)
	if errors.Is(err, unix.ENOENT) {
		return clikit.WithHint(fmt.Errorf("%s has no %s", v.spec.Name, r.from), "what there is: sudo nixos-snapshot list")
	}
	if err != nil {
		return err
	}
	v.plan, err = reset.PlanRestore(v.live, v.source, v.paths)
	return r.explain(v, err)
}

// explain names paths as the mounted system has them, and where else a path is.
func (r *restoring) explain(v *volumeRestore, err error) error {
	var missing *reset.NotInSnapshotError
	var blocked *reset.BlockedError
	switch {
	case errors.As(err, &missing):
		told := *missing
		told.Path, told.At = absolute(v.spec.MountPoint, missing.Path), absolute(v.spec.MountPoint, missing.At)
		told.Snapshot = r.from
		err = &told
		if others := r.others(v, missing.Path); len(others) > 0 {
			return clikit.WithHint(err, "it is in %s: add --from %s", strings.Join(others, " and "), others[0])
		}
	case errors.As(err, &blocked):
		told := *blocked
		told.Path = absolute(v.spec.MountPoint, blocked.Path)
		err = &told
	}
	return err
}

// others names the other snapshots that have a path.
func (r *restoring) others(v *volumeRestore, path string) []string {
	var out []string
	for _, name := range sources() {
		if name == r.from {
			continue
		}
		f, err := reset.OpenSnapshot(r.top, r.plan, v.spec.Name, name)
		if err != nil {
			continue // there is none, and nothing in it
		}
		if there, err := reset.HasPath(f, path); err == nil && there {
			out = append(out, name)
		}
		f.Close()
	}
	return out
}

// run shows the plan and carries it out.
func (r *restoring) run(c *cli.Context) error {
	result := r.result()
	// Without --force the plan is what is refused.
	refused := result.conflicts() > 0 && !r.force
	if !r.options.JSON {
		if err := r.show(result); err != nil {
			return err
		}
	}
	if r.options.DryRun || refused || result.nothing() {
		if r.options.JSON {
			if err := r.env.UI.JSON(result); err != nil {
				return err
			}
		}
		return r.end(result, refused)
	}
	if result.conflicts() > 0 {
		ok, err := r.env.Confirm(c.Context, r.options, "Overwrite what is there?", "")
		if err != nil {
			return err
		}
		if !ok {
			r.env.UI.Infof("nothing was changed")
			return clikit.ErrReported
		}
	}
	for _, v := range r.volumes {
		err := v.plan.Apply(c.Context, reset.RestoreOptions{Force: r.force, Volume: v.spec.Name})
		if err != nil {
			return clikit.WithHint(r.explain(v, err), "what is restored so far is whole; the same command goes on from there")
		}
	}
	result.Applied = true
	if r.options.JSON {
		if err := r.env.UI.JSON(result); err != nil {
			return err
		}
	}
	r.done(c, result)
	return nil
}

// end says why nothing is done.
func (r *restoring) end(result *restored, refused bool) error {
	switch {
	case refused:
		return clikit.WithHint(fmt.Errorf("%s would be overwritten: nothing was changed", plural(result.conflicts(), "path")),
			"--force overwrites them")
	case result.nothing():
		r.env.UI.Donef("everything is there already, exactly as in %s", r.from)
	}
	return nil
}

// done says what was restored, and whether it lasts.
func (r *restoring) done(c *cli.Context, result *restored) {
	names, size := result.total()
	r.env.UI.Donef("restored %s (%s) from %s", plural(names, "name"), sizeOf(&size), r.from)
	wiped := r.notKept(c)
	if len(wiped) > 0 {
		r.env.UI.Warnf("the next boot wipes it again, since it is not kept:\n%s", strings.Join(wiped, "\n"))
		r.env.UI.Hintf("keep it by settings.disk.immutability.persist.paths, or move it to where things are kept")
	}
}

// notKept gives the paths asked for that the next boot does not keep.
func (r *restoring) notKept(c *cli.Context) []string {
	next, err := r.readPlan(c, nextBoot)
	if err != nil {
		r.env.UI.Warnf("whether the next boot keeps it is not known: %v", err)
		return nil
	}
	var out []string
	for _, v := range r.volumes {
		for _, rel := range v.paths {
			name := absolute(v.spec.MountPoint, rel)
			kept, err := keeps(next.plan, name)
			if err == nil && !kept {
				out = append(out, name)
			}
		}
	}
	return out
}
