package diff

import (
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// reportVersion is the version of the JSON.
const reportVersion = 1

// report is the result as JSON.
type report struct {
	Version  int             `json:"version"`
	Question string          `json:"question"` // "boot since clean", "kept since boot" …
	Plan     string          `json:"plan"`     // the file that the rules come from
	Device   string          `json:"device"`
	Mode     reset.Mode      `json:"mode"`
	Volumes  []volumeReport  `json:"volumes"`
	Findings []findingReport `json:"findings"`
	Hidden   hidden          `json:"hidden"`
}

type volumeReport struct {
	Name       string    `json:"name"`
	MountPoint string    `json:"mountPoint"`
	Way        reset.Way `json:"way,omitempty"`
	Moved      int       `json:"moved"` // nested subvolumes that move along
	Warnings   []string  `json:"warnings,omitempty"`
	Error      string    `json:"error,omitempty"`
}

// findingReport is one row. What is summed up has the numbers of findings by kind.
type findingReport struct {
	ui.Path

	Volume string             `json:"volume"`
	Kind   reset.Kind         `json:"kind"`
	Type   string             `json:"type"`
	Was    string             `json:"was,omitempty"` // CLEAN's type, for kind "type"
	Fields []string           `json:"fields,omitempty"`
	Target *ui.Path           `json:"target,omitempty"`
	Size   uint64             `json:"size"`
	Files  int64              `json:"files"`
	Sums   map[reset.Kind]int `json:"sums,omitempty"`
}

func newReport(r request, tgt *target, v *view) report {
	out := report{
		Version: reportVersion, Question: r.question(), Plan: tgt.source, Device: tgt.device, Mode: tgt.plan.Mode,
		Volumes: []volumeReport{}, Findings: []findingReport{}, Hidden: v.hidden,
	}
	if out.Mode == "" {
		out.Mode = reset.ModeReset
	}
	for _, volume := range tgt.volumes {
		one := volumeReport{
			Name: volume.Volume.Name, MountPoint: volume.Volume.MountPoint, Warnings: volume.Warnings,
		}
		if volume.Plan != nil {
			one.Way, one.Moved = volume.Plan.Way, len(volume.Plan.Moves)
		}
		if volume.Err != nil {
			one.Error = volume.Err.Error()
		}
		out.Volumes = append(out.Volumes, one)
	}
	for i := range v.rows {
		out.Findings = append(out.Findings, v.rows[i].report())
	}
	return out
}

func (r *row) report() findingReport {
	out := findingReport{
		Path: ui.JSONPath(r.path), Volume: r.volume, Kind: r.kind, Type: r.typeName(),
		Fields: r.fields.Names(), Size: r.size, Files: r.files, Sums: r.sums,
	}
	if r.kind == reset.KindType && r.was != 0 {
		out.Was = reset.TypeName(r.was)
	}
	if r.target != "" {
		target := ui.JSONPath(r.target)
		out.Target = &target
	}
	return out
}
