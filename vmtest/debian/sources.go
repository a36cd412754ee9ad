package debian

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// defaultKeyring holds Debian's keys (package debian-archive-keyring).
const defaultKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// mirror is where Debian's archive is.
type mirror struct {
	uri, signedBy string
}

// source is one entry of apt's sources.
type source struct {
	types, uris, suites, components []string
	signedBy                        string
}

// systemMirror is the mirror that the machine itself uses: the entry of its
// sources that has the component main of the very suite that it runs.
func systemMirror() (mirror, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return mirror{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var names []string
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return mirror{}, err
		}
		names = append(names, found...)
	}
	var sources []source
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return mirror{}, err
		}
		parse := map[string]func(io.Reader) ([]source, error){".list": parseList, ".sources": parseDeb822}[filepath.Ext(name)]
		if parse == nil {
			_ = f.Close() // apt does not read it either
			continue
		}
		more, err := parse(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return mirror{}, fmt.Errorf("%s: %w", name, err)
		}
		sources = append(sources, more...)
	}
	return chooseMirror(sources, codename(string(release)))
}

// codename is VERSION_CODENAME of os-release(5).
func codename(release string) string {
	for line := range strings.SplitSeq(release, "\n") {
		if value, ok := strings.CutPrefix(line, "VERSION_CODENAME="); ok {
			return strings.Trim(value, `"'`)
		}
	}
	return ""
}

func chooseMirror(sources []source, suite string) (mirror, error) {
	for _, s := range sources {
		if suite == "" || len(s.uris) == 0 || !slices.Contains(s.types, "deb") ||
			!slices.Contains(s.suites, suite) || !slices.Contains(s.components, "main") {
			continue
		}
		m := mirror{uri: s.uris[0], signedBy: s.signedBy}
		if m.signedBy == "" || !filepath.IsAbs(m.signedBy) { // a fingerprint, or the key itself
			m.signedBy = defaultKeyring
		}
		return m, nil
	}
	return mirror{}, fmt.Errorf("%w: apt's sources have no entry for main of %q", ErrUnavailable, suite)
}

// parseList reads the one-line format of sources.list(5).
func parseList(r io.Reader) ([]source, error) {
	var sources []source
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		kind, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		s := source{types: []string{kind}}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, closed := strings.Cut(rest[1:], "]")
			if !closed {
				return nil, fmt.Errorf("an option without end: %q", line)
			}
			rest = after
			for option := range strings.FieldsSeq(options) {
				if value, ok := strings.CutPrefix(option, "signed-by="); ok {
					s.signedBy = value
				}
			}
		}
		words := strings.Fields(rest)
		if len(words) < 2 {
			continue
		}
		s.uris, s.suites, s.components = words[:1], words[1:2], words[2:]
		sources = append(sources, s)
	}
	return sources, lines.Err()
}

// parseDeb822 reads the format of stanzas of sources.list(5).
func parseDeb822(r io.Reader) ([]source, error) {
	var sources []source
	var s source
	var last string
	enabled := true
	end := func() {
		if len(s.types) > 0 && enabled {
			sources = append(sources, s)
		}
		s, last, enabled = source{}, "", true
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case strings.TrimSpace(line) == "":
			end()
			continue
		}
		field, value := last, line
		if line[0] != ' ' && line[0] != '\t' {
			var ok bool
			if field, value, ok = strings.Cut(line, ":"); !ok {
				return nil, fmt.Errorf("a line without field: %q", line)
			}
		}
		last = field
		words := strings.Fields(value)
		switch strings.ToLower(field) {
		case "types":
			s.types = append(s.types, words...)
		case "uris":
			s.uris = append(s.uris, words...)
		case "suites":
			s.suites = append(s.suites, words...)
		case "components":
			s.components = append(s.components, words...)
		case "signed-by":
			if s.signedBy == "" {
				s.signedBy = strings.Join(words, " ")
			}
		case "enabled":
			enabled = !slices.Contains([]string{"no", "false", "0"}, strings.ToLower(strings.TrimSpace(value)))
		}
	}
	end()
	return sources, lines.Err()
}
