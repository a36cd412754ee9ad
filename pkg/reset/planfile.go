package reset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// PlanFileVersion is the version of the plan file that this package reads.
const PlanFileVersion = 1

// PlanFile is the document that the NixOS modules write at build time and the
// boot reads: which volumes, and what of them is kept.
type PlanFile struct {
	Version   int              `json:"version"`
	Device    string           `json:"device"`
	Snapshots string           `json:"snapshots"`
	Clean     string           `json:"clean"`
	Mode      Mode             `json:"mode"`
	Revision  int64            `json:"revision"` // lastModified of the flake, seconds since 1970
	Volumes   []PlanFileVolume `json:"volumes"`
}

// PlanFileVolume is one volume of a plan file; its rules are relative to its
// mount point.
type PlanFileVolume struct {
	Name        string   `json:"name"`
	MountPoint  string   `json:"mountPoint"`
	Keep        []string `json:"keep"`
	Exclude     []string `json:"exclude"`
	KeepNothing bool     `json:"keepNothing,omitempty"`
}

// ErrPlanFile says that a plan file cannot be used; nothing may be touched.
var ErrPlanFile = errors.New("plan file")

// maxPlanFile bounds what is read: a plan of thousands of rules is far smaller.
const maxPlanFile = 16 << 20

// ParsePlanFile reads and checks a plan file. Unknown fields, wrong types, an
// unknown version or mode, no volume, a volume named twice and an invalid rule
// are errors that name what is wrong; they wrap ErrPlanFile.
func ParsePlanFile(r io.Reader) (*PlanFile, error) {
	p, err := parsePlanFile(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlanFile, err)
	}
	return p, nil
}

func parsePlanFile(r io.Reader) (*PlanFile, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPlanFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxPlanFile {
		return nil, fmt.Errorf("longer than %d bytes", maxPlanFile)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("it is empty")
	}
	if !utf8.Valid(text) {
		// encoding/json would put U+FFFD there, and the rule would keep nothing.
		return nil, errors.New("it is not UTF-8: a rule reaches other names by a *")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var p PlanFile
	if err := dec.Decode(&p); err != nil {
		return nil, explainJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON document")
	}
	if err := checkFields(text); err != nil {
		return nil, err
	}
	return &p, p.check()
}

// planFields are the names of all fields, volumes' included.
var planFields = []string{
	"version", "device", "snapshots", "clean", "mode", "revision", "volumes",
	"name", "mountPoint", "keep", "exclude", "keepNothing",
}

// checkFields refuses what encoding/json lets pass, and what could lose rules: a field
// that is there twice, of which it takes the last, or in capitals. The text is JSON.
func checkFields(text []byte) error {
	type object struct {
		fields map[string]bool // nil in a list
		value  bool            // a field's value comes next
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	var open []object
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		last := len(open) - 1
		name, isText := token.(string)
		switch {
		case token == json.Delim('}'), token == json.Delim(']'):
			open = open[:last]
			continue
		case last >= 0 && open[last].fields != nil && !open[last].value && isText:
			if !slices.Contains(planFields, name) {
				return fmt.Errorf("unknown field %q", name)
			}
			if open[last].fields[name] {
				return fmt.Errorf("field %q is there twice", name)
			}
			open[last].fields[name], open[last].value = true, true
			continue
		case last >= 0:
			open[last].value = false
		}
		switch token {
		case json.Delim('{'):
			open = append(open, object{fields: map[string]bool{}})
		case json.Delim('['):
			open = append(open, object{})
		}
	}
}

// explainJSON names the field and the offset that encoding/json complains of.
func explainJSON(err error) error {
	var typeErr *json.UnmarshalTypeError
	var syntaxErr *json.SyntaxError
	switch {
	case errors.As(err, &typeErr) && typeErr.Field == "":
		return fmt.Errorf("the document is a %s, want an object", typeErr.Value)
	case errors.As(err, &typeErr):
		return fmt.Errorf("field %q is a %s, want %s", typeErr.Field, typeErr.Value, typeErr.Type)
	case errors.As(err, &syntaxErr):
		return fmt.Errorf("not JSON at byte %d: %w", syntaxErr.Offset, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("cut off: %w", err)
	}
	return err
}

func (p *PlanFile) check() error {
	if p.Version != PlanFileVersion {
		return fmt.Errorf("field \"version\" is %d, this program reads version %d", p.Version, PlanFileVersion)
	}
	if p.Mode != "" {
		if _, err := ParseMode(string(p.Mode)); err != nil {
			return fmt.Errorf("field \"mode\": %w", err)
		}
	}
	if p.Snapshots == "" {
		p.Snapshots = DefaultSnapshots
	}
	if p.Clean == "" {
		p.Clean = NameClean
	}
	if err := checkName(p.Snapshots); err != nil {
		return fmt.Errorf("field \"snapshots\": %w", err)
	}
	if err := checkCleanName(p.Clean); err != nil {
		return fmt.Errorf("field \"clean\": %w", err)
	}
	if len(p.Volumes) == 0 {
		return errors.New("field \"volumes\" names no volume")
	}
	seen := map[string]bool{}
	for i, v := range p.Volumes {
		if err := v.check(p.Snapshots); err != nil {
			return fmt.Errorf("volume %d (%q): %w", i+1, v.Name, err)
		}
		if seen[v.Name] {
			return fmt.Errorf("volume %q is named twice", v.Name)
		}
		seen[v.Name] = true
	}
	return nil
}

// checkCleanName refuses a CLEAN under a name that the rotation uses.
func checkCleanName(name string) error {
	switch name {
	case NamePrevious, NamePenultimate, NameCurrent, NameNext, NameReplaced:
		return fmt.Errorf("%q is the name of another snapshot", name)
	}
	if IsAged(name) {
		return fmt.Errorf("%q begins with %q", name, agedPrefix)
	}
	return checkName(name)
}

// checkName is btrfs.CheckName with the name quoted.
func checkName(name string) error {
	err := btrfs.CheckName(name)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q cannot be the name of a subvolume: %w", name, errors.Unwrap(err))
}

func (v *PlanFileVolume) check(snapshots string) error {
	if v.Name == "" {
		return errors.New("it has no name")
	}
	if err := checkName(v.Name); err != nil {
		return err
	}
	if v.Name == snapshots {
		return errors.New("it is the subvolume of the snapshots")
	}
	if !strings.HasPrefix(v.MountPoint, "/") {
		return fmt.Errorf("mount point %q is not an absolute path", v.MountPoint)
	}
	_, err := v.Rules()
	return err
}

// Rules parses the rules of the volume.
func (v *PlanFileVolume) Rules() (keep.Set, error) { return keep.NewSet(v.Keep, v.Exclude) }
