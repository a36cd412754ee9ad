package stage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// world counts what is made.
type world struct {
	t     *testing.T
	store Store
	made  []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, store: Store{Dir: t.TempDir(), Run: "run 1"}}
}

// reach goes through a chain of stages: first, second (made from it), third.
func (w *world) reach(input string) {
	w.t.Helper()
	for i, name := range []string{"first", "second", "third"} {
		s := Stage{Name: name, Inputs: []string{input}, Make: func(_ context.Context, dir, before string) error {
			w.made = append(w.made, name)
			var content []byte
			if before != "" {
				var err error
				if content, err = os.ReadFile(filepath.Join(before, "content")); err != nil {
					return err
				}
			}
			return os.WriteFile(filepath.Join(dir, "content"), append(content, name[0]), 0o600)
		}}
		if i > 0 {
			s.After, s.Inputs = []string{"first", "second"}[i-1], nil
		}
		dir, err := w.store.Ensure(w.t.Context(), s)
		if err != nil {
			w.t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "content")); err != nil || string(got) != "fst"[:i+1] {
			w.t.Errorf("content of %s = %q, %v", name, got, err)
		}
	}
}

func (w *world) want(what string, names ...string) {
	w.t.Helper()
	if diff := cmp.Diff(names, w.made); diff != "" {
		w.t.Errorf("%s: made (-want +got):\n%s", what, diff)
	}
	w.made = nil
}

func TestEnsure(t *testing.T) {
	w := newWorld(t)
	w.reach("a")
	w.want("at first", "first", "second", "third")
	w.reach("a")
	w.want("the same again")
	w.reach("b")
	w.want("another input", "first", "second", "third")

	w.store.Run, w.store.Clean = "run 2", true
	w.reach("b")
	w.want("VM_CLEAN", "first", "second", "third")
	w.reach("b")
	w.want("VM_CLEAN, further on in the same run")

	w.store = Store{Dir: w.store.Dir, Run: "run 3", From: "second"}
	w.reach("c")
	w.want("VM_FROM=second with another input", "third")
	w.reach("c")
	w.want("VM_FROM=second, further on in the same run")

	gone, err := w.store.RemoveFrom("second")
	if err != nil || !slices.Equal(gone, []string{"second", "third"}) {
		t.Errorf("RemoveFrom(second) = %v, %v", gone, err)
	}
	if _, err := w.store.RemoveFrom("second"); !errors.Is(err, ErrUnknown) {
		t.Errorf("RemoveFrom of what is gone = %v, want ErrUnknown", err)
	}
	if _, err := w.store.Ensure(t.Context(), Stage{Name: "second"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("Ensure of the VM_FROM that is not there = %v, want ErrUnknown", err)
	}
}

// A stage that was cut off is made anew.
func TestCutOff(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	broken := errors.New("broken")
	stage := Stage{Name: "x", Make: func(_ context.Context, dir, _ string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), broken)
	}}
	if _, err := s.Ensure(t.Context(), stage); !errors.Is(err, broken) {
		t.Fatalf("Ensure = %v, want the maker's error", err)
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("List = %v, %v, want nothing complete", all, err)
	}
	stage.Make = func(_ context.Context, dir, _ string) error {
		entries, err := os.ReadDir(dir)
		if len(entries) > 0 {
			t.Errorf("the folder to be filled holds %v", entries)
		}
		return err
	}
	if _, err := s.Ensure(t.Context(), stage); err != nil {
		t.Errorf("Ensure after a failure = %v", err)
	}
	for _, name := range []string{"", "../x", ".x", "a/b"} {
		if _, err := s.Ensure(t.Context(), Stage{Name: name}); err == nil {
			t.Errorf("Ensure(%q) = nil", name)
		}
	}
}

func TestCleanAll(t *testing.T) {
	dir, cache := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	fill := func() {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "x"), 0o755), os.MkdirAll(cache, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (n int) {
		for _, path := range []string{filepath.Join(dir, "x"), cache} {
			if _, err := os.Stat(path); err == nil {
				n++
			}
		}
		return n
	}
	open := func(variables map[string]string) Store {
		s, err := Open(t.Context(), dir, func(name string) string { return variables[name] }, cache)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	fill()
	if s := open(nil); s.Clean || there() != 2 {
		t.Errorf("without an order: Clean %v, %d of 2 left", s.Clean, there())
	}
	if s := open(map[string]string{CleanAllVariable: "1"}); !s.Clean || there() != 0 {
		t.Errorf("%s: Clean %v, %d of 2 left", CleanAllVariable, s.Clean, there())
	}
	fill()
	if open(map[string]string{CleanAllVariable: "1"}); there() != 2 {
		t.Errorf("%s twice in a run: %d of 2 left", CleanAllVariable, there())
	}
}
