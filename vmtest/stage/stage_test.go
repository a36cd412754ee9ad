package stage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// Whoever wants a stage at once waits for the one who makes it; nobody makes it
// anew under the feet of one who takes from it.
func TestUseAtOnce(t *testing.T) {
	store := Store{Dir: t.TempDir(), Run: "run 1"}
	var made, users atomic.Int32
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			// Two kinds of users, each of which wants it made from something else.
			input := string(rune('a' + i%2))
			s := Stage{Name: "x", Inputs: []string{input}, Make: func(_ context.Context, dir, _ string) error {
				made.Add(1)
				return os.WriteFile(filepath.Join(dir, "content"), []byte(input), 0o600)
			}}
			err := store.Use(t.Context(), s, func(dir string) error {
				defer users.Add(-1)
				if n := users.Add(1); n != 1 {
					t.Errorf("%d use the stage at once", n)
				}
				got, err := os.ReadFile(filepath.Join(dir, "content"))
				if string(got) != input {
					t.Errorf("content = %q (%v), want %q", got, err, input)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := made.Load(); n < 2 || n > 8 {
		t.Errorf("made %d times for two kinds of users", n)
	}
	failure := errors.New("no room")
	if err := store.Use(t.Context(), Stage{Name: "x", Inputs: []string{"a"}, Make: func(context.Context, string, string) error { return nil }},
		func(string) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Use = %v, want the user's error", err)
	}
}

// What a stage comes after is locked while it is made, and free after that.
func TestMakeLocksBefore(t *testing.T) {
	store := Store{Dir: t.TempDir(), Run: "run 1"}
	first := Stage{Name: "first", Make: func(context.Context, string, string) error { return nil }}
	if _, err := store.Ensure(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	_, err := store.Ensure(t.Context(), Stage{Name: "second", After: "first", Make: func(ctx context.Context, _, _ string) error {
		soon, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := store.Ensure(soon, first); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ensure of what is being made from = %v, want to wait", err)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Ensure(t.Context(), first); err != nil {
		t.Errorf("Ensure after that = %v", err)
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
	if _, err := Open(t.Context(), dir, func(name string) string { return map[string]string{FromVariable: "bootd"}[name] }); !errors.Is(err, ErrUnknown) {
		t.Errorf("Open with a %s that is not there = %v, want ErrUnknown", FromVariable, err)
	}
	both := map[string]string{FromVariable: "x", CleanAllVariable: "1"}
	if _, err := Open(t.Context(), dir, func(name string) string { return both[name] }); err == nil {
		t.Errorf("Open with %s and %s = nil, want an error", FromVariable, CleanAllVariable)
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
