package versions

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// folder holds versions of a thing, each with the time since its last use.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) add(name string, unused time.Duration) {
	f.t.Helper()
	at := time.Now().Add(-unused)
	err := errors.Join(
		os.MkdirAll(filepath.Join(f.path(name), "usr"), 0o755),
		os.WriteFile(filepath.Join(f.path(name), "usr", "program"), nil, 0o600),
		Used(f.path(name)), os.Chtimes(stamp(f.path(name)), at, at))
	if err != nil {
		f.t.Fatal(err)
	}
}

// names are those of all that is there, hidden or not.
func (f folder) names() []string {
	f.t.Helper()
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestForget(t *testing.T) {
	const day = 24 * time.Hour
	tests := map[string]struct {
		unused  map[string]time.Duration
		current string
		want    []string
	}{
		"an old one goes, one of this week stays": {
			map[string]time.Duration{"tree-a": 8 * day, "tree-b": 2 * day, "tree-c": 0}, "tree-c", []string{"tree-a"},
		},
		"the one in use stays, however old it is": {
			map[string]time.Duration{"tree-a": 30 * day, "tree-b": 9 * day}, "tree-a", []string{"tree-b"},
		},
		"beyond the spared ones, the longest unused goes": {
			map[string]time.Duration{"tree-a": 3 * day, "tree-b": 2 * day, "tree-c": day, "tree-d": 0}, "tree-d", []string{"tree-a"},
		},
		"what a run may be using stays, be it one too many": {
			map[string]time.Duration{"tree-a": time.Hour, "tree-b": time.Hour, "tree-c": 2 * time.Hour, "tree-d": 0}, "tree-d", nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := folder{t, t.TempDir()}
			var all, want []string
			for _, name := range []string{"tree-a", "tree-b", "tree-c", "tree-d"} {
				if unused, ok := test.unused[name]; ok {
					f.add(name, unused)
					all = append(all, f.path(name))
				}
			}
			for _, name := range test.want {
				want = append(want, f.path(name))
			}
			got, err := Forget(f.path(test.current), all, 2)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("Forget = %v (-want +got):\n%s", err, diff)
			}
			if n, want := len(f.names()), 2*(len(all)-len(test.want)); n != want {
				t.Errorf("%d entries are left, want %d, with one stamp each: %v", n, want, f.names())
			}
		})
	}
}

// Without a stamp, which earlier runs have not made, a version's own time counts;
// a run that uses it is seen from then on.
func TestForgetWithoutStamp(t *testing.T) {
	f := folder{t, t.TempDir()}
	long := time.Now().Add(-2 * idle)
	f.add("tree-a", 0)
	if err := os.Remove(stamp(f.path("tree-a"))); err != nil {
		t.Fatal(err)
	}
	if got, err := Forget(f.path("tree-b"), []string{f.path("tree-a")}, 2); len(got) > 0 || err != nil {
		t.Errorf("Forget of one made just now = %v, %v", got, err)
	}
	if err := errors.Join(os.Chtimes(f.path("tree-a"), long, long), Used(f.path("tree-a"))); err != nil {
		t.Fatal(err)
	}
	if got, err := Forget(f.path("tree-b"), []string{f.path("tree-a")}, 2); len(got) > 0 || err != nil {
		t.Errorf("Forget of an old one in use = %v, %v", got, err)
	}
	if info, err := os.Stat(f.path("tree-a")); err != nil || !info.ModTime().Equal(long) {
		t.Errorf("its own time after a use = %v, %v, want %v as before", info.ModTime(), err, long)
	}
	if err := os.Remove(stamp(f.path("tree-a"))); err != nil {
		t.Fatal(err)
	}
	if got, err := Forget(f.path("tree-b"), []string{f.path("tree-a")}, 2); len(got) != 1 || err != nil {
		t.Errorf("Forget of an old one that no run has noted = %v, %v, want it gone", got, err)
	}
}

func TestScraps(t *testing.T) {
	f := folder{t, t.TempDir()}
	f.add("tree-a", 0)
	for _, name := range []string{".installing-1", ".unpacking-2", gonePrefix + "tree-x", "disk-x.raw.part"} {
		if err := os.MkdirAll(filepath.Join(f.path(name), "half"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := Scraps(f.dir, ".installing-*", "*.part"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".unpacking-2", stampPrefix + "tree-a", "tree-a"}, f.names()); diff != "" {
		t.Errorf("after Scraps (-want +got):\n%s", diff)
	}
	if err := Scraps(f.path("gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Scraps of no folder = %v, want ErrNotExist", err)
	}
}
