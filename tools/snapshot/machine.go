package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
)

// generation says whose rules a command goes by.
type generation string

const (
	running  generation = "running" // what the reset of this boot went by
	nextBoot generation = "next"    // the default generation
)

// machine is the machine whose snapshots are looked at.
type machine struct {
	files  run.Files
	plan   *reset.PlanFile
	source string // the file that the plan comes from
	top    *os.File
}

func (m *machine) close() {
	if m.top != nil {
		m.top.Close()
	}
}

// open reads the plan and opens the file system, for changing it or for looking at it
// alone.
func (t tool) open(c *cli.Context, whose generation, readOnly bool) (*machine, error) {
	if err := t.env.RequireRoot("nixos-snapshot " + c.Command.Name); err != nil {
		return nil, err
	}
	m, err := t.readPlan(c, whose)
	if err != nil {
		return nil, err
	}
	return m, m.openTop(c.String("device"), readOnly)
}

// filesOf are the files of the machine in question.
func (t tool) filesOf(c *cli.Context) run.Files {
	if dir := c.String("root"); dir != "" {
		return run.Below(dir)
	}
	return t.env.Host.Files
}

// readPlan finds the plan.
func (t tool) readPlan(c *cli.Context, whose generation) (*machine, error) {
	m := &machine{files: t.filesOf(c)}
	if name := c.String("plan"); name != "" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		m.source = name
		if m.plan, err = reset.ParsePlanFile(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return m, nil
	}
	names := []string{settings.PlanFile, settings.SystemProfile + settings.PlanFile}
	if whose == nextBoot {
		slices.Reverse(names)
	}
	for _, name := range names {
		plan, err := readPlanFile(m.files, name)
		if err != nil {
			return nil, err
		}
		if plan != nil {
			m.plan, m.source = plan, name
			return m, nil
		}
	}
	return nil, clikit.WithHint(
		fmt.Errorf("no volume of this machine is reset at boot: there is no %s", settings.PlanFile),
		"settings.disk.immutability.enable turns the reset on; --plan FILE takes the rules of a file")
}

// readPlanFile reads a plan of the machine; nil where there is none.
func readPlanFile(files run.Files, name string) (*reset.PlanFile, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plan, err := reset.ParsePlanFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return plan, nil
}

func (m *machine) openTop(device string, readOnly bool) error {
	if device == "" {
		device = m.plan.Device
	}
	if device == "" {
		return clikit.WithHint(errors.New("the plan names no device"), "name one with --device")
	}
	var err error
	if m.top, err = reset.OpenTop(device, readOnly); err != nil {
		return clikit.WithHint(err, "name the file system's device, or a folder where its top level is mounted, with --device")
	}
	return nil
}

// volumes gives the names of the volumes that arguments name; without any, of all.
func (m *machine) volumes(args []string) ([]string, error) {
	var names []string
	for _, v := range m.plan.Volumes {
		if len(args) == 0 {
			names = append(names, v.Name)
		}
	}
	for _, arg := range args {
		i := slices.IndexFunc(m.plan.Volumes, func(v reset.PlanFileVolume) bool { return arg == v.Name || arg == v.MountPoint })
		if i < 0 {
			return nil, clikit.Usagef("no volume is called %q: use one of %s", arg, strings.Join(m.names(), ", "))
		}
		if name := m.plan.Volumes[i].Name; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func (m *machine) names() []string {
	names := make([]string, 0, len(m.plan.Volumes))
	for _, v := range m.plan.Volumes {
		names = append(names, v.Name)
	}
	return names
}

// volumeOf finds the volume that a path of the mounted system belongs to, by mount
// point, and the path in it.
func (m *machine) volumeOf(name string) (*reset.PlanFileVolume, string, error) {
	var found *reset.PlanFileVolume
	for i := range m.plan.Volumes {
		v := &m.plan.Volumes[i]
		if isBelow(name, v.MountPoint) && (found == nil || len(v.MountPoint) > len(found.MountPoint)) {
			found = v
		}
	}
	if found == nil {
		return nil, "", fmt.Errorf("%s is on no volume that is reset at boot: nothing of it was wiped", name)
	}
	return found, "/" + strings.TrimPrefix(strings.TrimPrefix(name, found.MountPoint), "/"), nil
}

// isBelow reports whether a path is a directory or lies below it.
func isBelow(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

// absolute is the path of the mounted system for one of a volume. Bytes stay as they
// are.
func absolute(mountPoint, name string) string {
	switch {
	case name == "/":
		return mountPoint
	case mountPoint == "/":
		return name
	}
	return mountPoint + name
}

// openLive opens the root of a volume where it is mounted, and refuses what is not it.
func (m *machine) openLive(v *reset.PlanFileVolume) (*os.File, error) {
	f, err := m.files.Open(v.MountPoint)
	if err != nil {
		return nil, err
	}
	live, err := reset.IsLive(m.top, v.Name, f)
	if err == nil && !live {
		err = fmt.Errorf("what is mounted at %s is not the volume %s", v.MountPoint, v.Name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
