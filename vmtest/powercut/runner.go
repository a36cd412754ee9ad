package powercut

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	return withDevice(image, func(device string) error { return s.Prepare(ctx, device) })
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
		if err := recording.mountable(image, from); err != nil {
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
	if err := recording.mountable(image, p); err != nil {
		return err
	}
	return s.checkDisk(ctx, image, phase)
}

// runAgain is the next boot of an image.
func (s *session) runAgain(ctx context.Context, image *os.File) error {
	return withDevice(image.Name(), func(device string) error { return s.scenario.again()(ctx, device) })
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
