package install

import (
	"context"
	"errors"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
)

// cleanTaken tells of the CLEAN of one volume.
type cleanTaken struct {
	// Volume is the volume's name.
	Volume string `json:"volume"`
	// LeftOut is how many top-most kept paths were left out of CLEAN.
	LeftOut int `json:"leftOut"`
	// Replaced says that there was a CLEAN before.
	Replaced bool `json:"replaced"`
}

// cleaner takes CLEAN of every volume of a plan.
type cleaner func(ctx context.Context, plan *reset.PlanFile) ([]cleanTaken, error)

// takeClean takes CLEAN on the plan's device. A step that is repeated takes the
// place of what it did before.
func takeClean(ctx context.Context, plan *reset.PlanFile) (taken []cleanTaken, err error) {
	top, err := btrfs.Mount(plan.Device, btrfs.MountOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	names := make([]string, 0, len(plan.Volumes))
	for _, volume := range plan.Volumes {
		names = append(names, volume.Name)
	}
	cleans, err := reset.PrepareCleans(ctx, top, plan, names, reset.CleanOptions{First: true, Again: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cleans.Close()) }()
	if err := cleans.PutInPlace(ctx); err != nil {
		return nil, err
	}
	for _, made := range cleans.Volumes {
		taken = append(taken, cleanTaken{Volume: made.Name, LeftOut: len(made.Kept), Replaced: made.Replaces})
	}
	return taken, nil
}
