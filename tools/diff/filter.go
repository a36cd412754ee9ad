package diff

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/keep"
)

// filter decides which paths are shown.
type filter struct {
	paths    []string
	patterns []pattern
	ignored  []pattern
	symlinks bool
	times    bool
	recent   bool
	memory   *memory // of the last run
}

func newFilter(r request) (*filter, error) {
	f := &filter{paths: r.paths, symlinks: r.symlinks, times: r.times, recent: r.recent}
	for _, text := range r.patterns {
		p, err := parsePattern(text)
		if err != nil {
			return nil, clikit.Usagef("--pattern %q: %v", text, err)
		}
		f.patterns = append(f.patterns, p)
	}
	for _, name := range r.ignore {
		list, err := readIgnoreFile(name)
		if err != nil {
			return nil, err
		}
		f.ignored = append(f.ignored, list...)
	}
	return f, nil
}

// pattern matches paths. With a slash it is one of the rules' kind, from the root on,
// and matches what is below as well; without one it is a name.
type pattern struct {
	matcher *keep.Matcher
	name    bool
}

func parsePattern(text string) (pattern, error) {
	p := pattern{name: !strings.Contains(text, "/")}
	if p.name {
		text = "/" + text
	}
	set, err := keep.NewSet([]string{text}, nil)
	if err != nil {
		return p, err
	}
	p.matcher = keep.NewMatcher(set)
	return p, nil
}

// matches tells whether a path, or one above it, is meant.
func (p pattern) matches(abs string) bool {
	if !p.name {
		return p.matcher.Kept(abs)
	}
	for name := range strings.SplitSeq(abs, "/") {
		if name != "" && p.matcher.Root().Step(name).Kept() {
			return true
		}
	}
	return false
}

func anyMatches(list []pattern, abs string) bool {
	return slices.ContainsFunc(list, func(p pattern) bool { return p.matches(abs) })
}

// selects tells whether a path is among those asked for.
func (f *filter) selects(abs string) bool {
	if len(f.paths) > 0 && !slices.ContainsFunc(f.paths, func(p string) bool { return below(abs, p) }) {
		return false
	}
	return len(f.patterns) == 0 || anyMatches(f.patterns, abs)
}

// leadsTo tells whether something below a path may be among those asked for.
func (f *filter) leadsTo(abs string) bool {
	return len(f.paths) == 0 || slices.ContainsFunc(f.paths, func(p string) bool { return below(abs, p) || below(p, abs) })
}

func (f *filter) ignores(abs string) bool { return anyMatches(f.ignored, abs) }

func readIgnoreFile(name string) ([]pattern, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	list, err := parseIgnore(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// parseIgnore reads patterns, one a line. Empty lines, and those that begin with #,
// mean nothing.
func parseIgnore(r io.Reader) ([]pattern, error) {
	var list []pattern
	scanner := bufio.NewScanner(r)
	for number := 1; scanner.Scan(); number++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		p, err := parsePattern(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		list = append(list, p)
	}
	return list, scanner.Err()
}

// leadsToStore tells whether a symlink is one of those that the configuration makes:
// into the Nix store, or to what a generation links there.
func leadsToStore(target string) bool {
	target = path.Clean(target)
	for _, dir := range []string{"/nix/store", "/nix/var/nix/profiles", "/etc/static", "/run/current-system"} {
		if below(target, dir) {
			return true
		}
	}
	return false
}
