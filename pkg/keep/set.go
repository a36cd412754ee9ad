package keep

import "slices"

// A Set is the keep and exclude rules of one volume, relative to the volume's
// root.
type Set struct {
	Keep, Exclude []Rule
}

// NewSet parses the rules of one volume, relative to its root. The error, a
// *RuleError, names the first rule that is wrong; a rule that names one of
// the reset's own entries in the volume's root is wrong too.
func NewSet(keep, exclude []string) (Set, error) {
	k, err := parseRelative(keep)
	if err != nil {
		return Set{}, err
	}

	x, err := parseRelative(exclude)
	if err != nil {
		return Set{}, err
	}

	return Set{Keep: k, Exclude: x}, nil
}

// Strings returns the rules in their canonical form: normalised, sorted by
// bytes, each once. Both are empty, not nil, where there is no rule.
func (s Set) Strings() (keep, exclude []string) {
	return canonical(s.Keep), canonical(s.Exclude)
}

// Equal tells whether two sets hold the same rules. Sets that decide alike
// for all paths with different rules are not equal.
func (s Set) Equal(other Set) bool {
	keep, exclude := s.Strings()
	otherKeep, otherExclude := other.Strings()

	return slices.Equal(keep, otherKeep) && slices.Equal(exclude, otherExclude)
}

func parseRelative(texts []string) ([]Rule, error) {
	rules := make([]Rule, 0, len(texts))

	for _, text := range texts {
		r, err := ParseRule(text)
		if err != nil {
			return nil, err
		}

		if err := r.checkReserved(); err != nil {
			return nil, &RuleError{Rule: text, Err: err}
		}

		rules = append(rules, r)
	}

	return rules, nil
}

func canonical(rules []Rule) []string {
	texts := make([]string, 0, len(rules))
	for _, r := range rules {
		texts = append(texts, r.String())
	}

	return sortedUnique(texts)
}

func sortedUnique(texts []string) []string {
	slices.Sort(texts)

	return slices.Compact(texts)
}
