package snapshot

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

func excludeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "exclude", Usage: "leave out what matches `RULE`, an absolute path as in persist.paths; may be repeated"},
		&cli.BoolFlag{Name: "all", Usage: "take what is usually junk, too"},
	}
}

func (t tool) initCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "take the first factory state of a machine", ArgsUsage: "[VOLUME…]",
		Description: "For a machine that was not installed by nixos-install-go: takes CLEAN, the state that every boot goes " +
			"back to, from what is there now. What is kept is left out, since no reset reads it there, and old " +
			"password hashes and keys have no business in it; so is junk, such as caches, logs and temporary " +
			"files. What exclude rules leave to CLEAN below kept paths is taken.\n\n" +
			"A volume that has a CLEAN is left alone; rebase renews it.",
		Flags:  excludeFlags(),
		Action: t.init,
	}
}

func (t tool) rebaseCommand() *cli.Command {
	return &cli.Command{
		Name: "rebase", Usage: "renew the factory state from the running system", ArgsUsage: "[VOLUME…]",
		Description: "Takes into CLEAN what would be wiped, changed back or brought back by the next boot: what differs from " +
			"CLEAN, is not kept and is no junk. Where something is left out, and at and below kept paths, CLEAN " +
			"stays as it is; what is kept goes from it.\n\n" +
			"The CLEAN before stays until a boot has reset to the new one, and --undo puts it back until then. " +
			"Both are one step, which is done or not.",
		Flags: append(excludeFlags(),
			&cli.BoolFlag{Name: "undo", Usage: "put the CLEAN before the newest one back"}),
		Action: t.rebase,
	}
}

// junk is what a factory state has no use for: what programs make again, or what must
// not be the same at each boot. The folders themselves stay.
func junk() []string {
	return []string{
		"/tmp/*", "/var/tmp/*", "/var/cache/*", "/var/log/*", "/run/*", "/proc/*", "/sys/*", "/dev/*",
		"/var/lib/systemd/coredump/*", "/var/lib/systemd/random-seed", "/var/lib/systemd/timers/*",
		"/root/.cache", "/home/*/.cache",
		"/root/.local/share/Trash", "/home/*/.local/share/Trash",
		"/root/.bash_history", "/home/*/.bash_history", "/root/.zsh_history", "/home/*/.zsh_history",
		"/root/.lesshst", "/home/*/.lesshst", "/home/*/.xsession-errors*",
	}
}

// leftOut shares out what is left out over the volumes.
func leftOut(plan *reset.PlanFile, excluded []string, all bool) (map[string][]string, error) {
	volumes := make([]keep.Volume, 0, len(plan.Volumes))
	for _, v := range plan.Volumes {
		volumes = append(volumes, keep.Volume{Name: v.Name, MountPoint: v.MountPoint, Reset: true})
	}
	out := map[string][]string{}
	share := func(rule string) error {
		parts, withoutEffect, err := keep.Split(volumes, []string{rule}, nil)
		if err != nil {
			return err
		}
		if len(withoutEffect) > 0 {
			return fmt.Errorf("rule %q reaches no volume that is reset at boot", rule)
		}
		for _, p := range parts {
			out[p.Volume.Name] = append(out[p.Volume.Name], p.Keep...)
		}
		return nil
	}
	for _, rule := range excluded {
		if err := share(rule); err != nil {
			return nil, clikit.Usagef("--exclude: %v", err)
		}
	}
	if all {
		return out, nil
	}
	for _, rule := range junk() {
		// On this machine it may reach no such volume, or take in one's mount point.
		_ = share(rule)
	}
	return out, nil
}

// renewed is the result of init and rebase.
type renewed struct {
	Applied bool            `json:"applied"`
	Volumes []renewedVolume `json:"volumes"`
}

type renewedVolume struct {
	Name       string `json:"name"`
	MountPoint string `json:"mountPoint"`
	// Changes are what comes into CLEAN, goes from it or is changed in it.
	Changes []cleanChange `json:"changes"`
	// LeftOut is what is not taken though it is not kept.
	LeftOut []cleanChange `json:"leftOut"`
	// Kept is what is kept and so is not in the new CLEAN.
	Kept []ui.Path `json:"kept"`
	// Clean is the UUID of the new CLEAN, and Before the name of the one before.
	Clean  string `json:"clean,omitempty"`
	Before string `json:"before,omitempty"`

	kept []string
}

// cleanChange is a path of CLEAN that changes.
type cleanChange struct {
	ui.Path

	Change string   `json:"change"` // new, gone, or how it differs
	Type   string   `json:"type"`
	Fields []string `json:"fields,omitempty"`
	Size   uint64   `json:"size"`

	absolute string
	onlyTime bool
}

// cleanWords say what a change means for CLEAN: the planner looks from live's side.
var cleanWords = map[reset.Kind]string{
	reset.KindDeleted: "new", reset.KindAdded: "gone", reset.KindModified: "modified",
	reset.KindMetadata: "metadata", reset.KindType: "type",
}

func cleanChanges(mountPoint string, changes []reset.Change) []cleanChange {
	out := []cleanChange{}
	for i := range changes {
		c := &changes[i]
		name := absolute(mountPoint, c.Path)
		out = append(out, cleanChange{
			Path: ui.JSONPath(name), Change: cleanWords[c.Kind], Type: reset.TypeName(c.Mode), Fields: c.Fields.Names(), Size: c.Size,
			absolute: name, onlyTime: c.OnlyTime(),
		})
	}
	return out
}

func newRenewed(cleans *reset.Cleans) *renewed {
	out := &renewed{Volumes: []renewedVolume{}}
	for _, n := range cleans.Volumes {
		v := renewedVolume{
			Name: n.Name, MountPoint: n.MountPoint, Kept: []ui.Path{},
			Changes: cleanChanges(n.MountPoint, n.Changes), LeftOut: cleanChanges(n.MountPoint, n.LeftOut),
		}
		for _, path := range n.Kept {
			name := absolute(n.MountPoint, path)
			v.Kept, v.kept = append(v.Kept, ui.JSONPath(name)), append(v.kept, name)
		}
		out.Volumes = append(out.Volumes, v)
	}
	return out
}

// nothing reports whether a volume's CLEAN is what live is: times of directories alone
// are not worth a new one.
func nothing(n *reset.NewClean) bool {
	for i := range n.Changes {
		if !n.Changes[i].OnlyTime() {
			return false
		}
	}
	return len(n.Kept) == 0
}

func (t tool) init(c *cli.Context) error {
	return t.renew(c, true)
}

func (t tool) rebase(c *cli.Context) error {
	if c.Bool("undo") {
		if c.Bool("all") || c.IsSet("exclude") {
			return clikit.Usagef("--undo goes with neither --exclude nor --all")
		}
		return t.undo(c)
	}
	return t.renew(c, false)
}

// renew makes new CLEANs: the first ones, or others.
func (t tool) renew(c *cli.Context, first bool) error {
	options := clikit.OptionsOf(c)
	m, names, err := t.openVolumes(c, nextBoot, options.DryRun)
	if err != nil {
		return err
	}
	defer m.close()
	if first && !c.Args().Present() {
		if names, err = t.withoutClean(m, names); err != nil || len(names) == 0 {
			return err
		}
	}
	rules, err := leftOut(m.plan, c.StringSlice("exclude"), c.Bool("all"))
	if err != nil {
		return err
	}
	cleans, err := reset.PrepareCleans(c.Context, m.top, m.plan, names, reset.CleanOptions{First: first, LeaveOut: rules, DryRun: options.DryRun})
	if err != nil {
		return err
	}
	return errors.Join(t.carryOut(c, cleans, first), cleans.Close())
}

// withoutClean gives the volumes that have no CLEAN yet.
func (t tool) withoutClean(m *machine, names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		there, err := reset.HasClean(m.top, m.plan, name)
		if err != nil {
			return nil, err
		}
		if there {
			t.env.UI.Infof("%s has its %s already", name, m.plan.Clean)
			continue
		}
		out = append(out, name)
	}
	if len(out) == 0 {
		return nil, clikit.WithHint(errors.New("there is nothing to take"), "renew a factory state: sudo nixos-snapshot rebase")
	}
	return out, nil
}

// carryOut shows what the new CLEANs are, and puts them in place.
func (t tool) carryOut(c *cli.Context, cleans *reset.Cleans, first bool) error {
	options := clikit.OptionsOf(c)
	result := newRenewed(cleans)
	if !options.JSON {
		if err := t.showRenewed(result, first); err != nil {
			return err
		}
	}
	if !first {
		if err := t.dropUnchanged(cleans); err != nil {
			return err
		}
	}
	if options.DryRun || len(cleans.Volumes) == 0 {
		if options.JSON {
			return t.env.UI.JSON(result)
		}
		return nil
	}
	var names []string
	for _, n := range cleans.Volumes {
		names = append(names, n.Name)
	}
	question := "Make this the factory state of " + strings.Join(names, " and ") + "?"
	ok, err := t.env.Confirm(c.Context, options, question, "")
	if err != nil {
		return err
	}
	if !ok {
		t.env.UI.Infof("nothing was changed")
		return clikit.ErrReported
	}
	if err := cleans.PutInPlace(c.Context); err != nil {
		return err
	}
	result.note(cleans)
	if options.JSON {
		return t.env.UI.JSON(result)
	}
	t.tellRenewed(cleans, first)
	return nil
}

// dropUnchanged leaves alone volumes for which there is nothing to do.
func (t tool) dropUnchanged(cleans *reset.Cleans) error {
	for i := 0; i < len(cleans.Volumes); {
		n := cleans.Volumes[i]
		if !nothing(n) {
			i++
			continue
		}
		t.env.UI.Donef("the factory state of %s is what the running system has: nothing to do", n.Name)
		if err := cleans.Drop(n); err != nil {
			return err
		}
	}
	return nil
}

// note takes in what was put in place.
func (r *renewed) note(cleans *reset.Cleans) {
	r.Applied = true
	for _, n := range cleans.Volumes {
		for i := range r.Volumes {
			if r.Volumes[i].Name == n.Name {
				r.Volumes[i].Clean, r.Volumes[i].Before = n.UUID, n.Old
			}
		}
	}
}

func (t tool) tellRenewed(cleans *reset.Cleans, first bool) {
	for _, n := range cleans.Volumes {
		if first {
			t.env.UI.Donef("%s has its factory state", n.Name)
		} else {
			t.env.UI.Donef("%s has a new factory state", n.Name)
		}
	}
	if first {
		t.env.UI.Hintf("what the next boot would wipe: sudo nixos-diff")
		return
	}
	t.env.UI.Hintf("the one before stays until a boot has reset to this one; until then: sudo nixos-snapshot rebase --undo")
}

func (t tool) showRenewed(r *renewed, first bool) error {
	for i := range r.Volumes {
		v := &r.Volumes[i]
		if err := t.env.UI.Print(t.env.UI.Out(ui.Bold, v.Name) + " at " + v.MountPoint); err != nil {
			return err
		}
		table := ui.Table{Head: []string{"  FOR CLEAN", ">SIZE", "PATH"}}
		times := int64(0)
		for _, c := range v.Changes {
			if c.onlyTime {
				times++
				continue
			}
			table.Row("  "+c.what(), c.size(), c.name())
		}
		for _, c := range v.LeftOut {
			if !c.onlyTime {
				table.Row("  left out", c.size(), c.name())
			}
		}
		for _, name := range v.kept {
			table.Row("  kept, left out", "-", ui.Printable(name))
		}
		if table.Len() > 0 {
			if err := t.env.UI.Table(&table); err != nil {
				return err
			}
		}
		if times > 0 && !first {
			t.env.UI.Infof("not shown of %s: %s with another time alone", v.Name, plural(times, "directory"))
		}
	}
	return nil
}

func (c *cleanChange) what() string {
	if len(c.Fields) > 0 && c.Change != "type" {
		return c.Change + " (" + strings.Join(c.Fields, ", ") + ")"
	}
	return c.Change
}

func (c *cleanChange) size() string {
	if c.Type == "directory" || c.Change == "metadata" {
		return "-"
	}
	return ui.Size(int64(c.Size))
}

func (c *cleanChange) name() string {
	name := ui.Printable(c.absolute)
	if c.Type == "directory" && !strings.HasSuffix(name, "/") {
		name += "/"
	}
	return name
}
