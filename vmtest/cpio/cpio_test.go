package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// list reads an archive as the kernel does, and gives a line for each entry.
func list(t *testing.T, archive []byte) []string {
	t.Helper()
	var lines []string
	for at := 0; ; {
		field := func(i int) int {
			n, err := strconv.ParseUint(string(archive[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatalf("field %d at byte %d: %v", i, at, err)
			}
			return int(n)
		}
		if string(archive[at:at+6]) != "070701" {
			t.Fatalf("at byte %d is no entry: %q", at, archive[at:at+6])
		}
		mode, links, size, nameSize := field(1), field(4), field(6), field(11)
		name := string(archive[at+110 : at+110+nameSize-1])
		if name == "TRAILER!!!" {
			if rest := archive[at+110+nameSize:]; len(archive)%512 != 0 || len(bytes.Trim(rest, "\x00")) > 0 {
				t.Errorf("after the trailer: %d bytes in all, %q", len(archive), rest)
			}
			return lines
		}
		start := (at + 110 + nameSize + 3) &^ 3
		lines = append(lines, fmt.Sprintf("%o %d %s %d:%d %q", mode, links, name, field(9), field(10), archive[start:start+size]))
		at = (start + size + 3) &^ 3
	}
}

func TestWriter(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, err := range []error{
		w.CharDevice("dev/console", 0o600, 5, 1),
		w.File("/a/b/file", 0o640, []byte("text\x00")),
		w.File("a/b/set", fs.ModeSetuid|0o755, nil),
		w.Symlink("a/link", "b/file"),
		w.Dir("tmp", fs.ModeSticky|0o777),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		`40755 2 dev 0:0 ""`,
		`20600 1 dev/console 5:1 ""`,
		`40755 2 a 0:0 ""`,
		`40755 2 a/b 0:0 ""`,
		`100640 1 a/b/file 0:0 "text\x00"`,
		`104755 1 a/b/set 0:0 ""`,
		`120777 1 a/link 0:0 "b/file"`,
		`41777 1 tmp 0:0 ""`,
	}
	if diff := cmp.Diff(want, list(t, b.Bytes())); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
	if !w.Has("/a/b") || w.Has("c") {
		t.Errorf("Has(/a/b) = %v, Has(c) = %v", w.Has("/a/b"), w.Has("c"))
	}
}

func TestTwice(t *testing.T) {
	w := NewWriter(&strings.Builder{})
	if err := errors.Join(w.File("a/b", 0o644, nil), w.File("/a/./b", 0o644, nil)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the second of a name = %v, want ErrExist", err)
	}
	if err := w.Close(); err == nil {
		t.Error("Close after an error = nil")
	}
}
