package reset

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// PreviewOptions says what a preview compares.
type PreviewOptions struct {
	// Volumes are the names of the plan's volumes to look at; none means all.
	Volumes []string
	// SinceBoot compares with CURRENT, the state that the last reset left, instead
	// of CLEAN.
	SinceBoot bool
	// Kept asks the opposite question: what changed in the kept paths, which no
	// reset touches.
	Kept bool
	// NoPlan opens the trees alone.
	NoPlan bool
}

// VolumePreview is what the next reset would change in one volume, and the two trees
// that say so, for a closer look. It is for one goroutine.
type VolumePreview struct {
	Volume   PlanFileVolume
	Plan     *Plan // nil with Err, or if none was asked for
	Warnings []string
	// Err says why the next reset would leave the volume as it is.
	Err error

	// Live is the volume, Base what it is compared with.
	Live, Base *Side
	// UUID and Generation tell the live volume and the last transaction in it that
	// the preview is sure to have seen whole.
	UUID       string
	Generation uint64

	matcher matcher
}

// Kept reports whether a path of the volume is at or below a kept one.
func (p *VolumePreview) Kept(path string) bool { return p.matcher.Kept(path) }

// Close closes the trees.
func (p *VolumePreview) Close() {
	for _, s := range []*Side{p.Live, p.Base} {
		if s != nil {
			s.root.Close()
		}
	}
}

// Preview plans the next reset of the volumes of a plan and writes nothing. It is the
// planner of the reset, given the same trees, so what it lists is what the reset does.
// The volumes may be mounted and in use: top, the open top level of their file system
// (it may be mounted read-only), is synced first, and what changes meanwhile may or may
// not be in the plan. The error, which wraps ErrCheck, is of what would stop all
// volumes; what concerns one is in its VolumePreview. Each of these has to be closed.
func Preview(top *os.File, plan *PlanFile, options PreviewOptions) ([]*VolumePreview, error) {
	specs, err := selectVolumes(plan, options.Volumes)
	if err != nil {
		return nil, err
	}
	r := &run{top: top, plan: plan, options: Options{DryRun: true}}
	r.report.Mode = ModeReset
	if err := r.begin(specs); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCheck, err)
	}
	defer r.close()
	found := make([]*VolumePreview, len(r.volumes))
	tasks := make([]func() error, 0, len(r.volumes))
	for i, v := range r.volumes {
		found[i] = &VolumePreview{Volume: v.spec, Err: v.err}
		if v.err == nil {
			tasks = append(tasks, func() error {
				found[i].Err = v.compare(found[i], options)
				return nil
			})
		}
	}
	if len(tasks) > 0 {
		_ = together(tasks...) // each volume has its own error
	}
	for i, v := range r.volumes {
		found[i].Warnings = v.result.Warnings
	}
	return found, nil
}

func selectVolumes(plan *PlanFile, names []string) ([]PlanFileVolume, error) {
	if len(names) == 0 {
		return plan.Volumes, nil
	}
	var specs []PlanFileVolume
	for _, name := range names {
		i := slices.IndexFunc(plan.Volumes, func(v PlanFileVolume) bool { return v.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: no volume is named %q", ErrPlanFile, name)
		}
		specs = append(specs, plan.Volumes[i])
	}
	return specs, nil
}

// compare fills a preview.
func (v *volume) compare(p *VolumePreview, options PreviewOptions) error {
	live, err := v.openLive()
	if err != nil {
		return err
	}
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		live.Close()
		return err
	}
	p.Live, p.matcher = newSide(live, info.ID), keep.NewMatcher(v.rules...)
	p.UUID, p.Generation = info.UUID.String(), info.Generation
	clean, err := openDir(v.dir, v.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	cleanInfo, err := btrfs.ReadInfo(clean)
	if err != nil {
		return err
	}
	l, err := readLineage(v.dir, info, cleanInfo, v.record.Effective)
	if err != nil {
		return err
	}
	defer l.close()
	src, err := l.previewSources(live, clean, options)
	if err != nil {
		return err
	}
	if p.Base, err = reopenSide(src.Clean); err != nil || options.NoPlan {
		return err
	}
	p.Plan, err = v.planInUse(src, p.matcher, options.Kept)
	return err
}

// previewSources gives the trees that a preview compares.
func (l *lineage) previewSources(live, clean *os.File, options PreviewOptions) (Sources, error) {
	src := Sources{Live: live, Clean: clean}
	switch {
	case options.SinceBoot && l.current == nil:
		return src, fmt.Errorf("there is no %s of it to compare with: %w", NameCurrent, errNoReset)
	case options.SinceBoot && (options.Kept || l.sameState):
		src = l.sources(live, l.current)
		src.Current = l.current
	case options.SinceBoot:
		src = Sources{Live: live, Clean: l.current, NoStubs: true, Since: l.info.OTransID}
	case !options.Kept:
		src = l.sources(live, clean)
	}
	src.InUse = true
	return src, nil
}

var errNoReset = errors.New("no reset has made it what it was at the boot")

// maxAttempts bounds how often a plan of a volume in use is made.
const maxAttempts = 3

// planInUse makes the plan of a volume in which things may come and go meanwhile. A
// quick plan that met with such a thing is made again.
func (v *volume) planInUse(src Sources, m matcher, kept bool) (*Plan, error) {
	for attempt := 1; ; attempt++ {
		plan, err := makeEither(src, m, kept)
		again := isGone(err) || err == nil && plan.missed > 0 && plan.Way == WayChanged
		if again && attempt < maxAttempts {
			if err := btrfs.Sync(v.top); err != nil {
				return nil, err
			}
			continue
		}
		if err == nil {
			v.warnMissed(plan)
		}
		return plan, err
	}
}

// makeEither is apart from the dry run of a reset, so that the boot-time binary does
// not carry what it never calls.
func makeEither(src Sources, m matcher, kept bool) (*Plan, error) {
	if kept {
		return makeKeptPlan(src, m)
	}
	return MakePlan(src, m)
}
