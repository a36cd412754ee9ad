package secureboottool_test

import (
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/testx/leak"
)

// The private keys never leave sbctl's folder: whatever the tool runs, says,
// copies and writes down.
func TestNoLeak(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for fail := -1; fail < 6; fail++ {
		m := newMachine(t)
		marks, sources := make([]string, 0, 3), make([]string, 0, 6)
		for name, key := range map[string][]byte{
			"PK": m.keys.PK.PrivatePEM(), "KEK": m.keys.KEK.PrivatePEM(), "db": m.keys.DB.PrivatePEM(),
		} {
			marks = append(marks, strings.Split(string(key), "\n")[5])
			sources = append(sources, filepath.Join(m.dir, "var/lib/sbctl/keys", name, name+".key"),
				filepath.Join(m.dir, "keys-of-the-test", name))
		}
		hunt := leak.New(t, marks...)
		hunt.Watch([]string{tmp, m.dir}, sources...)
		runner, _ := m.runner.(*nixos)
		runner.failing, runner.fail, runner.after = fail >= 0, fail, true
		m.runner = hunt.Runner(runner)
		for _, args := range [][]string{{"enable", "--yes", "--json"}, {"status", "--json"}, {"status"}, {"disable", "--yes"}} {
			m.run(t.Context(), args...)
			hunt.Text("standard output", m.out.String())
			hunt.Text("standard error", m.err.String())
			hunt.Files()
		}
		if hunt.Looked() < 100 {
			t.Errorf("only %d texts were looked at", hunt.Looked())
		}
	}
}
