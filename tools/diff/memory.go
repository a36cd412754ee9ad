package diff

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// stateFile is where a run notes what it has listed. /var/lib/nixos-go is among the
// paths that every machine of the toolkit keeps.
const stateFile = "/var/lib/nixos-go/diff.json"

const stateVersion = 1

// memory is what earlier runs have listed, for --recent.
type memory struct {
	Version int `json:"version"`
	// Questions holds the last run of each question: what a boot changes, or what
	// changed in kept paths, each since CLEAN or since the boot.
	Questions map[string]*lastRun `json:"questions"`
}

// lastRun is what one run has listed.
type lastRun struct {
	Time    time.Time                 `json:"time"`
	Volumes map[string]*lastRunVolume `json:"volumes"`
}

// lastRunVolume is what one run has listed of a volume.
type lastRunVolume struct {
	// UUID and Generation tell the live volume, and the last transaction that the run
	// has seen.
	UUID       string   `json:"uuid"`
	Generation uint64   `json:"generation"`
	Listed     []listed `json:"listed"`

	kinds map[string]reset.Kind
}

type listed struct {
	ui.Path

	Kind reset.Kind `json:"kind"`
}

// question names what a request asks.
func (r request) question() string {
	what, since := "boot", "clean"
	if r.kept {
		what = "kept"
	}
	if r.sinceBoot {
		since = "boot"
	}
	return what + " since " + since
}

// countsAsRun tells whether a request shows everything, so that later runs may take
// what it showed for known.
func (r request) countsAsRun() bool {
	return r.plan == "" && r.device == "" && r.children == "" && len(r.patterns) == 0 && len(r.paths) == 0
}

// recall reads what the last runs have listed.
func (t tool) recall(r request) (*memory, error) {
	m := &memory{Version: stateVersion, Questions: map[string]*lastRun{}}
	if r.plan != "" || r.device != "" {
		return m, nil
	}
	text, err := t.env.Host.Files.ReadFile(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err == nil {
		err = m.parse(text)
	}
	if err != nil {
		err = clikit.WithHint(fmt.Errorf("what the last run listed: %w", err), "delete %s to begin anew", stateFile)
		if r.recent {
			return nil, err
		}
		t.env.UI.Warnf("%v", err)
		return &memory{Version: stateVersion, Questions: map[string]*lastRun{}}, nil
	}
	if r.recent && m.Questions[r.question()] == nil {
		t.env.UI.Infof("nixos-diff has not been asked this before: everything is new")
	}
	return m, nil
}

func (m *memory) parse(text []byte) error {
	if err := json.Unmarshal(text, m); err != nil {
		return err
	}
	if m.Version != stateVersion {
		return fmt.Errorf("version %d, this program knows version %d", m.Version, stateVersion)
	}
	if m.Questions == nil {
		m.Questions = map[string]*lastRun{}
	}
	for _, run := range m.Questions {
		if run == nil {
			return errors.New("a run is empty")
		}
		for name, v := range run.Volumes {
			if v == nil {
				return fmt.Errorf("volume %q is empty", name)
			}
			v.kinds = map[string]reset.Kind{}
			for _, l := range v.Listed {
				p, err := l.Bytes()
				if err != nil {
					return err
				}
				v.kinds[p] = l.Kind
			}
		}
	}
	return nil
}

// volume is what the last run of a question has listed of a volume; nil for nothing.
func (m *memory) volume(question, name string) *lastRunVolume {
	if run := m.Questions[question]; run != nil {
		return run.Volumes[name]
	}
	return nil
}

// remember notes what this run has listed. That it cannot be written is no failure of
// the run.
func (t tool) remember(r request, tgt *target, m *memory, now time.Time) {
	run := &lastRun{Time: now.UTC().Truncate(time.Second), Volumes: map[string]*lastRunVolume{}}
	for _, v := range tgt.volumes {
		if v.Err != nil {
			continue
		}
		last := &lastRunVolume{UUID: v.UUID, Generation: v.Generation, Listed: []listed{}}
		for _, c := range changes(v) {
			last.Listed = append(last.Listed, listed{ui.JSONPath(c.Path), c.Kind})
		}
		run.Volumes[v.Volume.Name] = last
	}
	m.Questions[r.question()] = run
	text, err := json.Marshal(m)
	if err == nil {
		err = t.env.Host.Files.MkdirAll(path.Dir(stateFile), 0o700)
	}
	if err == nil {
		err = t.env.Host.Files.WriteFile(stateFile, append(text, '\n'), 0o600)
	}
	if err != nil {
		t.env.UI.Warnf("what was listed cannot be noted for --recent: %v", err)
	}
}

// knows tells whether the last run has listed a change: the same path and kind, or a
// directory above that was wiped or brought back as a whole.
func (l *lastRunVolume) knows(rel string, kind reset.Kind) bool {
	if l == nil {
		return false
	}
	if l.kinds[rel] == kind {
		return true
	}
	for at := rel; at != "/"; {
		at = at[:max(strings.LastIndexByte(at, '/'), 0)]
		if at == "" {
			at = "/"
		}
		switch l.kinds[at] {
		case reset.KindAdded, reset.KindDeleted, reset.KindType:
			return true
		case reset.KindModified, reset.KindMetadata, "":
		}
	}
	return false
}

// isNew tells whether a name in a directory that was listed as a whole came later.
// After a reset nothing is known of that: another volume has other transactions.
func (l *lastRunVolume) isNew(v *reset.VolumePreview, e *reset.Entry) bool {
	return l.UUID == v.UUID && e.Named > l.Generation
}
