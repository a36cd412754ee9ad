package snapshot

import (
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

func (t tool) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the snapshots of each volume", ArgsUsage: "[VOLUME…]",
		Description: "AGE is how long ago the state was last written to. EXCLUSIVE is what deleting the snapshot alone " +
			"would free; SHARED is what it has in common with others, the live volume included. Both count " +
			"file data as it is on disk, subvolumes that are nested in the snapshot included, and no metadata; " +
			"they come from a walk over the extents of all subvolumes, which takes some seconds for a million " +
			"files. Where quotas are on and consistent they are taken from there, and count metadata too. What " +
			"the last reset wiped is in PREVIOUS and, until the next one, in CURRENT, so neither holds it alone.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "no-sizes", Usage: "leave the sizes out, which is faster"}},
		Action: t.list,
	}
}

// listing is the result of list.
type listing struct {
	// Sizes says where the sizes come from: "extents", "quota", or "none".
	Sizes   string         `json:"sizes"`
	Volumes []listedVolume `json:"volumes"`
}

type listedVolume struct {
	Name       string           `json:"name"`
	MountPoint string           `json:"mountPoint"`
	Snapshots  []listedSnapshot `json:"snapshots"`
	Error      string           `json:"error,omitempty"`

	history *reset.History
}

type listedSnapshot struct {
	Name      string    `json:"name"`
	Role      role      `json:"role"`
	UUID      string    `json:"uuid"`
	Created   time.Time `json:"created"`
	Changed   time.Time `json:"changed"`
	ReadOnly  bool      `json:"readOnly"`
	Exclusive *uint64   `json:"exclusive,omitempty"`
	Shared    *uint64   `json:"shared,omitempty"`
}

// role is what a snapshot is for.
type role string

const (
	roleClean       role = "clean"
	roleCurrent     role = "current"
	rolePrevious    role = "previous"
	rolePenultimate role = "penultimate"
	roleReplaced    role = "replaced"
	roleNext        role = "next"
	roleOldClean    role = "old-clean"
	roleAged        role = "aged"
	roleOther       role = "other"
)

// meanings say what a role is.
var meanings = map[role]string{
	roleClean:       "the factory state",
	roleCurrent:     "as the last reset left it",
	rolePrevious:    "as it was when the last boot began",
	rolePenultimate: "the one before",
	roleReplaced:    "what a restore at boot displaced",
	roleNext:        "left by a run that was cut off; the next boot finishes it",
	roleOldClean:    "the factory state before, until a boot has reset to the new one",
	roleAged:        "waits for gc",
	roleOther:       "not the toolkit's",
}

func roleOf(s *reset.Snapshot, clean string) role {
	switch {
	case s.Replaced:
		return roleOldClean
	case reset.IsAged(s.Name):
		return roleAged
	case s.Name == clean:
		return roleClean
	}
	for name, r := range map[string]role{
		reset.NameCurrent: roleCurrent, reset.NamePrevious: rolePrevious, reset.NamePenultimate: rolePenultimate,
		reset.NameReplaced: roleReplaced, reset.NameNext: roleNext,
	} {
		if s.Name == name {
			return r
		}
	}
	return roleOther
}

func (t tool) list(c *cli.Context) error {
	m, err := t.open(c, running, true)
	if m != nil {
		defer m.close()
	}
	if err != nil {
		return err
	}
	names, err := m.volumes(c.Args().Slice())
	if err != nil {
		return err
	}
	l := newListing(m, names)
	if !c.Bool("no-sizes") {
		if err := t.measure(c.Context, m, l); err != nil {
			return err
		}
	}
	if err := t.showListing(l, clikit.OptionsOf(c).JSON); err != nil {
		return err
	}
	for i := range l.Volumes {
		if l.Volumes[i].Error != "" {
			return clikit.ErrReported
		}
	}
	return nil
}

func newListing(m *machine, names []string) *listing {
	l := &listing{Sizes: "none", Volumes: []listedVolume{}}
	for _, name := range names {
		h, err := reset.ReadHistory(m.top, m.plan, name)
		v := listedVolume{Name: name, Snapshots: []listedSnapshot{}, history: h}
		for _, spec := range m.plan.Volumes {
			if spec.Name == name {
				v.MountPoint = spec.MountPoint
			}
		}
		if err != nil {
			v.Error = err.Error()
			l.Volumes = append(l.Volumes, v)
			continue
		}
		for i := range h.Snapshots {
			s := &h.Snapshots[i]
			v.Snapshots = append(v.Snapshots, listedSnapshot{
				Name: s.Name, Role: roleOf(s, m.plan.Clean), UUID: s.Info.UUID.String(),
				Created: s.Info.Created, Changed: s.Info.Changed, ReadOnly: s.Info.ReadOnly,
			})
		}
		l.Volumes = append(l.Volumes, v)
	}
	return l
}

// measure finds the sizes.
func (t tool) measure(ctx context.Context, m *machine, l *listing) error {
	if err := btrfs.Sync(m.top); err != nil {
		return err
	}
	var groups [][]uint64
	for i := range l.Volumes {
		if h := l.Volumes[i].history; h != nil {
			for _, s := range h.Snapshots {
				groups = append(groups, s.Trees)
			}
		}
	}
	usage, err := quotaUsage(m, groups)
	if err != nil {
		return err
	}
	l.Sizes = "quota"
	if usage == nil {
		l.Sizes = "extents"
		if usage, err = t.walkExtents(ctx, m, groups); err != nil {
			return err
		}
	}
	at := 0
	for i := range l.Volumes {
		for j := range l.Volumes[i].Snapshots {
			l.Volumes[i].Snapshots[j].Exclusive, l.Volumes[i].Snapshots[j].Shared = &usage[at].Exclusive, &usage[at].Shared
			at++
		}
	}
	return nil
}

// quotaUsage takes the sizes from quotas; nil where these do not tell.
func quotaUsage(m *machine, groups [][]uint64) ([]btrfs.Usage, error) {
	quotas, err := btrfs.ReadQuotas(m.top)
	if err != nil || quotas == nil {
		return nil, err
	}
	out := make([]btrfs.Usage, 0, len(groups))
	for _, ids := range groups {
		u, known := quotas[ids[0]]
		if !known || len(ids) > 1 { // of several together, what they share among each other is unknown
			return nil, nil
		}
		out = append(out, u)
	}
	return out, nil
}

func (t tool) walkExtents(ctx context.Context, m *machine, groups [][]uint64) ([]btrfs.Usage, error) {
	if !t.env.UI.IsLive() {
		return btrfs.MeasureData(ctx, m.top, groups, nil)
	}
	p := t.env.UI.Progress("Items of the file system looked at", 0)
	defer p.End()
	return btrfs.MeasureData(ctx, m.top, groups, p.Add)
}

func (t tool) showListing(l *listing, asJSON bool) error {
	if asJSON {
		return t.env.UI.JSON(l)
	}
	now := time.Now()
	for i := range l.Volumes {
		v := &l.Volumes[i]
		if v.Error != "" {
			t.env.UI.Errorf("%s", v.Error)
			continue
		}
		if err := t.env.UI.Print(t.env.UI.Out(ui.Bold, v.Name) + " at " + v.MountPoint); err != nil {
			return err
		}
		table := ui.Table{Head: []string{"  SNAPSHOT", ">AGE", "FLAG", ">EXCLUSIVE", ">SHARED", "WHAT IT IS"}}
		for _, s := range v.Snapshots {
			table.Row("  "+shortName(s.Name), ui.Age(now.Sub(s.Changed)), flagOf(s.ReadOnly), sizeOf(s.Exclusive), sizeOf(s.Shared), meanings[s.Role])
		}
		if err := t.env.UI.Table(&table); err != nil {
			return err
		}
	}
	switch l.Sizes {
	case "extents":
		t.env.UI.Hintf("EXCLUSIVE is what deleting the snapshot alone would free, SHARED what others have too: file data on disk, without metadata")
	case "quota":
		t.env.UI.Hintf("EXCLUSIVE is what deleting the snapshot alone would free, SHARED what others have too: as quotas count it, metadata included")
	}
	return nil
}

// shortName leaves out the most of the UUID of an aged snapshot.
func shortName(name string) string {
	if reset.IsAged(name) {
		if prefix, _, found := strings.Cut(strings.TrimPrefix(name, "AGED-"), "-"); found {
			return "AGED-" + prefix + "…"
		}
	}
	return ui.Printable(name)
}

func flagOf(readOnly bool) string {
	if readOnly {
		return "ro"
	}
	return "rw"
}

func sizeOf(bytes *uint64) string {
	if bytes == nil {
		return "-"
	}
	return ui.Size(int64(*bytes))
}
