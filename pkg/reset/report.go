package reset

import (
	"sync"
	"time"
)

// Outcome says what a run did to one volume.
type Outcome string

// The outcomes.
const (
	OutcomeReset     Outcome = "reset"
	OutcomeSnapshot  Outcome = "snapshot"
	OutcomeRestored  Outcome = "restored"
	OutcomeUnchanged Outcome = "unchanged" // nothing written since the last run: left alone
	OutcomeDisabled  Outcome = "disabled"  // left alone by the mode
	OutcomePlanned   Outcome = "planned"   // a dry run
	OutcomeFailed    Outcome = "failed"    // left as it was
)

// ReportVersion is the version of the report's JSON.
const ReportVersion = 1

// Report is what a run did.
type Report struct {
	Version      int       `json:"version"`
	Mode         Mode      `json:"mode"`
	ModeFrom     string    `json:"modeFrom"` // why that mode: the flag, the name, the kernel command line or the plan
	DryRun       bool      `json:"dryRun,omitempty"`
	Started      time.Time `json:"started"`
	Milliseconds float64   `json:"milliseconds"`
	Phases       []Phase   `json:"phases"`
	Warnings     []string  `json:"warnings,omitempty"`
	Error        string    `json:"error,omitempty"` // what stopped everything
	Volumes      []Result  `json:"volumes"`
}

// Failed reports whether a volume was left as it was.
func (r *Report) Failed() bool {
	for i := range r.Volumes {
		if r.Volumes[i].Outcome == OutcomeFailed {
			return true
		}
	}
	return r.Error != ""
}

// Result is what a run did to one volume. Counts are of top-most paths.
type Result struct {
	Name        string   `json:"name"`
	MountPoint  string   `json:"mountPoint"`
	Outcome     Outcome  `json:"outcome"`
	Way         Way      `json:"way,omitempty"`
	Wiped       int      `json:"wiped"`
	ChangedBack int      `json:"changedBack"`
	BroughtBack int      `json:"broughtBack"`
	Moved       int      `json:"moved"`
	Phases      []Phase  `json:"phases,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
	Error       string   `json:"error,omitempty"`

	// Changes are those of a reset, or of its dry run.
	Changes []Change `json:"-"`

	finished bool // everything after the exchange was done
}

// Phase is a part of the work and how long it took. Volumes are worked on at the
// same time, and so are snapshot and plan: the sum is more than the whole.
type Phase struct {
	Name         string  `json:"name"`
	Milliseconds float64 `json:"milliseconds"`
}

// count fills the counts from the changes.
func (r *Result) count() {
	for i := range r.Changes {
		c := &r.Changes[i]
		switch {
		case c.Kind == KindAdded:
			r.Wiped++
		case c.Kind == KindDeleted:
			r.BroughtBack++
		case !c.OnlyTime():
			r.ChangedBack++
		}
	}
}

// stopwatch collects phases.
type stopwatch struct {
	mu     sync.Mutex
	phases []Phase
}

// measure runs a part of the work and notes how long it took.
func (s *stopwatch) measure(name string, work func() error) error {
	start := time.Now()
	err := work()
	ms := float64(time.Since(start).Microseconds()) / 1000
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.phases {
		if s.phases[i].Name == name {
			s.phases[i].Milliseconds += ms
			return err
		}
	}
	s.phases = append(s.phases, Phase{name, ms})
	return err
}
