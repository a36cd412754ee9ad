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

// A Runner cuts the power of scenarios.
type Runner struct {
	Select  Selection
	Workers int    // how many points at a time; 0 is one
	Dir     string // for images and recordings; the best place is a tmpfs
	// Run runs mkfs.btrfs and btrfs check.
	Run run.Runner
	// Repeat is the command that replays a point of a recording, for failures.
	Repeat func(scenario *Scenario, recording string, p Point) string
}

// Cut records a scenario and tries the crash points that the runner selects.
// An error says that this was not possible; what did not hold at a crash point
// is part of the result. The recording stays below Dir if, and only if, a point
// failed.
func (r *Runner) Cut(ctx context.Context, s *Scenario) (*Result, error) {
	result, err := r.cut(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	return result, nil
}

func (r *Runner) cut(ctx context.Context, s *Scenario) (_ *Result, err error) {
	started := time.Now()
	dir, err := os.MkdirTemp(r.Dir, s.Name+"-")
	if err != nil {
		return nil, err
	}
	result := &Result{Scenario: s.Name, Mode: s.Mode, Points: map[Kind]Tally{}}
	defer func() {
		if err == nil && len(result.Failures) == 0 {
			err = os.RemoveAll(dir)
		}
	}()
	session, err := r.record(ctx, s, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.close()) }()
	result.Log = session.recording.Log.Count()
	points := r.Select.Select(session.recording.Log, s.Dense)
	if err := session.tryAll(ctx, points, result.Points, result); err != nil {
		return nil, err
	}
	if s.CutTwice {
		result.Twice = map[Kind]Tally{}
		if err := session.cutTwice(ctx, points, result); err != nil {
			return nil, err
		}
	}
	result.Seconds = time.Since(started).Seconds()
	return result, nil
}

// record makes the disk of a scenario, runs its program and learns from both
// what must hold.
func (r *Runner) record(ctx context.Context, s *Scenario, dir string) (*session, error) {
	base := filepath.Join(dir, "base.img")
	if err := r.makeDisk(ctx, s, base); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	recording := filepath.Join(dir, "recording")
	if err := recordAt(ctx, recording, base, s.Run); err != nil {
		return nil, err
	}
	if err := os.Remove(base); err != nil { // the recording has its copy
		return nil, err
	}
	return r.open(ctx, s, recording)
}

// recordAt records a program in a new folder and checks the recording.
func recordAt(ctx context.Context, dir, base string, program func(context.Context, string) error) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := Record(ctx, dir, base, program); err != nil {
		return fmt.Errorf("run without a cut: %w", err)
	}
	recording, err := OpenRecording(dir)
	if err != nil {
		return err
	}
	return errors.Join(recording.Verify(), recording.Close())
}

func (r *Runner) makeDisk(ctx context.Context, s *Scenario, image string) error {
	size := s.Size
	if size == 0 {
		size = DefaultSize
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	// What does not depend on it is left to the defaults, which change with
	// btrfs-progs: they are what a fresh installation has.
	if _, err := r.Run.Run(ctx, run.New("mkfs.btrfs", "--quiet", "--nodiscard", image)); err != nil {
		return err
	}
	return withDevice(ctx, image, func(device string) error { return s.Prepare(ctx, device) })
}

// open opens a recording and lets a new checker learn from it, or, when it is of
// the run after a first cut, from the recording of the first run, in whose
// folder it then is.
func (r *Runner) open(ctx context.Context, s *Scenario, dir string) (*session, error) {
	recording, err := OpenRecording(dir)
	if err != nil {
		return nil, err
	}
	session := &session{runner: r, scenario: s, recording: recording, checker: s.Checker()}
	first := filepath.Dir(filepath.Clean(dir))
	if _, missing := os.Stat(filepath.Join(first, baseName)); missing != nil {
		err = session.learn(ctx, recording)
	} else {
		err = session.learnFrom(ctx, first)
	}
	if err != nil {
		return nil, errors.Join(err, recording.Close())
	}
	return session, nil
}

func (s *session) learnFrom(ctx context.Context, dir string) error {
	recording, err := OpenRecording(dir)
	if err != nil {
		return err
	}
	return errors.Join(s.learn(ctx, recording), recording.Close())
}

// learn shows the checker the disk before and after a recorded run, and what
// further runs, not cut off either, make of both.
func (s *session) learn(ctx context.Context, recording *Recording) (err error) {
	image, err := os.CreateTemp(recording.Dir, "learn-*.img")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close(), os.Remove(image.Name())) }()
	for _, from := range []struct {
		point Point
		phase Phase
	}{{Point{Kind: Start}, Before}, {recording.last(), Done}} {
		if err := s.show(ctx, recording, image, from.point, from.phase); err != nil {
			return fmt.Errorf("%s: %w", from.phase, err)
		}
	}
	for _, from := range []Point{{Kind: Start}, recording.last()} {
		if err := recording.Image(image, from); err != nil {
			return err
		}
		for _, phase := range []Phase{MayRecover, MaySettle} {
			if err := s.runAgain(ctx, image); err != nil {
				return fmt.Errorf("next run, without a cut: %w", err)
			}
			if err := s.checkDisk(ctx, image, phase); err != nil {
				return fmt.Errorf("%s: %w", phase, err)
			}
		}
	}
	return nil
}

// show shows the checker the disk at a point.
func (s *session) show(ctx context.Context, recording *Recording, image *os.File, p Point, phase Phase) error {
	if err := recording.Image(image, p); err != nil {
		return err
	}
	return s.checkDisk(ctx, image, phase)
}

// runAgain is the next boot of an image.
func (s *session) runAgain(ctx context.Context, image *os.File) error {
	return withDevice(ctx, image.Name(), func(device string) error { return s.scenario.again()(ctx, device) })
}

// Try tries one point of a recording that a failure left, and reports what does
// not hold, or nil.
func (r *Runner) Try(ctx context.Context, s *Scenario, dir string, p Point) (_ *Failure, err error) {
	session, err := r.open(ctx, s, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.close()) }()
	image, err := os.CreateTemp(dir, "disk-*.img")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, image.Close(), os.Remove(image.Name())) }()
	return session.try(ctx, image, p)
}

// A session tries the crash points of one recording.
type session struct {
	runner    *Runner
	scenario  *Scenario
	recording *Recording
	checker   Checker
}

func (s *session) close() error { return s.recording.Close() }

// workers is how many points can be tried at a time. All images of a recording
// have the same file system id, and only since Linux 6.7 can the kernel have two
// such mounted.
func (s *session) workers() int {
	if _, err := os.Stat("/sys/fs/btrfs/features/temp_fsid"); err != nil {
		return 1
	}
	return max(s.runner.Workers, 1)
}

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
	n := s.workers()
	errs := make([]error, n+1)
	var workers sync.WaitGroup
	for i := range n {
		workers.Go(func() { errs[i] = s.work(ctx, take, count) })
	}
	workers.Wait()
	errs[n] = context.Cause(ctx)
	// Workers finish in any order; the report has the order of the log.
	slices.SortStableFunc(result.Failures, func(a, b Failure) int {
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
	phase, failed := s.check(ctx, image, p)
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

// check tries one point: cut, check, next run, check, one more run, check. It
// says in which phase something did not hold.
func (s *session) check(ctx context.Context, image *os.File, p Point) (Phase, error) {
	cut := func() error {
		if err := s.recording.Image(image, p); err != nil {
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
	return withImage(ctx, image.Name(), func(mount string) error {
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
	err = s.recording.Image(base, p)
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
