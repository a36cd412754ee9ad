package nix

import (
	"errors"
	"fmt"
	"strings"

	"nixos-go/pkg/run"
)

// Eval evaluates an attribute of a NixOS configuration to JSON.
func (f Flake) Eval(name, attribute string) run.Command {
	return f.nix("eval", "--json", locked, f.Attribute(name, attribute))
}

// EvalMany evaluates several attributes of a configuration in one go, to a JSON
// object with the attributes as they were asked for as its keys.
func (f Flake) EvalMany(name string, attributes []AttributePath) run.Command {
	var b strings.Builder
	b.WriteString("c: { ")
	for _, attribute := range attributes {
		fmt.Fprintf(&b, "%s = c.%s; ", quoteName(attribute.String()), attribute.expression())
	}
	b.WriteString("}")
	return f.nix("eval", "--json", locked, f.Attribute(name, ""), "--apply", b.String())
}

// EvalNames evaluates the names of the attributes below one.
func (f Flake) EvalNames(name string, attribute AttributePath) run.Command {
	apply := fmt.Sprintf("c: let v = c.%s; in if builtins.isAttrs v then builtins.attrNames v else []", attribute.expression())
	return f.nix("eval", "--json", locked, f.Attribute(name, ""), "--apply", apply)
}

// Hosts evaluates the names of all configurations.
func (f Flake) Hosts() run.Command {
	return f.nix("eval", "--json", locked, f.URL()+"#nixosConfigurations", "--apply", "builtins.attrNames")
}

// AttributePath is the way to an attribute, component by component.
type AttributePath []string

// ErrAttribute is an attribute path that cannot be read.
var ErrAttribute = errors.New("invalid attribute path")

// ParseAttributePath reads names separated by dots; a name in double quotes may
// hold anything, a dot included. There is no interpolation.
func ParseAttributePath(text string) (AttributePath, error) {
	var p AttributePath
	for rest := text; ; {
		name, after, err := firstName(rest)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrAttribute, text, err)
		}
		p = append(p, name)
		if after == "" {
			return p, nil
		}
		if after[0] != '.' {
			return nil, fmt.Errorf("%w %q: a dot is missing before %q", ErrAttribute, text, after)
		}
		rest = after[1:]
	}
}

// firstName reads one component.
func firstName(text string) (name, rest string, err error) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexByte(text, '.')
		if end < 0 {
			end = len(text)
		}
		name = text[:end]
		switch {
		case name == "":
			return "", "", errors.New("a name is empty")
		case strings.ContainsAny(name, "\" \t\n${}();\\"):
			return "", "", fmt.Errorf("%q must be in double quotes", name)
		}
		return name, text[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			return b.String(), text[i+1:], nil
		case '\\':
			i++
			if i == len(text) {
				return "", "", errors.New("a quote is not closed")
			}
		}
		b.WriteByte(text[i])
	}
	return "", "", errors.New("a quote is not closed")
}

// String is the path as it is written: names that need it are quoted.
func (p AttributePath) String() string {
	names := make([]string, len(p))
	for i, name := range p {
		names[i] = name
		if !isIdentifier(name) {
			names[i] = quoteName(name)
		}
	}
	return strings.Join(names, ".")
}

// expression is the path inside a Nix expression, every name quoted: a keyword
// such as "with" is a name here.
func (p AttributePath) expression() string {
	names := make([]string, len(p))
	for i, name := range p {
		names[i] = quoteName(name)
	}
	return strings.Join(names, ".")
}

func isIdentifier(name string) bool {
	for i, r := range name {
		letter := r == '_' || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
		digit := r == '-' || r == '\'' || (r >= '0' && r <= '9')
		if !letter && (i == 0 || !digit) {
			return false
		}
	}
	return name != ""
}
