package examples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const document = `Text.

<!-- example: a/one -->
    # one
    out

    more

Between.

    not an example

<!-- example: a/two -->
    # two
`

func TestBlocks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "document.md")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []block{{"a/one", 3, 7}, {"a/two", 13, 14}}
	if diff := cmp.Diff(want, blocks(read(t, file)), cmp.AllowUnexported(block{})); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
	d := In(file, file+".missing")
	d.Check(t, "a/one", "# one", "out\n\nmore  \n")
	d.Check(t, "a/two", "# two", "")
	d.Complete(t, "a/")
}

func TestUpdate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "document.md")
	if err := os.WriteFile(file, []byte("<!-- example: one -->\n    # old\n    out\n\nText.\n\n<!-- example: one -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(update, "1")
	In(file).Check(t, "one", "# new", "a\nb\n")
	got, err := os.ReadFile(file)
	want := "<!-- example: one -->\n    # new\n    a\n    b\n\nText.\n\n<!-- example: one -->\n    # new\n    a\n    b\n"
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("the document (-want +got), %v:\n%s", err, diff)
	}
}
