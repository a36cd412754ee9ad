package update

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"nixos-go/pkg/nix"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// changes is how the new system differs from the running one.
type changes struct {
	From     string              `json:"from"`
	To       string              `json:"to"`
	Packages []nix.PackageChange `json:"packages"`
	// SizeBefore and SizeAfter are the sizes of the systems with all they need.
	SizeBefore int64 `json:"sizeBefore"`
	SizeAfter  int64 `json:"sizeAfter"`
}

// changes compares by nix's own tools. Without a running system, on a machine
// that only builds, there is nothing to compare.
func (s *session) changes(ctx context.Context, path string) (*changes, error) {
	c := &changes{From: s.before.running, To: path, Packages: []nix.PackageChange{}}
	paths := []string{path}
	if c.From != "" {
		paths = append(paths, c.From)
		result, err := s.env.Host.Run(ctx, nix.DiffClosures(settings.RunningSystem, path))
		if err != nil {
			return nil, err
		}
		if c.Packages, err = nix.ParseDiffClosures(bytes.NewReader(result.Stdout)); err != nil {
			return nil, err
		}
	}
	result, err := s.env.Host.Run(ctx, nix.ClosureSizes(paths...))
	if err != nil {
		return nil, err
	}
	sizes, err := nix.ParseClosureSizes(bytes.NewReader(result.Stdout))
	if err != nil {
		return nil, err
	}
	c.SizeBefore, c.SizeAfter = sizes[c.From], sizes[path]
	return c, nil
}

// showChanges is the table of packages and a line with the size.
func (s *session) showChanges() error {
	c := s.report.Changes
	table := ui.Table{Head: []string{"PACKAGE", "BEFORE", "AFTER", ">SIZE"}}
	counts := map[string]int64{}
	for _, p := range c.Packages {
		counts[p.Kind]++
		table.Row(p.Name, dash(p.From, p.Kind == "added"), dash(p.To, p.Kind == "removed"), signed(p.Bytes))
	}
	if table.Len() > 0 {
		if err := s.env.UI.Table(&table); err != nil {
			return err
		}
	}
	var parts []string
	for _, kind := range []string{"changed", "added", "removed"} {
		if counts[kind] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[kind], kind))
		}
	}
	if len(parts) == 0 {
		parts = []string{"no package changes its version"}
	}
	size := "size " + ui.Size(c.SizeAfter)
	if c.SizeBefore > 0 {
		size = fmt.Sprintf("size %s → %s", ui.Size(c.SizeBefore), ui.Size(c.SizeAfter))
	}
	s.env.UI.Infof("%s; %s", strings.Join(parts, ", "), size)
	return nil
}

// dash stands for a package that is not there.
func dash(version string, absent bool) string {
	if absent {
		return "-"
	}
	return version
}

func signed(bytes int64) string {
	switch {
	case bytes > 0:
		return "+" + ui.Size(bytes)
	case bytes < 0:
		return ui.Size(bytes)
	}
	return ""
}
