// Package keep holds the rules of what persists over a reset: parsing and
// normalising them, splitting them over volumes, and deciding for each path
// whether it is kept.
//
// A rule is an absolute path pattern. A path is a sequence of byte-string
// components; nothing here assumes UTF-8, reads a file system or follows a
// link. A rule that matches a path matches everything below it; of all the
// rules that match a path or one of its ancestors the longest decides,
// counted in components, and on a tie keep beats exclude. What no rule
// matches is not kept.
//
// The package is linked into the static boot-time binary: it imports the
// standard library only, and as little of it as it can.
package keep

import (
	"errors"
	"fmt"
	"strings"
)

// The names in a volume's root that belong to the reset itself. No rule may
// name them, and no pattern matches them there: what stands under these names
// is wiped like any path that is not kept.
const (
	ReadyName = ".boot-ready"         // says that the reset which made the volume finished
	TrashName = ".immutability-trash" // what the last reset moved out of the way
)

// What can be wrong with a rule. Errors of this package that concern a rule
// are a *RuleError around one of these.
var (
	ErrEmpty        = errors.New("the path is empty")
	ErrNotAbsolute  = errors.New("the path does not begin with a slash")
	ErrDots         = errors.New(`the path contains a "." or ".." component`)
	ErrNUL          = errors.New("the path contains a NUL byte")
	ErrMountPoint   = errors.New("the path is a volume's own mount point")
	ErrAboveVolume  = errors.New("the path is above the mount point of another volume that is reset")
	ErrReservedName = errors.New("the name is reserved for the reset itself")
)

// A RuleError says what is wrong with which rule.
type RuleError struct {
	Rule   string // as it was written
	Volume string // the mount point of the volume concerned, or ""
	Err    error
}

func (e *RuleError) Error() string {
	if e.Volume != "" {
		return fmt.Sprintf("rule %q: %v (volume at %q)", e.Rule, e.Err, e.Volume)
	}

	return fmt.Sprintf("rule %q: %v", e.Rule, e.Err)
}

func (e *RuleError) Unwrap() error { return e.Err }

// A Rule is one absolute path pattern, parsed and normalised. The zero Rule
// has no components and matches nothing.
type Rule struct {
	components []string
}

// ParseRule parses a rule as the owner wrote it. Trailing and doubled slashes
// are dropped, and a run of `*` inside one component means the same as one.
// The error, a *RuleError, names the rule: it is empty, relative, "/" (the
// volume's own mount point), or contains a NUL byte, a "." or a ".." component.
func ParseRule(text string) (Rule, error) {
	components, err := splitPath(text)
	if err != nil {
		return Rule{}, &RuleError{Rule: text, Err: err}
	}

	if len(components) == 0 {
		return Rule{}, &RuleError{Rule: text, Err: ErrMountPoint}
	}

	for i, c := range components {
		components[i] = squeezeStars(c)
	}

	return Rule{components: components}, nil
}

// String returns the normalised pattern: a slash before each component, and
// no other.
func (r Rule) String() string {
	if len(r.components) == 0 {
		return ""
	}

	return joinPath(r.components)
}

// Components returns the components of the pattern, a copy.
func (r Rule) Components() []string {
	return append([]string(nil), r.components...)
}

// checkReserved refuses a rule, relative to a volume, that names the reset's
// own entries in the volume's root.
func (r Rule) checkReserved() error {
	if len(r.components) > 0 && isReserved(r.components[0]) {
		return ErrReservedName
	}

	return nil
}

func isReserved(name string) bool { return name == ReadyName || name == TrashName }

// splitPath cuts an absolute path into its components, none for "/".
func splitPath(text string) ([]string, error) {
	if text == "" {
		return nil, ErrEmpty
	}

	if strings.IndexByte(text, 0) >= 0 {
		return nil, ErrNUL
	}

	if text[0] != '/' {
		return nil, ErrNotAbsolute
	}

	var components []string

	for c := range strings.SplitSeq(text, "/") {
		switch c {
		case "":
		case ".", "..":
			return nil, ErrDots
		default:
			components = append(components, c)
		}
	}

	return components, nil
}

// joinPath is the inverse of splitPath.
func joinPath(components []string) string { return "/" + strings.Join(components, "/") }

// squeezeStars turns each run of `*` into one.
func squeezeStars(component string) string {
	for strings.Contains(component, "**") {
		component = strings.ReplaceAll(component, "**", "*")
	}

	return component
}
