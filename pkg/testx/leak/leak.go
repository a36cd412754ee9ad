// Package leak hunts for secrets where none may be: in arguments and
// environments, in output, in files, in what a recorder remembers, and in the
// memory that a program leaves.
package leak

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nixos-go/pkg/run"
)

// Hunt looks for secrets. It may be used by several goroutines.
type Hunt struct {
	tb    testing.TB
	forms map[string][]byte // how a secret may look, by a name for messages
	// files are folders in which no file may hold one, whenever it is looked.
	files []string
	skip  map[string]bool
	mu    sync.Mutex
	count int
}

// New hunts for secrets in every text that it is shown.
func New(tb testing.TB, secrets ...string) *Hunt {
	tb.Helper()
	h := &Hunt{tb: tb, forms: map[string][]byte{}, skip: map[string]bool{}}
	for i, secret := range secrets {
		b := []byte(secret)
		for name, form := range map[string][]byte{
			"as it is":           b,
			"quoted":             []byte(strings.Trim(fmt.Sprintf("%q", secret), `"`)),
			"in base64":          []byte(base64.StdEncoding.EncodeToString(b))[:len(b)],
			"in base64 for URLs": []byte(base64.RawURLEncoding.EncodeToString(b))[:len(b)],
			"in hexadecimal":     []byte(hex.EncodeToString(b)),
			"as a list of bytes": []byte(strings.Trim(fmt.Sprintf("%d", b), "[]")),
			"in UTF-16":          []byte(strings.Join(strings.Split(secret, ""), "\x00")),
		} {
			h.forms[fmt.Sprintf("secret %d %s", i, name)] = form
		}
	}
	return h
}

// Text looks at a text.
func (h *Hunt) Text(where, text string) { h.bytes(where, []byte(text)) }

func (h *Hunt) bytes(where string, content []byte) {
	h.tb.Helper()
	h.mu.Lock()
	h.count++
	h.mu.Unlock()
	for name, form := range h.forms {
		if bytes.Contains(content, form) {
			h.tb.Errorf("%s: found in %s", name, where)
		}
	}
}

// Looked is how many texts and files were looked at, so that a test can tell
// that it looked at all.
func (h *Hunt) Looked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// Watch adds folders to those that [Hunt.Files] looks through; the named files
// are where the secrets come from.
func (h *Hunt) Watch(folders []string, sources ...string) {
	h.files = append(h.files, folders...)
	for _, name := range sources {
		h.skip[name] = true
	}
}

// largest is the largest file that is looked at, in bytes.
const largest = 64 << 20

// Files looks through every file of the watched folders, and at their names.
func (h *Hunt) Files() {
	h.tb.Helper()
	for _, folder := range h.files {
		err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || h.skip[name] {
				return nil //nolint:nilerr // what vanishes meanwhile holds nothing
			}
			h.Text("the name of a file", name)
			if entry.Type()&fs.ModeSymlink != 0 {
				if target, err := os.Readlink(name); err == nil {
					h.Text("the link "+name, target)
				}
			}
			info, err := entry.Info()
			if err != nil || !info.Mode().IsRegular() || info.Size() > largest {
				return nil //nolint:nilerr // as above
			}
			if content, err := os.ReadFile(name); err == nil { //nolint:gosec // what is swapped meanwhile is looked at the next time
				h.bytes(name, content)
			}
			return nil
		})
		if err != nil {
			h.tb.Error(err)
		}
	}
}

// Runner looks at every command on its way to another runner, and through the
// watched files before and after.
func (h *Hunt) Runner(base run.Runner) run.Runner { return &runner{hunt: h, base: base} }

type runner struct {
	hunt *Hunt
	base run.Runner
}

// Run implements [run.Runner].
func (r *runner) Run(ctx context.Context, c run.Command) (run.Result, error) {
	h := r.hunt
	h.tb.Helper()
	h.Text("a command line", c.String())
	for _, text := range append([]string{c.Dir, strings.Join(c.Args, "\x00")}, c.Env...) {
		h.Text("the arguments or the environment of "+c.Program, text)
	}
	h.Text("the environment", strings.Join(os.Environ(), "\n"))
	if len(c.Stdin) > 0 && !c.Secret {
		h.Text("a standard input of "+c.Program+" that is not marked secret", string(c.Stdin))
	}
	// What a recorder of tests would remember of the command.
	recorder := &run.Recorder{}
	recorder.On(c.Program)
	_, _ = recorder.Run(ctx, c)
	for _, call := range recorder.Calls() {
		h.Text("a recorder", fmt.Sprintf("%+v %#v %q", call, call.Command, call.Command.Stdin))
	}
	h.Files()
	result, err := r.base.Run(ctx, c)
	h.Files()
	h.Text("the standard output of "+c.Program, string(result.Stdout))
	h.Text("the end of the output of "+c.Program, result.Tail)
	if err != nil {
		h.Text("an error", fmt.Sprintf("%v %+v %#v", err, err, err))
	}
	return result, err
}
