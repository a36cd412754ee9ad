package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"nixos-go/pkg/run"
)

// A session tries the crash points of one recording.
type session struct {
	runner    *Runner
	scenario  *Scenario
	recording *Recording
	checker   Checker
}

func (s *session) close() error { return s.recording.Close() }

// tryAll tries points in parallel and adds them to a tally and, where they
// fail, to the result.
func (s *session) tryAll(ctx context.Context, points []Point, tally map[Kind]Tally, result *Result) error {
	var mu sync.Mutex
	next := 0
	take := func() (Point, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(points) || ctx.Err() != nil {
			return Point{}, false
		}
		next++
		return points[next-1], true
	}
	count := func(p Point, failure *Failure) {
		mu.Lock()
		defer mu.Unlock()
		t := tally[p.Kind]
		t.Tried++
		if failure != nil {
			t.Failed++
			result.Failures = append(result.Failures, *failure)
		}
		tally[p.Kind] = t
	}
	earlier := len(result.Failures)
	n := max(s.runner.Workers, 1)
	errs := make([]error, n+1)
	var workers sync.WaitGroup
	for i := range n {
		workers.Go(func() { errs[i] = s.work(ctx, take, count) })
	}
	workers.Wait()
	errs[n] = context.Cause(ctx)
	// Workers finish in any order; the report has the order of the log.
	slices.SortStableFunc(result.Failures[earlier:], func(a, b Failure) int {
		return slices.IndexFunc(points, named(a.Point)) - slices.IndexFunc(points, named(b.Point))
	})
	return errors.Join(errs...)
}

func named(name string) func(Point) bool { return func(p Point) bool { return p.String() == name } }

// work tries points until there are none, on an image of its own.
func (s *session) work(ctx context.Context, take func() (Point, bool), count func(Point, *Failure)) (err error) {
	image, err := os.CreateTemp(s.recording.Dir, "disk-*.img")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close(), os.Remove(image.Name())) }()
	for p, more := take(); more; p, more = take() {
		failure, err := s.try(ctx, image, p)
		if err != nil {
			return err
		}
		count(p, failure)
	}
	return nil
}

// try tries one point. Its errors are the harness's own.
func (s *session) try(ctx context.Context, image *os.File, p Point) (*Failure, error) {
	phase, failed := s.checkInTime(ctx, image, p)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var own *harnessError
	if failed == nil || errors.As(failed, &own) {
		return nil, failed
	}
	failure := &Failure{
		Scenario: s.scenario.Name,
		Point:    p.String(),
		Phase:    phase,
		Error:    failed.Error(),
		Image:    filepath.Join(s.recording.Dir, fileName(p)+".img"),
	}
	if s.runner.Repeat != nil {
		failure.Repeat = s.runner.Repeat(s.scenario, s.recording.Dir, p)
	}
	kept, err := os.Create(failure.Image)
	if err != nil {
		return nil, err
	}
	return failure, errors.Join(s.recording.Image(kept, p), kept.Close())
}

// fileName is the name of a point as part of a file name.
func fileName(p Point) string { return strings.NewReplacer(":", "-", "/", "-").Replace(p.String()) }

// harnessError is a failure to try a point, as opposed to one of the scenario.
type harnessError struct{ err error }

func (e *harnessError) Error() string { return e.err.Error() }
func (e *harnessError) Unwrap() error { return e.err }

// pointPatience is how long a point may take: seconds on a slow machine, so a run
// that takes longer hangs.
const pointPatience = 5 * time.Minute

func (s *session) checkInTime(ctx context.Context, image *os.File, p Point) (Phase, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pointPatience, fmt.Errorf("it hangs: stopped after %v", pointPatience))
	defer cancel()
	return s.check(ctx, image, p)
}

// check tries one point: cut, check, next run, check, one more run, check. It
// says in which phase something did not hold.
func (s *session) check(ctx context.Context, image *os.File, p Point) (Phase, error) {
	cut := func() error {
		if err := s.recording.mountable(image, p); err != nil {
			return &harnessError{err}
		}
		return nil
	}
	if err := cut(); err != nil {
		return Crashed, err
	}
	if err := s.checkDisk(ctx, image, Crashed); err != nil {
		return Crashed, err
	}
	// The next boot finds the disk as the cut left it, not as the check did.
	if err := cut(); err != nil {
		return Crashed, err
	}
	for _, phase := range []Phase{Recovered, Settled} {
		if err := s.runAgain(ctx, image); err != nil {
			return phase, err
		}
		if err := s.checkDisk(ctx, image, phase); err != nil {
			return phase, err
		}
	}
	return Settled, nil
}

// checkDisk checks the file system of an image, mounts it, and asks the checker.
func (s *session) checkDisk(ctx context.Context, image *os.File, phase Phase) error {
	// --force: else it looks at every mounted device of the machine, to see whether this
	// image is one, and fails where one of them goes meanwhile.
	if _, err := s.runner.Run.Run(ctx, run.New("btrfs", "check", "--readonly", "--check-data-csum", "--force", image.Name())); err != nil {
		return err
	}
	return withImage(image.Name(), func(mount string) error {
		if err := s.checker.Check(ctx, mount, phase); err != nil {
			return &mountError{mount, err}
		}
		return nil
	})
}

// mountError is an error about files below a mount that is gone when somebody
// reads it: paths are shown as they are in the file system.
type mountError struct {
	mount string
	err   error
}

func (e *mountError) Error() string { return strings.ReplaceAll(e.err.Error(), e.mount, "") }
func (e *mountError) Unwrap() error { return e.err }

// cutTwice takes flushes among the points as the start of a recording of the
// next run, and cuts that too.
func (s *session) cutTwice(ctx context.Context, points []Point, result *Result) error {
	// Where one cut is not survived there is nothing to learn from a second.
	firsts := slices.DeleteFunc(slices.Clone(points), func(p Point) bool {
		failed := slices.ContainsFunc(result.Failures, func(f Failure) bool { return f.Point == p.String() })
		return p.Kind != Flush || failed
	})
	for _, p := range s.runner.Select.sampleOf(firsts, s.runner.Select.Firsts) {
		if err := s.cutAgainAfter(ctx, p, result); err != nil {
			return fmt.Errorf("cut twice, first at %v: %w", p, err)
		}
	}
	return nil
}

func (s *session) cutAgainAfter(ctx context.Context, p Point, result *Result) (err error) {
	dir := filepath.Join(s.recording.Dir, fileName(p))
	base, err := os.CreateTemp(s.recording.Dir, "base-*.img")
	if err != nil {
		return err
	}
	err = s.recording.mountable(base, p)
	if err == nil {
		err = recordAt(ctx, dir, base.Name(), s.scenario.again())
	}
	if err := errors.Join(err, base.Close(), os.Remove(base.Name())); err != nil {
		return err
	}
	recording, err := OpenRecording(dir)
	if err != nil {
		return err
	}
	failed := len(result.Failures)
	second := &session{runner: s.runner, scenario: s.scenario, recording: recording, checker: s.checker}
	err = second.tryAll(ctx, s.runner.Select.Select(recording.Log, s.scenario.Dense), result.Twice, result)
	err = errors.Join(err, second.close())
	if err == nil && len(result.Failures) == failed {
		err = os.RemoveAll(dir)
	}
	return err
}
