package model

import "strings"

// Rules are the rules of one volume, normalised, relative to its root.
type Rules struct {
	Keep, Exclude []string
}

// matches tells whether a rule matches a path or one of its ancestors, and how
// long the rule is, in components.
func matches(rule, path string) (length int, ok bool) {
	patterns := strings.Split(strings.TrimPrefix(rule, "/"), "/")
	names := strings.Split(path, "/")

	if path == "" || len(patterns) > len(names) {
		return 0, false
	}

	for i, pattern := range patterns {
		if !glob(pattern, names[i]) {
			return 0, false
		}
	}

	return len(patterns), true
}

// glob tells whether a pattern, in which a star stands for any bytes, matches
// all of a name.
func glob(pattern, name string) bool {
	switch {
	case pattern == "":
		return name == ""
	case pattern[0] == '*':
		return glob(pattern[1:], name) || (name != "" && glob(pattern, name[1:]))
	default:
		return name != "" && name[0] == pattern[0] && glob(pattern[1:], name[1:])
	}
}

func longest(rules []string, path string) int {
	best := 0

	for _, rule := range rules {
		if length, ok := matches(rule, path); ok {
			best = max(best, length)
		}
	}

	return best
}

// keeps tells whether the longest of the rules that match is a keep rule.
func (r Rules) keeps(path string) bool {
	keep := longest(r.Keep, path)

	return keep > 0 && keep >= longest(r.Exclude, path)
}
