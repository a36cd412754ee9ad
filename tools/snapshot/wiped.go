package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/ui"
)

func (t tool) wipedCommand() *cli.Command {
	return &cli.Command{
		Name: "wiped", Usage: "list what the reset of this boot threw away", ArgsUsage: "[PATH…]",
		Description: "What was added since CLEAN was wiped; what was modified, or had other owner, mode or attributes, " +
			"was changed back; of another type, it was replaced. All of it is still in PREVIOUS, until two " +
			"more boots have changed something. A directory that was wiped stands for all that was in it, " +
			"which --depth lists as well. With a PATH, only what lies at or below it is listed, and levels count " +
			"from there.",
		Flags:  []cli.Flag{&cli.IntFlag{Name: "depth", Usage: "list what was in wiped directories too, `N` levels deep; -1 is all"}},
		Action: t.wiped,
	}
}

// wipedList is the result of wiped.
type wipedList struct {
	Mode    reset.Mode    `json:"mode"`
	Started string        `json:"started"`
	Volumes []wipedVolume `json:"volumes"`
	Wiped   []wipedPath   `json:"wiped"`
}

// wipedVolume is what the reset did to a volume.
type wipedVolume struct {
	Name       string        `json:"name"`
	MountPoint string        `json:"mountPoint"`
	Outcome    reset.Outcome `json:"outcome"`
	Error      string        `json:"error,omitempty"`
}

// wipedPath is something that is gone, or what it was before it was changed back.
type wipedPath struct {
	ui.Path

	Volume string     `json:"volume"`
	Kind   reset.Kind `json:"kind"`
	Type   string     `json:"type"`
	Fields []string   `json:"fields,omitempty"`
	Size   uint64     `json:"size"`
	Depth  int        `json:"depth"`

	absolute string
}

func (t tool) wiped(c *cli.Context) error {
	if err := t.env.RequireRoot("nixos-snapshot wiped"); err != nil {
		return err
	}
	depth := c.Int("depth")
	if depth < -1 {
		return clikit.Usagef("--depth %d: use 0 or more, or -1 for all", depth)
	}
	paths, err := absolutePaths(c.Args().Slice())
	if err != nil {
		return err
	}
	list, changes, err := readBoot(t.filesOf(c))
	if err != nil {
		return err
	}
	scope := scope{paths: paths, depth: depth, mountPoints: list.mountPoints()}
	if scope.goesBelow(changes) {
		if changes, err = t.expand(c, changes, scope); err != nil {
			return err
		}
	}
	if err := list.add(changes, scope); err != nil {
		return err
	}
	if clikit.OptionsOf(c).JSON {
		return t.env.UI.JSON(list)
	}
	return t.showWiped(list, paths)
}

// readBoot reads what the reset of this boot left behind.
func readBoot(files run.Files) (*wipedList, []reset.Wiped, error) {
	text, err := files.ReadFile(reportFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, clikit.WithHint(fmt.Errorf("there is no report of a reset at this boot (%s)", reportFile),
			"why it did not run: journalctl -b -u immutability.service")
	}
	if err != nil {
		return nil, nil, err
	}
	var report reset.Report
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", reportFile, err)
	}
	list := &wipedList{
		Mode: report.Mode, Started: report.Started.Format("2006-01-02T15:04:05Z07:00"),
		Volumes: []wipedVolume{}, Wiped: []wipedPath{},
	}
	for i := range report.Volumes {
		v := &report.Volumes[i]
		list.Volumes = append(list.Volumes, wipedVolume{v.Name, v.MountPoint, v.Outcome, v.Error})
	}
	f, err := files.Open(wipedFile)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	changes, err := reset.ReadWiped(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", wipedFile, err)
	}
	return list, changes, nil
}

// expand lists what lay in wiped directories, as PREVIOUS has it.
func (t tool) expand(c *cli.Context, changes []reset.Wiped, scope scope) ([]reset.Wiped, error) {
	m, err := t.open(c, running, true)
	if m != nil {
		defer m.close()
	}
	if err != nil {
		return nil, err
	}
	e := expander{tool: t, machine: m, previous: map[string]*os.File{}}
	defer e.close()
	var out []reset.Wiped
	for i := range changes {
		more, err := e.expand(c.Context, &changes[i], scope.depthOf(&changes[i]))
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

type expander struct {
	tool
	*machine

	previous map[string]*os.File // PREVIOUS by volume; nil where it is not of this boot
}

func (e *expander) close() {
	for _, f := range e.previous {
		if f != nil {
			f.Close()
		}
	}
}

func (e *expander) expand(ctx context.Context, w *reset.Wiped, depth int) ([]reset.Wiped, error) {
	previous, known := e.previous[w.Volume]
	if !known {
		var err error
		if previous, err = e.openPrevious(w.Volume); err != nil {
			return nil, err
		}
		e.previous[w.Volume] = previous
	}
	if previous == nil {
		return []reset.Wiped{*w}, nil
	}
	return w.Expand(ctx, previous, depth)
}

// openPrevious opens what the reset of this boot replaced.
func (e *expander) openPrevious(volume string) (*os.File, error) {
	h, err := reset.ReadHistory(e.top, e.plan, volume)
	if err != nil {
		return nil, err
	}
	if !h.Linked {
		e.env.UI.Warnf("%s: PREVIOUS is not what the reset of this boot replaced: what lay in its directories cannot be told", volume)
		return nil, nil
	}
	f, err := reset.OpenSnapshot(e.top, e.plan, volume, reset.NamePrevious)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return f, err
}

func (l *wipedList) mountPoints() map[string]string {
	out := map[string]string{}
	for _, v := range l.Volumes {
		out[v.Name] = v.MountPoint
	}
	return out
}

// add takes in the changes that are asked for.
func (l *wipedList) add(changes []reset.Wiped, scope scope) error {
	for i := range changes {
		w := &changes[i]
		if _, known := scope.mountPoints[w.Volume]; !known {
			return fmt.Errorf("%s names the volume %q, which the report does not", wipedFile, w.Volume)
		}
		if !scope.holds(w) {
			continue
		}
		name := scope.absolute(w)
		l.Wiped = append(l.Wiped, wipedPath{
			Path: ui.JSONPath(name), Volume: w.Volume, Kind: w.Kind, Type: w.Type, Fields: w.Fields,
			Size: w.Size, Depth: w.Depth, absolute: name,
		})
	}
	return nil
}

// fates say what a reset does about a kind.
var fates = map[reset.Kind]string{
	reset.KindAdded: "wiped", reset.KindModified: "changed back", reset.KindMetadata: "changed back", reset.KindType: "replaced",
}

func (t tool) showWiped(l *wipedList, paths []string) error {
	for _, v := range l.Volumes {
		switch v.Outcome {
		case reset.OutcomeFailed:
			t.env.UI.Warnf("%s was left as it was: %s", v.Name, v.Error)
		case reset.OutcomeUnchanged:
			t.env.UI.Infof("%s was left as it was: nothing had changed since the last reset", v.Name)
		case reset.OutcomeDisabled, reset.OutcomeSnapshot, reset.OutcomeRestored, reset.OutcomePlanned:
			t.env.UI.Infof("%s was not reset: the mode was %s", v.Name, l.Mode)
		case reset.OutcomeReset:
		}
	}
	if len(l.Wiped) == 0 {
		what := "nothing"
		if len(paths) > 0 {
			what = "nothing at " + strings.Join(paths, ", ")
		}
		t.env.UI.Donef("the reset of this boot threw %s away", what)
		return nil
	}
	table := ui.Table{Head: []string{"WHAT", ">SIZE", "PATH"}}
	for _, w := range l.Wiped {
		table.Row(w.cells()...)
	}
	if err := t.env.UI.Table(&table); err != nil {
		return err
	}
	t.env.UI.Hintf("fetch something back: sudo nixos-snapshot restore PATH")
	return nil
}

func (w *wipedPath) cells() []string {
	name, size := ui.Printable(w.absolute), "-"
	switch {
	case w.Type == "directory" && w.Kind != reset.KindMetadata:
		name += "/"
	case w.Kind == reset.KindAdded || w.Kind == reset.KindModified:
		size = ui.Size(int64(w.Size))
	}
	what := fates[w.Kind]
	if len(w.Fields) > 0 && w.Kind == reset.KindMetadata {
		what += " (" + strings.Join(w.Fields, ", ") + ")"
	}
	return []string{what, size, name}
}
