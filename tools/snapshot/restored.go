package snapshot

import (
	"fmt"
	"strconv"
	"strings"

	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// restored is the result of restore.
type restored struct {
	Applied bool           `json:"applied"`
	From    string         `json:"from"`
	Items   []restoredItem `json:"items"`
	// Same is how many names were there already, exactly so.
	Same int64 `json:"same"`
	// LiveOnly is what only the live volume has in restored directories. It stays.
	LiveOnly []ui.Path `json:"liveOnly"`

	liveOnly []string
	force    bool
}

// restoredItem is a path; one that is created stands for all below it.
type restoredItem struct {
	ui.Path

	Action   reset.RestoreAction `json:"action"`
	Type     string              `json:"type"`
	OnTheWay bool                `json:"onTheWay,omitempty"`
	Names    int64               `json:"names,omitempty"`
	Size     uint64              `json:"size,omitempty"`
	// Fields are what differs.
	Fields   []string `json:"fields,omitempty"`
	Replaces string   `json:"replaces,omitempty"`
	Conflict bool     `json:"conflict,omitempty"`

	absolute string
}

func (r *restoring) result() *restored {
	out := &restored{From: r.from, Items: []restoredItem{}, LiveOnly: []ui.Path{}, force: r.force}
	for _, v := range r.volumes {
		out.Same += v.plan.Same
		for _, path := range v.plan.LiveOnly {
			name := absolute(v.spec.MountPoint, path)
			out.LiveOnly, out.liveOnly = append(out.LiveOnly, ui.JSONPath(name)), append(out.liveOnly, name)
		}
		for i := range v.plan.Items {
			out.add(v.spec.MountPoint, &v.plan.Items[i])
		}
	}
	return out
}

func (r *restored) add(mountPoint string, i *reset.RestoreItem) {
	if i.Action == reset.RestoreMetadata && !i.Conflict() && !r.force {
		return // the time of a directory that is merged
	}
	name := absolute(mountPoint, i.Path)
	item := restoredItem{
		Path: ui.JSONPath(name), Action: i.Action, Type: reset.TypeName(i.Mode), OnTheWay: i.OnTheWay,
		Names: i.Names, Size: i.Size, Fields: i.Fields.Names(), Conflict: i.Conflict(), absolute: name,
	}
	if i.Action == reset.RestoreReplace {
		item.Replaces = reset.TypeName(i.LiveMode)
	}
	r.Items = append(r.Items, item)
}

func (r *restored) conflicts() int64 {
	var n int64
	for i := range r.Items {
		if r.Items[i].Conflict {
			n++
		}
	}
	return n
}

// nothing reports whether there is nothing to restore.
func (r *restored) nothing() bool {
	for i := range r.Items {
		if r.Items[i].Action != reset.RestoreSkip {
			return false
		}
	}
	return true
}

func (r *restored) total() (names int64, size uint64) {
	for i := range r.Items {
		names += r.Items[i].Names
		size += r.Items[i].Size
	}
	return names, size
}

// show shows the plan.
func (r *restoring) show(result *restored) error {
	if len(result.Items) > 0 {
		table := ui.Table{Head: []string{"WHAT", ">NAMES", ">SIZE", "PATH"}}
		for i := range result.Items {
			table.Row(result.Items[i].cells()...)
		}
		if err := r.env.UI.Table(&table); err != nil {
			return err
		}
	}
	if n := int64(len(result.liveOnly)); n > 0 && !result.nothing() {
		shown := result.liveOnly
		const most = 5
		if len(shown) > most {
			shown = shown[:most]
		}
		for i, name := range shown {
			shown[i] = ui.Printable(name)
		}
		more := ""
		if n > most {
			more = fmt.Sprintf(" and %d more", n-most)
		}
		r.env.UI.Infof("not in %s, and stays: %s%s", result.From, strings.Join(shown, ", "), more)
	}
	return nil
}

// deeds say what an action is.
var deeds = map[reset.RestoreAction]string{
	reset.RestoreCreate: "create", reset.RestoreReplace: "overwrite", reset.RestoreMetadata: "change", reset.RestoreFlags: "set flags",
	reset.RestoreSkip: "skip: a nested subvolume is no part of a snapshot",
}

func (i *restoredItem) cells() []string {
	name, names, size, what := ui.Printable(i.absolute), "-", "-", deeds[i.Action]
	if i.Type == "directory" {
		name += "/"
	}
	if i.Names > 0 {
		names, size = strconv.FormatInt(i.Names, 10), ui.Size(int64(i.Size))
	}
	if len(i.Fields) > 0 {
		what += " (" + strings.Join(i.Fields, ", ") + ")"
	}
	return []string{what, names, size, name}
}

func plural(n int64, noun string) string { return ui.Count(n, noun) }

// keeps reports whether a plan keeps a path of the mounted system: on a volume that is
// never reset, everything is kept.
func keeps(plan *reset.PlanFile, name string) (bool, error) {
	m := &machine{plan: plan}
	v, rel, err := m.volumeOf(name)
	if err != nil {
		return true, nil //nolint:nilerr // no volume of the plan
	}
	rules, err := v.Rules()
	if err != nil {
		return false, err
	}
	return plan.Mode == reset.ModeDisabled || keep.NewMatcher(rules).Kept(rel), nil
}
