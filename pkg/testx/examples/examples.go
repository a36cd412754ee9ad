// Package examples holds the examples of a document against what the programs
// print.
//
// An example is an indented block below a mark of its own:
//
//	<!-- example: tpm2/status -->
//	    # nixos-tpm2 status
//	    …
//
// With UPDATE_EXAMPLES set in the environment, a check writes what was printed
// into the document instead. A document that is not there is left out: a
// package is built, and tested, from a source without the project's README.
package examples

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update is the variable that has documents written.
const update = "UPDATE_EXAMPLES"

// indent makes a line part of a block.
const indent = "    "

var mark = regexp.MustCompile(`^<!-- example: (\S+) -->$`)

// Documents are files with examples.
type Documents struct {
	files   []string
	missing bool // one is not there
	checked map[string]bool
}

// In names the documents.
func In(files ...string) *Documents {
	d := &Documents{checked: map[string]bool{}}
	for _, file := range files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			d.missing = true
			continue
		}
		d.files = append(d.files, file)
	}
	return d
}

// block is where an example stands: lines[begin:end], without its mark.
type block struct {
	name       string
	begin, end int
}

func blocks(lines []string) []block {
	var found []block
	for i, line := range lines {
		match := mark.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		b := block{name: match[1], begin: i + 1, end: i + 1}
		for j := b.begin; j < len(lines) && (lines[j] == "" || strings.HasPrefix(lines[j], indent)); j++ {
			if lines[j] != "" {
				b.end = j + 1
			}
		}
		found = append(found, b)
	}
	return found
}

// Check compares an example, in every document that has it, with a command and
// what it printed.
func (d *Documents) Check(t *testing.T, name, command, printed string) {
	t.Helper()
	d.checked[name] = true
	found := false
	for _, file := range d.files {
		lines := read(t, file)
		for _, b := range slices.Backward(blocks(lines)) {
			if b.name != name {
				continue
			}
			found = true
			printed := indented(command + "\n" + printed)
			if os.Getenv(update) != "" {
				lines = slices.Concat(lines[:b.begin], printed, lines[b.end:])
				continue
			}
			if diff := cmp.Diff(lines[b.begin:b.end], printed); diff != "" {
				t.Errorf("%s, example %s (-document +printed; %s=1 go test writes it):\n%s", file, name, update, diff)
			}
		}
		if os.Getenv(update) != "" {
			if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found && !d.missing {
		t.Errorf("no document has the example %s", name)
	}
}

// Complete makes sure that every example whose name begins like this was
// checked.
func (d *Documents) Complete(t *testing.T, prefix string) {
	t.Helper()
	for _, file := range d.files {
		for _, b := range blocks(read(t, file)) {
			if strings.HasPrefix(b.name, prefix) && !d.checked[b.name] {
				t.Errorf("%s: the example %s is compared with nothing", file, b.name)
			}
		}
	}
}

func indented(text string) []string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i, line := range lines {
		if line = strings.TrimRight(line, " "); line != "" {
			line = indent + line
		}
		lines[i] = line
	}
	return lines
}

func read(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}
