package history

import (
	"slices"
	"strings"
	"unicode/utf8"

	"nixos-go/pkg/keep"
)

// patterns match some of the names that steps make.
var patterns = []string{"*", "kde*", ".*", "*e*", "*n*s", "a*"}

// Rules makes up the rules of a volume, relative to its root: a few that keep
// and a few that exclude, below each other, with and without `*`. Most of them
// name what is in the volumes at roots. They are sorted, each once, and hold
// nothing that a plan file cannot: names that are not UTF-8 are reached by `*`.
func (g *Generator) Rules(roots ...string) (keep, exclude []string, err error) {
	var paths []string

	for _, root := range roots {
		nodes, err := scan(root)
		if err != nil {
			return nil, nil, err
		}

		for _, n := range nodes[1:] {
			paths = append(paths, n.path)
		}
	}

	for range 1 + g.src.IntN(5) {
		keep = append(keep, g.rule(paths))
	}

	for range g.src.IntN(4) {
		rule, err := g.ruleBelow(pick(g, keep...), paths)
		if err != nil {
			return nil, nil, err
		}

		exclude = append(exclude, rule)
	}

	if len(exclude) > 0 && g.chance(50) {
		rule, err := g.ruleBelow(pick(g, exclude...), paths)
		if err != nil {
			return nil, nil, err
		}

		keep = append(keep, rule)
	}

	slices.Sort(keep)
	slices.Sort(exclude)

	return slices.Compact(keep), slices.Compact(exclude), nil
}

// rule is a path that exists or not, some of its components turned to patterns.
func (g *Generator) rule(paths []string) string {
	var components []string

	if len(paths) > 0 && g.chance(70) {
		components = strings.Split(pick(g, paths...), "/")
	} else {
		for range 1 + g.src.IntN(3) {
			components = append(components, pick(g, plainNames...))
		}
	}

	if length := 1 + g.src.IntN(3); length < len(components) {
		components = components[:length]
	}

	for i, c := range components {
		if !writable(c) || g.chance(25) {
			components[i] = pick(g, patterns...)
		}
	}

	return "/" + strings.Join(components, "/")
}

// ruleBelow goes on from another rule: if something is below what that one
// matches, then mostly by its name.
func (g *Generator) ruleBelow(rule string, paths []string) (string, error) {
	if g.chance(20) {
		return g.rule(paths), nil
	}

	set, err := keep.NewSet([]string{rule}, nil)
	if err != nil {
		return "", err
	}

	m := keep.NewMatcher(set)
	depth := strings.Count(rule, "/")
	below := slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return strings.Count(path, "/") < depth || !m.Kept(path)
	})

	name := pick(g, append(slices.Clone(plainNames), patterns...)...)

	if len(below) > 0 && g.chance(80) {
		if there := strings.Split(pick(g, below...), "/")[depth]; writable(there) {
			name = there
		}
	}

	return rule + "/" + name, nil
}

// writable tells whether a plan file can name a component as it is.
func writable(component string) bool {
	return utf8.ValidString(component) && !strings.Contains(component, "*")
}
