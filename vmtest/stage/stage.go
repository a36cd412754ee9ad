// Package stage keeps states that take long to reach, so that the next test, or
// the next run of the same one, begins there.
//
// A stage is a folder .vm/checkpoints/NAME with whatever its maker puts into it, a
// checkpoint most often, and a file stage.json, which is written last: a folder
// without it was cut off and is made anew. A stage has a key, which is a digest of
// all that it was made from, and may come after another stage, whose key is then
// part of its own. One with another key is made anew.
//
// Three variables of the environment change that: VM_CLEAN=1 makes every stage
// anew that a run of the tests comes to; VM_CLEAN_ALL=1 does so after taking all
// stages and the cache away; VM_FROM=NAME takes the stage NAME, and those before
// it, as they are, whatever their keys say, and makes those after it anew.
package stage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/atomicfile"
)

// metaFile is written when a stage is complete.
const metaFile = "stage.json"

// The variables of the environment.
const (
	CleanVariable    = "VM_CLEAN"
	CleanAllVariable = "VM_CLEAN_ALL"
	FromVariable     = "VM_FROM"
)

// ErrUnknown says that there is no stage of a name.
var ErrUnknown = errors.New("no such stage")

// Meta is what a stage says of itself.
type Meta struct {
	Name  string `json:"name"`
	After string `json:"after,omitempty"`
	// Key is the digest of what it was made from.
	Key string `json:"key,omitempty"`
	// Run is the run of the tests that made it.
	Run string `json:"run,omitempty"`
	// Made is when, and Took is how long that was.
	Made time.Time     `json:"made"`
	Took time.Duration `json:"nanoseconds"`
}

// Stage is a state to be reached.
type Stage struct {
	// Name is a short name of letters, digits, dots and dashes.
	Name string
	// After is the stage that it is made from; empty is none.
	After string
	// Inputs are what it is made from otherwise: versions, digests, arguments.
	Inputs []string
	// Make fills a new, empty folder. before is the folder of the stage After, which
	// it must not ask the store for: both are locked meanwhile.
	Make func(ctx context.Context, dir, before string) error
}

// Store holds stages.
type Store struct {
	// Dir is its folder.
	Dir string
	// Clean makes what another run has made anew; From is a stage to take as it
	// is.
	Clean bool
	From  string
	// Run names this run.
	Run string
}

// Open is the store of a folder, under the orders of the environment. VM_CLEAN_ALL
// takes it away, and the further folders, once for each run.
func Open(ctx context.Context, dir string, getenv func(string) string, caches ...string) (Store, error) {
	s := Store{
		Dir: dir, From: getenv(FromVariable), Run: runName(),
		Clean: getenv(CleanVariable) == "1" || getenv(CleanAllVariable) == "1",
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s, err
	}
	if getenv(CleanAllVariable) != "1" {
		return s, s.checkFrom()
	}
	if s.From != "" {
		return s, fmt.Errorf("%s takes away the stage that %s=%s asks for", CleanAllVariable, FromVariable, s.From)
	}
	unlock, err := s.lock(ctx, ".all")
	if err != nil {
		return s, err
	}
	defer unlock()
	stamp := filepath.Join(dir, ".cleaned")
	if last, err := os.ReadFile(stamp); err == nil && string(last) == s.Run {
		return s, nil // by another package's tests of this very run
	}
	for _, cache := range caches {
		if err := os.RemoveAll(cache); err != nil {
			return s, err
		}
	}
	return s, errors.Join(s.RemoveAll(), os.WriteFile(stamp, []byte(s.Run), 0o600))
}

// checkFrom says that there is no stage to take as it is: a typing error would make
// everything anew, or nothing, without a word.
func (s Store) checkFrom() error {
	if s.From == "" {
		return nil
	}
	err := CheckName(s.From)
	if err == nil {
		_, err = s.Meta(s.From)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: %w", FromVariable, s.From, err)
	}
	return nil
}

// runName is the same for all processes that one `go test` has started: it is
// about the parent, its process id and when it began (proc_pid_stat(5), field 22).
func runName() string {
	parent := os.Getppid()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", parent))
	if err != nil {
		return strconv.Itoa(parent)
	}
	// The second field, the program's name in parentheses, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const startTime = 22 - 3
	if len(fields) <= startTime {
		return strconv.Itoa(parent)
	}
	return fmt.Sprintf("%d-%s", parent, fields[startTime])
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)

// CheckName says what is wrong with a name.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("stage %q: a name has letters, digits, dots and dashes", name)
	}
	return nil
}

// Path is the folder of a stage.
func (s Store) Path(name string) string { return filepath.Join(s.Dir, name) }

// lock keeps other processes from a stage while it is made.
func (s Store) lock(ctx context.Context, name string) (unlock func(), err error) {
	path := filepath.Join(s.Dir, "."+strings.TrimPrefix(name, ".")+".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for stage %s: %w", name, context.Cause(ctx)), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Ensure gives the folder of a stage, which is made where there is none, or where
// it was made from something else.
func (s Store) Ensure(ctx context.Context, stage Stage) (dir string, err error) {
	return s.Path(stage.Name), s.Use(ctx, stage, func(string) error { return nil })
}

// Use does the same, and takes from the folder what use needs before another
// process, or another test of this one, can make it anew.
func (s Store) Use(ctx context.Context, stage Stage, use func(dir string) error) error {
	if err := CheckName(stage.Name); err != nil {
		return err
	}
	unlock, err := s.lock(ctx, stage.Name)
	if err != nil {
		return err
	}
	defer unlock()
	meta := Meta{Name: stage.Name, After: stage.After, Run: s.Run}
	before := ""
	inputs := slices.Clone(stage.Inputs)
	if stage.After != "" {
		parent, err := s.Meta(stage.After)
		if err != nil {
			return fmt.Errorf("stage %s comes after %s: %w", stage.Name, stage.After, err)
		}
		before = s.Path(stage.After)
		inputs = append(inputs, parent.Key, parent.Made.String())
	}
	meta.Key = digest(inputs)
	usable, err := s.usable(meta)
	if err == nil && !usable {
		err = s.make(ctx, stage, meta, before)
	}
	if err != nil {
		return err
	}
	return use(s.Path(stage.Name))
}

func digest(inputs []string) string {
	sum := sha256.New()
	for _, input := range inputs {
		fmt.Fprintf(sum, "%d:%s\n", len(input), input)
	}
	return hex.EncodeToString(sum.Sum(nil)[:12])
}

// usable tells whether the stage that is there will do.
func (s Store) usable(want Meta) (bool, error) {
	have, err := s.Meta(want.Name)
	if errors.Is(err, ErrUnknown) {
		if s.From == want.Name {
			return false, fmt.Errorf("%s=%s: %w", FromVariable, s.From, err)
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if s.From != "" {
		all, err := s.List()
		if err != nil {
			return false, err
		}
		switch {
		case want.Name == s.From || comesAfter(all, s.From, want.Name):
			return true, nil
		case comesAfter(all, want.Name, s.From):
			return have.Run == s.Run, nil
		}
	}
	if s.Clean && have.Run != s.Run {
		return false, nil
	}
	return have.Key == want.Key, nil
}

func (s Store) make(ctx context.Context, stage Stage, meta Meta, before string) error {
	if stage.After != "" {
		unlock, err := s.lock(ctx, stage.After) // it stays as it is meanwhile
		if err != nil {
			return err
		}
		defer unlock()
	}
	dir := s.Path(stage.Name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	start := time.Now()
	if err := stage.Make(ctx, dir, before); err != nil {
		return fmt.Errorf("stage %s: %w", stage.Name, err)
	}
	meta.Made, meta.Took = time.Now(), time.Since(start)
	return s.write(meta)
}

func (s Store) write(meta Meta) error {
	b, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(s.Path(meta.Name), metaFile), append(b, '\n'), 0o644)
}

// Meta is what a complete stage says of itself, [ErrUnknown] where there is none.
func (s Store) Meta(name string) (Meta, error) {
	var m Meta
	path := filepath.Join(s.Path(name), metaFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return m, fmt.Errorf("%w: %s", ErrUnknown, name)
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// List is every complete stage, the oldest first.
func (s Store) List() ([]Meta, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []Meta
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		m, err := s.Meta(entry.Name())
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Meta) int { return a.Made.Compare(b.Made) })
	return all, nil
}

// comesAfter tells whether the stage name was made from the stage before,
// directly or not.
func comesAfter(all []Meta, name, before string) bool {
	for range all { // at most so many steps, even where they form a ring
		i := slices.IndexFunc(all, func(m Meta) bool { return m.Name == name })
		if i < 0 || all[i].After == "" {
			return false
		}
		name = all[i].After
		if name == before {
			return true
		}
	}
	return false
}

// RemoveFrom takes a stage and all that come after it away, and names them.
func (s Store) RemoveFrom(name string) ([]string, error) {
	if _, err := s.Meta(name); err != nil {
		return nil, err
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, m := range all {
		if m.Name != name && !comesAfter(all, m.Name, name) {
			continue
		}
		if err := os.RemoveAll(s.Path(m.Name)); err != nil {
			return gone, err
		}
		gone = append(gone, m.Name)
	}
	return gone, nil
}

// RemoveAll takes every stage away, unfinished ones too.
func (s Store) RemoveAll() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := os.RemoveAll(s.Path(entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
