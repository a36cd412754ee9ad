package reset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"nixos-go/pkg/keep"
)

// recordVersion is the version of Record that this package writes and trusts.
const recordVersion = 1

// RuleSet is the rules of one volume in their canonical form.
type RuleSet struct {
	Keep    []string `json:"keep"`
	Exclude []string `json:"exclude"`
}

// Range is a run of inode numbers, both ends included.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Record is the content of ReadyName: what the run that made this volume did. The
// one in CURRENT, a read-only snapshot, is the proof of the lineage that the next
// reset's shortcut needs.
type Record struct {
	Version int `json:"version"`

	// CleanUUID and CleanGeneration identify the CLEAN that it was reset to.
	CleanUUID       string `json:"cleanUUID"`
	CleanGeneration uint64 `json:"cleanGeneration"`

	// Revision and Rules are those of the newest plan so far; Effective is what
	// this run used: Rules alone, or with those of an older generation.
	Revision  int64     `json:"revision"`
	Rules     RuleSet   `json:"rules"`
	Effective []RuleSet `json:"effective"`

	// Outside are ranges that hold every inode that lies outside kept paths.
	Outside []Range `json:"outside,omitempty"`

	// Shared are inodes that have names outside kept paths and kept ones. Whether
	// that may stay depends on the paths of both, which change without a trace in
	// the inode when a directory above is renamed.
	Shared []uint64 `json:"shared,omitempty"`

	// ReadOnly are the tree ids of nested subvolumes that are read-only and have
	// to move, or something out of them: they get the flag back afterwards.
	ReadOnly []uint64 `json:"readOnly,omitempty"`

	// Displaced is set by a restore alone: the UUID of the live volume that it
	// put aside, so that recovery can tell before the exchange from after it.
	Displaced string `json:"displaced,omitempty"`
	// Restored is set by a restore alone: the UUID of the snapshot put back.
	Restored string `json:"restored,omitempty"`
}

// errRecord says that a record cannot be trusted; the reset then compares in full.
var errRecord = errors.New("not a record of this version")

// maxRecord bounds what is read from a file that a volume's user may have written.
const maxRecord = 8 << 20

func readRecord(r io.Reader) (*Record, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxRecord))
	if err != nil {
		return nil, err
	}
	var rec Record
	if err := json.Unmarshal(text, &rec); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	if rec.Version != recordVersion {
		return nil, fmt.Errorf("%w: version %d", errRecord, rec.Version)
	}
	return &rec, nil
}

func (r *Record) encode() ([]byte, error) {
	text, err := json.Marshal(r)
	return append(text, '\n'), err
}

func ruleSet(s keep.Set) RuleSet {
	k, e := s.Strings()
	return RuleSet{Keep: k, Exclude: e}
}

func (r RuleSet) parse() (keep.Set, error) { return keep.NewSet(r.Keep, r.Exclude) }

func (r RuleSet) equal(o RuleSet) bool {
	return slices.Equal(r.Keep, o.Keep) && slices.Equal(r.Exclude, o.Exclude)
}

func equalRuleSets(a, b []RuleSet) bool { return slices.EqualFunc(a, b, RuleSet.equal) }

// effectiveRules decides which rules a run uses. An older generation never wipes
// what a newer one keeps: when the plan is older than the newest that the volume
// has seen, both rule sets hold.
func effectiveRules(rules keep.Set, revision int64, last *Record) (sets []keep.Set, record Record, older bool, err error) {
	record = Record{Version: recordVersion, Revision: revision, Rules: ruleSet(rules)}
	sets = []keep.Set{rules}
	if last != nil && revision < last.Revision && !last.Rules.equal(record.Rules) {
		newer, err := last.Rules.parse()
		if err != nil {
			return nil, record, false, fmt.Errorf("rules of the newer generation: %w", err)
		}
		sets = append(sets, newer)
		record.Revision, record.Rules = last.Revision, last.Rules
		older = true
	} else if last != nil && revision < last.Revision {
		record.Revision = last.Revision
	}
	for _, s := range sets {
		record.Effective = append(record.Effective, ruleSet(s))
	}
	return sets, record, older, nil
}
