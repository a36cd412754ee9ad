package reset

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/keep"
)

func testRecord() *Record {
	return &Record{
		Version: recordVersion, CleanUUID: "0b29ebd5-7cb7-490f-988a-046c035bf449", CleanGeneration: 9, Revision: 7,
		Rules:     RuleSet{Keep: []string{"/etc/ssh"}, Exclude: []string{}},
		Effective: []RuleSet{{Keep: []string{"/etc/ssh"}, Exclude: []string{}}, {Keep: []string{"/a \"b\"\n*"}, Exclude: []string{"/a/b"}}},
		Outside:   []Range{{256, 256}, {300, 1 << 60}}, ReadOnly: []uint64{258},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, want := range []*Record{testRecord(), {Version: recordVersion, Displaced: "a", Restored: "b"}} {
		text, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(text, []byte("}\n")) || bytes.Count(text, []byte("\n")) != 1 {
			t.Errorf("encode = %q, want one line", text)
		}
		got, err := readRecord(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
	}
}

// What is no record of this version is not trusted, and is no panic.
func TestReadRecordErrors(t *testing.T) {
	text, err := testRecord().encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	for name, text := range map[string]string{
		"empty": "", "blank": "\n", "not JSON": "ready", "null": "null", "list": "[]", "no version": "{}",
		"other version":  strings.Replace(good, `"version":1`, `"version":2`, 1),
		"cut off":        good[:len(good)/2],
		"wrong type":     strings.Replace(good, `"revision":7`, `"revision":"7"`, 1),
		"negative range": strings.Replace(good, `"first":256`, `"first":-1`, 1),
		"trailing":       good + "{}",
	} {
		if rec, err := readRecord(strings.NewReader(text)); !errors.Is(err, errRecord) || rec != nil {
			t.Errorf("readRecord(%s) = %+v, %v, want %v", name, rec, err, errRecord)
		}
	}
	if _, err := readRecord(brokenReader{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("readRecord of a reader that fails = %v", err)
	}
	if _, err := readRecord(endlessReader{}); !errors.Is(err, errRecord) {
		t.Errorf("readRecord of an endless reader = %v, want %v", err, errRecord)
	}
}

func FuzzReadRecord(f *testing.F) {
	text, err := testRecord().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		rec, err := readRecord(bytes.NewReader(text))
		if err != nil {
			if rec != nil || !errors.Is(err, errRecord) {
				t.Fatalf("readRecord(%q) = %+v, %v, want %v", text, rec, err, errRecord)
			}
			return
		}
		// The rules of a record that somebody has tampered with may be wrong: an
		// error, and no panic.
		rules, _ := keep.NewSet([]string{"/etc"}, nil)
		if sets, record, older, err := effectiveRules(rules, rec.Revision-1, rec); err == nil {
			if len(sets) != len(record.Effective) || older != (len(sets) == 2) {
				t.Errorf("effectiveRules = %d sets, %d recorded, older %v", len(sets), len(record.Effective), older)
			}
		}
	})
}

func set(t *testing.T, keeps, excludes string) keep.Set {
	t.Helper()
	s, err := keep.NewSet(strings.Fields(keeps), strings.Fields(excludes))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// An older generation keeps what the newest one keeps, too.
func TestEffectiveRules(t *testing.T) {
	last := func(revision int64, keeps, excludes string) *Record {
		return &Record{Version: recordVersion, Revision: revision, Rules: ruleSet(set(t, keeps, excludes))}
	}
	for _, tt := range []struct {
		name         string
		rules        keep.Set
		revision     int64
		last         *Record
		wantSets     []RuleSet
		wantRevision int64
		wantRules    string // of the record, the keep rules
		older        bool
	}{
		{"first", set(t, "/a /b", ""), 5, nil, []RuleSet{{[]string{"/a", "/b"}, []string{}}}, 5, "/a /b", false},
		{"newer", set(t, "/a", ""), 6, last(5, "/b", ""), []RuleSet{{[]string{"/a"}, []string{}}}, 6, "/a", false},
		{"same age, other rules", set(t, "/a", ""), 5, last(5, "/b", ""), []RuleSet{{[]string{"/a"}, []string{}}}, 5, "/a", false},
		{
			"older", set(t, "/a", "/a/x"), 4, last(5, "/b", "/b/y"),
			[]RuleSet{{[]string{"/a"}, []string{"/a/x"}}, {[]string{"/b"}, []string{"/b/y"}}},
			5, "/b", true,
		},
		{"older, equal rules", set(t, "/a /b", ""), 4, last(5, "/b/ //a", ""), []RuleSet{{[]string{"/a", "/b"}, []string{}}}, 5, "/a /b", false},
		{
			"older, other exclude", set(t, "/a", ""), 4, last(5, "/a", "/a/x"),
			[]RuleSet{{[]string{"/a"}, []string{}}, {[]string{"/a"}, []string{"/a/x"}}},
			5, "/a", true,
		},
		{"older, nothing was kept", set(t, "/a", ""), 4, last(5, "", ""), []RuleSet{{[]string{"/a"}, []string{}}, {[]string{}, []string{}}}, 5, "", true},
		{"no revision at all", set(t, "/a", ""), 0, last(0, "/b", ""), []RuleSet{{[]string{"/a"}, []string{}}}, 0, "/a", false},
	} {
		sets, record, older, err := effectiveRules(tt.rules, tt.revision, tt.last)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.wantSets, record.Effective); diff != "" {
			t.Errorf("%s: effective rules (-want +got):\n%s", tt.name, diff)
		}
		if got := strings.Join(record.Rules.Keep, " "); got != tt.wantRules || record.Revision != tt.wantRevision || older != tt.older || record.Version != recordVersion {
			t.Errorf("%s: record of revision %d with %q, older %v, want %d with %q, %v", tt.name, record.Revision, got, older, tt.wantRevision, tt.wantRules, tt.older)
		}
		if len(sets) != len(tt.wantSets) {
			t.Fatalf("%s: %d sets in force, want %d", tt.name, len(sets), len(tt.wantSets))
		}
		for i := range sets {
			if !ruleSet(sets[i]).equal(tt.wantSets[i]) {
				t.Errorf("%s: set %d in force = %+v, want %+v", tt.name, i, ruleSet(sets[i]), tt.wantSets[i])
			}
		}
	}
}

// Three boots: newer, older, older again. The newest rules are never forgotten.
func TestEffectiveRulesOverBoots(t *testing.T) {
	_, newest, _, err := effectiveRules(set(t, "/new", ""), 9, nil)
	if err != nil {
		t.Fatal(err)
	}
	record := &newest
	for boot, rules := range []string{"/old", "/older", "/old"} {
		_, next, older, err := effectiveRules(set(t, rules, ""), int64(3-boot), record)
		if err != nil {
			t.Fatal(err)
		}
		if !older || next.Revision != 9 || next.Rules.Keep[0] != "/new" || next.Effective[1].Keep[0] != "/new" {
			t.Errorf("boot %d: record = %+v, older %v, want /new of revision 9 kept", boot, next, older)
		}
		record = &next
	}
	sets, next, older, err := effectiveRules(set(t, "/newer", ""), 10, record)
	if err != nil || older || len(sets) != 1 || next.Revision != 10 || next.Rules.Keep[0] != "/newer" {
		t.Errorf("a newer generation: %d sets, record %+v, older %v, %v, want it to be the whole truth", len(sets), next, older, err)
	}
}

func TestEffectiveRulesBrokenRecord(t *testing.T) {
	last := &Record{Version: recordVersion, Revision: 9, Rules: RuleSet{Keep: []string{"/a/.."}}}
	if _, _, _, err := effectiveRules(set(t, "/a", ""), 1, last); !errors.Is(err, keep.ErrDots) {
		t.Errorf("effectiveRules with a broken record = %v, want %v", err, keep.ErrDots)
	}
	if _, _, _, err := effectiveRules(set(t, "/a", ""), 10, last); err != nil {
		t.Errorf("effectiveRules of a newer generation with a broken record = %v, want none: it does not matter", err)
	}
}
