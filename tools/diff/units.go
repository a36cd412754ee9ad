package diff

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
)

// unitDir is a directory that a systemd unit declares as its own.
type unitDir struct {
	unit  string
	path  string // a rule: `*` for what is only known when the unit runs
	cache bool
}

// Sections and settings are those of systemd.exec(5); specifiers of systemd.unit(5).

// unitValues are the settings of a unit's [Service] section by name, each as a list of
// words.
type unitValues map[string][]string

// wantedSettings are the ones that say where a unit writes.
var wantedSettings = []string{
	"StateDirectory", "CacheDirectory", "LogsDirectory", "ConfigurationDirectory", "ReadWritePaths", "DynamicUser",
}

// maxUnitLine bounds a line of a unit file; systemd takes a megabyte.
const maxUnitLine = 1 << 20

// parseUnit takes a unit file's, or a drop-in's, settings in: words are added, an empty
// value forgets those so far (systemd.syntax(7)).
func (u unitValues) parseUnit(r io.Reader) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxUnitLine)
	section, line := "", ""
	for scanner.Scan() {
		text := strings.TrimSpace(scanner.Text())
		if text == "" && line == "" || strings.HasPrefix(text, "#") || strings.HasPrefix(text, ";") {
			continue // comments may stand between continued lines
		}
		line += text
		if rest, continued := strings.CutSuffix(line, `\`); continued {
			line = rest + " "
			continue
		}
		u.line(&section, line)
		line = ""
	}
	if line != "" {
		u.line(&section, line)
	}
	return scanner.Err()
}

func (u unitValues) line(section *string, line string) {
	if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
		*section = line[1 : len(line)-1]
		return
	}
	name, value, ok := strings.Cut(line, "=")
	name = strings.TrimSpace(name)
	if !ok || *section != "Service" || !slices.Contains(wantedSettings, name) {
		return
	}
	words := unitWords(value)
	if len(words) == 0 {
		delete(u, name)
		return
	}
	u[name] = append(u[name], words...)
}

// unitWords splits a value at spaces; quotes hold spaces, a backslash the next byte.
func unitWords(value string) []string {
	var words []string
	var word strings.Builder
	quote := byte(0)
	started := false
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == '\\' && i+1 < len(value):
			i++
			word.WriteByte(value[i])
			started = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, started = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

// bases are where a manager puts the directories of its units.
type bases struct {
	state, cache, logs, config string
	private                    bool // dynamic users' lie in a folder of that name
}

var (
	systemBases = bases{"/var/lib", "/var/cache", "/var/log", "/etc", true}
	userBases   = bases{"/home/*/.local/state", "/home/*/.cache", "/home/*/.local/state/log", "/home/*/.config", false}
)

// dirs are the directories that a unit's settings name.
func (u unitValues) dirs(unit string, b bases) []unitDir {
	dynamic := b.private && isYes(u["DynamicUser"])
	var out []unitDir
	for _, setting := range []struct {
		name, base string
		private    bool
		cache      bool
	}{
		{"StateDirectory", b.state, dynamic, false},
		{"CacheDirectory", b.cache, dynamic, true},
		{"LogsDirectory", b.logs, dynamic, false},
		{"ConfigurationDirectory", b.config, false, false},
	} {
		for _, word := range u[setting.name] {
			name, _, _ := strings.Cut(word, ":") // a symlink's name may follow
			name = expandSpecifiers(name, unit, b)
			if name == "" {
				continue
			}
			base := setting.base
			if setting.private {
				base += "/private"
			}
			out = append(out, unitDir{unit, path.Join(base, name), setting.cache})
		}
	}
	for _, word := range u["ReadWritePaths"] {
		name := expandSpecifiers(strings.TrimLeft(word, "+-"), unit, b)
		if strings.HasPrefix(name, "/") && !isShared(path.Clean(name)) {
			out = append(out, unitDir{unit, path.Clean(name), below(path.Clean(name), b.cache)})
		}
	}
	return out
}

// isShared tells whether a path that a unit may write to belongs to no unit alone.
func isShared(name string) bool {
	return strings.Count(name, "/") == 1 || slices.Contains([]string{"/var/lib", "/var/log", "/var/cache", "/var/tmp", "/var/spool"}, name) ||
		below(name, "/run") || below(name, "/dev") || below(name, "/proc") || below(name, "/sys") || below(name, "/tmp")
}

func isYes(words []string) bool {
	return len(words) > 0 && slices.Contains([]string{"1", "yes", "y", "true", "t", "on"}, strings.ToLower(words[len(words)-1]))
}

// expandSpecifiers replaces what follows a percent sign; what is known only when the
// unit runs becomes `*`.
func expandSpecifiers(text, unit string, b bases) string {
	name := strings.TrimSuffix(unit, path.Ext(unit))
	prefix, instance, isInstance := strings.Cut(name, "@")
	known := map[byte]string{
		'%': "%", 'n': unit, 'N': name, 'p': prefix, 'S': b.state, 'C': b.cache, 'L': b.logs, 'E': b.config,
		't': "/run", 'T': "/tmp", 'V': "/var/tmp", 'j': prefix[strings.LastIndexByte(prefix, '-')+1:],
	}
	if isInstance && instance != "" {
		known['i'] = instance
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' || i+1 == len(text) {
			out.WriteByte(text[i])
			continue
		}
		i++
		if value, ok := known[text[i]]; ok {
			out.WriteString(value)
		} else {
			out.WriteByte('*')
		}
	}
	return out.String()
}

// unitFolders are where units are: of the default generation, and of the running system.
func unitFolders(manager string) []string {
	return []string{
		path.Join(settings.SystemProfile, "etc/systemd", manager),
		path.Join("/etc/systemd", manager),
		path.Join("/run/systemd", manager),
	}
}

// readUnits finds the directories of all service units. Units that cannot be read are
// left out.
func readUnits(files run.Files) []unitDir {
	var out []unitDir
	for _, m := range []struct {
		name  string
		bases bases
	}{{"system", systemBases}, {"user", userBases}} {
		seen := map[string]bool{}
		for _, folder := range unitFolders(m.name) {
			entries, err := files.ReadDir(folder)
			if err != nil {
				continue
			}
			for _, entry := range entries {
				unit := entry.Name()
				if path.Ext(unit) != ".service" || seen[unit] {
					continue
				}
				values, err := readUnit(files, folder, unit)
				if err != nil {
					continue
				}
				seen[unit] = true
				out = append(out, values.dirs(unit, m.bases)...)
			}
		}
	}
	return out
}

// readUnit reads a unit with its drop-ins.
func readUnit(files run.Files, folder, unit string) (unitValues, error) {
	values := unitValues{}
	if err := values.read(files, path.Join(folder, unit)); err != nil {
		return nil, err
	}
	dropIns := path.Join(folder, unit+".d")
	entries, err := files.ReadDir(dropIns)
	if errors.Is(err, fs.ErrNotExist) {
		return values, nil
	}
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if path.Ext(entry.Name()) != ".conf" {
			continue
		}
		if err := values.read(files, path.Join(dropIns, entry.Name())); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (u unitValues) read(files run.Files, name string) error {
	f, err := files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil // a masked unit leads to /dev/null
	}
	if err := u.parseUnit(f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
