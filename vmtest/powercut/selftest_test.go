package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/run"
)

// The program of these tests replaces the subvolume live by a changed copy:
// snapshot, work, flushAll, exchange, sync. Its steps can be put in a wrong order.
//
//	top level
//	├── live      f00 … f39 say "old"
//	└── next      while it works: f00 … f39 say "new"
type swapStep string

const (
	takeSnapshot swapStep = "snapshot"
	work         swapStep = "work"
	workLive     swapStep = "work in live"
	flushAll     swapStep = "sync"
	exchange     swapStep = "exchange"
	renameAway   swapStep = "rename live to previous"
	renameIn     swapStep = "rename next to live"
	destroy      swapStep = "destroy"
	// commit is what the kernel does at any time on its own or for another
	// program: it ends the transaction without writing the files' data first.
	commit swapStep = "commit"
)

const swapFiles = 40

func swapContent(word string, i int) string {
	return strings.Repeat(fmt.Sprintf("%s %d\n", word, i), 600) // beyond what btrfs keeps inline
}

func writeAll(dir, word string) error {
	for i := range swapFiles {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%02d", i)), []byte(swapContent(word, i)), 0o600)
		if err != nil {
			return err
		}
	}
	return nil
}

// state says what a subvolume holds: old, new, or an error.
func state(dir string) (string, error) {
	word := ""
	for i := range swapFiles {
		name := fmt.Sprintf("f%02d", i)
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		first, _, _ := strings.Cut(string(text), " ")
		if word == "" {
			word = first
		}
		if first != word || string(text) != swapContent(word, i) {
			return "", fmt.Errorf("%s has %d bytes of %q, where another file is %q", name, len(text), first, word)
		}
	}
	return word, nil
}

func (s swapStep) do(top *os.File) error {
	dir := fmt.Sprintf("/proc/self/fd/%d", top.Fd())
	switch s {
	case takeSnapshot:
		live, err := os.Open(filepath.Join(dir, "live"))
		if err != nil {
			return err
		}
		return errors.Join(btrfs.Snapshot(live, top, "next", false), live.Close())
	case work:
		return writeAll(filepath.Join(dir, "next"), "new")
	case workLive:
		return writeAll(filepath.Join(dir, "live"), "new")
	case flushAll:
		return btrfs.Sync(top)
	case exchange:
		return unix.Renameat2(int(top.Fd()), "live", int(top.Fd()), "next", unix.RENAME_EXCHANGE)
	case renameAway:
		return unix.Renameat(int(top.Fd()), "live", int(top.Fd()), "previous")
	case renameIn:
		return unix.Renameat(int(top.Fd()), "next", int(top.Fd()), "live")
	case destroy:
		return btrfs.Destroy(top, "next")
	case commit:
		return Commit(top)
	}
	return errors.ErrUnsupported
}

func swap(steps ...swapStep) func(context.Context, string) error {
	return func(_ context.Context, device string) (err error) {
		top, err := btrfs.Mount(device, btrfs.MountOptions{})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, top.Close()) }()
		for _, step := range steps {
			if err := step.do(top); err != nil {
				return fmt.Errorf("%s: %w", step, err)
			}
		}
		return nil
	}
}

// recoverSwap is the next boot: what was left half done is thrown away, then
// the work is done again if it is not done.
func recoverSwap(ctx context.Context, device string) error {
	var done bool
	err := WithMount(device, func(mount string) error {
		word, err := state(filepath.Join(mount, "live"))
		done = word == "new"
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(mount, "next")); err != nil {
			return nil //nolint:nilerr // nothing was left half done
		}
		top, err := os.Open(mount)
		if err != nil {
			return err
		}
		return errors.Join(btrfs.Destroy(top, "next"), btrfs.Sync(top), top.Close())
	})
	if err != nil || done {
		return err
	}
	return swap(takeSnapshot, work, flushAll, exchange, flushAll, destroy, flushAll)(ctx, device)
}

func checkSwap(_ context.Context, mount string, phase Phase) error {
	word, err := state(filepath.Join(mount, "live"))
	if err != nil {
		return err
	}
	switch phase {
	case Crashed: // old or new
		return nil
	case Before:
		if word != "old" {
			return fmt.Errorf("live is %s, want old", word)
		}
		return nil
	case Done, MayRecover, MaySettle, Recovered, Settled:
	}
	if word != "new" {
		return fmt.Errorf("live is %s, want new", word)
	}
	if phase == Recovered || phase == Settled {
		if _, err := os.Stat(filepath.Join(mount, "next")); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("next is left: %w", err)
		}
	}
	return nil
}

func swapScenario(steps ...swapStep) *Scenario {
	return &Scenario{
		Name: "swap",
		Mode: "self-test",
		Prepare: func(_ context.Context, device string) error {
			return WithMount(device, func(mount string) error {
				top, err := os.Open(mount)
				if err != nil {
					return err
				}
				return errors.Join(btrfs.Create(top, "live"), writeAll(filepath.Join(mount, "live"), "old"), top.Close())
			})
		},
		Run:     swap(steps...),
		Again:   recoverSwap,
		Checker: func() Checker { return CheckFunc(checkSwap) },
	}
}

func newRunner(t *testing.T, selection Selection) *Runner {
	t.Helper()
	dir, err := os.MkdirTemp(WorkDir(), "powercut-test-") //nolint:usetesting // on a tmpfs
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &Runner{Select: selection, Workers: 2, Dir: dir, Run: &run.Local{}}
}

func TestRightOrderHolds(t *testing.T) {
	needRecorder(t)
	s := swapScenario(takeSnapshot, work, flushAll, exchange, commit, flushAll, destroy, flushAll)
	s.CutTwice = true
	r := newRunner(t, Selection{Flushes: true, Writes: true, Subsets: 3, Sample: 20, Firsts: 3})
	result, err := r.Cut(t.Context(), s)
	if err != nil {
		t.Fatalf("Cut = %v", err)
	}
	for _, f := range result.Failures {
		t.Errorf("point %s, %s: %s", f.Point, f.Phase, f.Error)
	}
	if result.Points[Flush].Tried < 6 || result.Points[Subset].Tried == 0 || result.Twice[Flush].Tried < 12 {
		t.Errorf("Cut tried %+v and twice %+v, want some of each", result.Points, result.Twice)
	}
	left, err := os.ReadDir(r.Dir)
	if err != nil || len(left) != 0 {
		t.Errorf("Cut left %v, %v, want nothing where nothing failed", left, err)
	}
}

// cutUntilCaught records a wrong order until a crash point shows it. Once is
// enough, unless something else on the machine calls sync(2) just then, which
// writes the data that the wrong order has not yet written.
func cutUntilCaught(t *testing.T, r *Runner, s *Scenario) *Result {
	t.Helper()
	const tries = 5
	tried := 0
	for range tries {
		result, err := r.Cut(t.Context(), s)
		if err != nil {
			t.Fatalf("Cut = %v", err)
		}
		if result.Failed() > 0 {
			return result
		}
		tried += result.Tried()
	}
	t.Fatalf("Cut tried %d points in %d recordings and found nothing", tried, tries)
	return nil
}

// repeatFailure tries a failed point again from the recording that it left, and
// mounts the image that it left.
func repeatFailure(t *testing.T, r *Runner, s *Scenario, failure Failure) {
	t.Helper()
	p, err := ParsePoint(failure.Point)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Try(t.Context(), s, filepath.Dir(failure.Image), p)
	if err != nil || again == nil || again.Error != failure.Error {
		t.Errorf("Try(%v) = %+v, %v, want the same failure: %s", p, again, err, failure.Error)
	}
	err = withImage(failure.Image, func(mount string) error {
		return checkSwap(t.Context(), mount, Crashed)
	})
	if err == nil {
		t.Errorf("check of the image that was left = nil, want %s", failure.Error)
	}
}

func TestWrongOrdersAreCaught(t *testing.T) {
	needRecorder(t)
	tests := []struct {
		name  string
		steps []swapStep
	}{
		{"exchange before sync", []swapStep{takeSnapshot, work, exchange, commit, flushAll}},
		{"exchange before work", []swapStep{takeSnapshot, exchange, workLive, commit, flushAll}},
		{"sync before work", []swapStep{takeSnapshot, flushAll, work, exchange, commit, flushAll}},
		{"two renames", []swapStep{takeSnapshot, work, flushAll, renameAway, commit, renameIn, flushAll}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRunner(t, Selection{Flushes: true})
			s := swapScenario(tt.steps...)
			result := cutUntilCaught(t, r, s)
			failure := result.Failures[0]
			t.Logf("%d of %d points fail, first %s, %s: %s", result.Failed(), result.Tried(), failure.Point, failure.Phase, failure.Error)
			repeatFailure(t, r, s, failure)
		})
	}
}
