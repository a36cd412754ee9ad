package nix

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nixos-go/pkg/run"
)

// PackageChange is how one package differs between two systems.
type PackageChange struct {
	Name string `json:"name"`
	// Kind is "added", "removed" or "changed".
	Kind string `json:"kind"`
	// From and To are the versions, separated by ", " where there are several;
	// empty where the package is not there, or has no version.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Bytes is how much the package grew, to a tenth of a KiB; nix says nothing
	// of less than 8 KiB.
	Bytes int64 `json:"bytes"`
}

// DiffClosures compares the packages of two store paths.
func DiffClosures(before, after string) run.Command {
	return run.New("nix", append(append([]string(nil), features...), "store", "diff-closures", before, after)...)
}

var (
	ansiCode  = regexp.MustCompile("\x1b\\[[0-9;]*m")
	sizeDelta = regexp.MustCompile(`(?:^|, )([+-]?[0-9]+(?:\.[0-9]+)?) (B|KiB|MiB|GiB|TiB)$`)
)

var sizeUnits = map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// What nix prints for no package, and for a package without a version.
const absent, noVersion = "∅", "ε"

// ParseDiffClosures reads what nix store diff-closures prints, lines such as
//
//	firefox: 120.0 → 121.0, +1234.5 KiB
//	hello: ∅ → 2.12
//	linux: -300.0 KiB
//
// where ∅ is no package and ε a package without a version.
func ParseDiffClosures(r io.Reader) ([]PackageChange, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	changes := []PackageChange{}
	for line := range strings.SplitSeq(ansiCode.ReplaceAllString(string(text), ""), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		change, err := parseChange(line)
		if err != nil {
			return nil, fmt.Errorf("nix store diff-closures printed %q: %w", line, err)
		}
		changes = append(changes, change)
	}
	return changes, nil
}

func parseChange(line string) (PackageChange, error) {
	name, rest, found := strings.Cut(line, ": ")
	if !found || name == "" {
		return PackageChange{}, errors.New("no package name")
	}
	change := PackageChange{Name: name, Kind: "changed"}
	if m := sizeDelta.FindStringSubmatchIndex(rest); m != nil {
		amount, err := strconv.ParseFloat(rest[m[2]:m[3]], 64)
		if err != nil {
			return PackageChange{}, err
		}
		bytes := math.Round(amount * sizeUnits[rest[m[4]:m[5]]])
		if math.Abs(bytes) > 1<<62 {
			return PackageChange{}, fmt.Errorf("the size %g is no size", amount)
		}
		change.Bytes = int64(bytes)
		rest = rest[:m[0]]
	}
	if rest == "" {
		return change, nil
	}
	from, to, found := strings.Cut(rest, " → ")
	if !found {
		return PackageChange{}, errors.New("no versions")
	}
	switch {
	case from == absent:
		change.Kind = "added"
	case to == absent:
		change.Kind = "removed"
	}
	change.From, change.To = versions(from), versions(to)
	return change, nil
}

// versions are the versions of a list, without what stands for none.
func versions(list string) string {
	all := strings.Split(list, ", ")
	all = slices.DeleteFunc(all, func(v string) bool { return v == absent || v == noVersion })
	return strings.Join(all, ", ")
}

// ClosureSizes asks for the sizes of store paths with all they refer to.
func ClosureSizes(paths ...string) run.Command {
	return run.New("nix", append(append([]string(nil), features...),
		append([]string{"path-info", "--json", "--closure-size"}, paths...)...)...)
}

// ParseClosureSizes reads the sizes in bytes by store path, from an object by
// path (nix 2.19 and later) or a list (before).
func ParseClosureSizes(r io.Reader) (map[string]int64, error) {
	type entry struct {
		Path        string `json:"path"`
		ClosureSize int64  `json:"closureSize"`
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	byPath := map[string]*entry{}
	if err := json.Unmarshal(text, &byPath); err == nil {
		for path, e := range byPath {
			if e != nil {
				sizes[path] = e.ClosureSize
			}
		}
		return sizes, nil
	}
	var list []entry
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("nix path-info: %w", err)
	}
	for _, e := range list {
		sizes[e.Path] = e.ClosureSize
	}
	return sizes, nil
}
