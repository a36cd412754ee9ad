package keep

import "strings"

// A glob is a component pattern with at least one `*`, cut at the stars. The
// pieces between the first and the last are searched leftmost first, which
// finds a match whenever there is one, without ever going back.
type glob struct {
	prefix, suffix string
	middle         []string
}

func isGlob(component string) bool { return strings.IndexByte(component, '*') >= 0 }

func newGlob(component string) glob {
	pieces := strings.Split(component, "*")
	last := len(pieces) - 1

	return glob{prefix: pieces[0], suffix: pieces[last], middle: pieces[1:last]}
}

func (g glob) match(name string) bool {
	if len(name) < len(g.prefix)+len(g.suffix) ||
		!strings.HasPrefix(name, g.prefix) || !strings.HasSuffix(name, g.suffix) {
		return false
	}

	name = name[len(g.prefix) : len(name)-len(g.suffix)]

	for _, piece := range g.middle {
		i := strings.Index(name, piece)
		if i < 0 {
			return false
		}

		name = name[i+len(piece):]
	}

	return true
}

// matchComponent tells whether a component of a rule matches a name.
func matchComponent(component, name string) bool {
	if isGlob(component) {
		return newGlob(component).match(name)
	}

	return component == name
}
