package diff

import (
	"fmt"
	"strconv"
	"strings"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// show writes the rows as a table, and what to know about them as messages.
func (t tool) show(r request, tgt *target, v *view) error {
	if len(v.rows) > 0 {
		table := ui.Table{Head: []string{"KIND", ">SIZE", "WHAT", "PATH"}}
		for i := range v.rows {
			row := &v.rows[i]
			table.Row(string(row.kind), row.sizeText(), row.what(), row.pathText())
		}
		if err := t.env.UI.Table(&table); err != nil {
			return err
		}
	}
	t.conclude(r, tgt, v)
	return nil
}

func (r *row) sizeText() string {
	unknown := r.nested && r.kind == reset.KindModified
	if r.kind == reset.KindMetadata && r.sums == nil || r.isDir() && r.files == 0 || unknown {
		return ""
	}
	return ui.Size(int64(r.size))
}

// what says in a few words what a row is about.
func (r *row) what() string {
	switch {
	case r.sums != nil:
		return r.summary()
	case r.nested && r.kind == reset.KindModified:
		return "subvolume, written to"
	case r.kind == reset.KindModified, r.kind == reset.KindMetadata:
		return strings.Join(r.fields.Names(), ", ")
	case r.kind == reset.KindType && r.was != 0:
		return r.typeName() + ", was " + reset.TypeName(r.was)
	case r.nested:
		return "subvolume, " + ui.Count(r.files, "file")
	case r.isDir():
		return ui.Count(r.files, "file")
	}
	return r.typeName()
}

func (r *row) typeName() string {
	if r.nested {
		return "subvolume"
	}
	return reset.TypeName(r.mode)
}

// summary lists the kinds of several findings: "3 added, 1 modified".
func (r *row) summary() string {
	var parts []string
	for _, kind := range kinds {
		if n := r.sums[kind]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+string(kind))
		}
	}
	return strings.Join(parts, ", ")
}

var kinds = []reset.Kind{reset.KindAdded, reset.KindModified, reset.KindType, reset.KindMetadata, reset.KindDeleted}

func (r *row) pathText() string {
	text := r.path
	if r.isDir() && text != "/" {
		text += "/"
	}
	text = ui.Printable(text)
	if r.target != "" {
		text += " → " + ui.Printable(r.target)
	}
	return text
}

// conclude sums up, and says what is not shown and what to do next.
func (t tool) conclude(r request, tgt *target, v *view) {
	for _, volume := range tgt.volumes {
		if volume.Err == nil {
			t.env.UI.Infof("%s", totalText(r, tgt, volume, v))
		}
	}
	if text := v.hidden.String(); text != "" {
		t.env.UI.Infof("not shown: %s", text)
	}
	asked := r.paths
	if r.children != "" {
		asked = []string{r.children}
	}
	for _, p := range asked {
		if volume, rel, err := tgt.at(p); err == nil && volume.Kept(rel) && !r.kept {
			t.env.UI.Hintf("%s is kept: add --kept to see what changed there", ui.Printable(p))
		}
	}
	if len(v.rows) > 0 && !r.kept && r.children == "" {
		t.env.UI.Hintf("nixos-diff suggest writes the lines that keep these paths; --children PATH looks into a directory")
	}
}

// totalText says how many findings a volume has.
func totalText(r request, tgt *target, volume *reset.VolumePreview, v *view) string {
	sums := v.totals[volume.Volume.Name]
	if sums == nil {
		sums = &total{}
	}
	base := tgt.plan.Clean
	if r.sinceBoot {
		base = "the last boot"
	}
	where := fmt.Sprintf("%s (%s)", volume.Volume.Name, volume.Volume.MountPoint)
	var parts []string
	part := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	if r.kept || r.sinceBoot {
		for _, kind := range kinds {
			part(sums.number[kind], string(kind))
		}
		subject := "outside of kept paths"
		if r.kept {
			subject = "in kept paths"
		}
		if len(parts) == 0 {
			parts = []string{r.nothing("nothing")}
		}
		return fmt.Sprintf("%s: %s %s since %s", where, strings.Join(parts, ", "), subject, base)
	}
	part(sums.number[reset.KindAdded], "to wipe"+sizeNote(sums.size[reset.KindAdded]))
	part(sums.number[reset.KindModified]+sums.number[reset.KindMetadata]+sums.number[reset.KindType], "to change back")
	part(sums.number[reset.KindDeleted], "to bring back")
	if len(parts) == 0 {
		parts = []string{r.nothing("nothing to wipe, change back or bring back")}
	}
	if n := len(volume.Plan.Moves); n > 0 {
		parts = append(parts, ui.Count(int64(n), "nested subvolume")+" to move along")
	}
	return fmt.Sprintf("%s: %s", where, strings.Join(parts, ", "))
}

// nothing says that there is nothing, without the claim that there is nothing at all
// where only a part was asked for.
func (r request) nothing(otherwise string) string {
	switch {
	case r.recent:
		return "nothing new"
	case len(r.patterns) > 0 || len(r.paths) > 0:
		return "nothing of what was asked for"
	}
	return otherwise
}

func sizeNote(size uint64) string {
	if size == 0 {
		return ""
	}
	return " (" + ui.Size(int64(size)) + ")"
}

// String says what is left out; nothing if nothing is.
func (h hidden) String() string {
	var parts []string
	if h.Times > 0 {
		parts = append(parts, ui.Count(h.Times, "directory")+" with a changed time alone (--all)")
	}
	if h.Symlinks > 0 {
		parts = append(parts, ui.Count(h.Symlinks, "symlink")+" into the Nix store (--show-symlinks)")
	}
	if h.Ignored > 0 {
		parts = append(parts, ui.Count(h.Ignored, "ignored path"))
	}
	return strings.Join(parts, ", ")
}
