package reset

import (
	"context"
	"os"
	"slices"

	"nixos-go/pkg/btrfs"
)

// prepareNext makes the CLEAN after the one that is there.
func (n *NewClean) prepareNext(ctx context.Context, live *os.File) error {
	var err error
	if n.source, err = n.snapshot("snapshot live", live, true); err != nil {
		return err
	}
	clean, err := openDir(n.work.dir, n.work.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	if n.made, err = n.snapshot("snapshot CLEAN", clean, false); err != nil {
		return err
	}
	made, source, err := n.open()
	if err != nil {
		return err
	}
	defer made.Close()
	defer source.Close()
	if n.Kept, err = prunedPaths(made, n.rules); err != nil {
		return err
	}
	if err := n.prune(ctx, made, n.rules); err != nil {
		return err
	}
	if err := btrfs.Sync(n.work.top); err != nil { // or the planner would not see it
		return err
	}
	return n.makePlans(made, source)
}

func (n *NewClean) open() (made, source *os.File, err error) {
	if made, err = openDir(n.work.dir, n.made); err != nil {
		return nil, nil, err
	}
	if source, err = openDir(n.work.dir, n.source); err != nil {
		made.Close()
		return nil, nil, err
	}
	return made, source, nil
}

// makePlans plans from what becomes the new CLEAN towards a snapshot of live.
func (n *NewClean) makePlans(made, source *os.File) error {
	var err error
	if n.planned, err = MakePlan(Sources{Live: made, Clean: source}, n.left); err != nil {
		return err
	}
	n.Changes = withNewSizes(n.planned.Changes)
	all, err := MakePlan(Sources{Live: made, Clean: source}, n.whole)
	if err != nil {
		return err
	}
	n.LeftOut = notAmong(all.Changes, n.Changes)
	inside, err := n.leftOutInside(source)
	if err != nil {
		return err
	}
	n.LeftOut = append(n.LeftOut, inside...)
	sortBy(n.LeftOut, comparePaths, func(c *Change) string { return c.Path })
	return nil
}

// withNewSizes gives changes with the sizes that files get, not those they have.
func withNewSizes(changes []Change) []Change {
	out := slices.Clone(changes)
	for i := range out {
		if c := &out[i]; c.Kind == KindModified && c.content != nil {
			c.Size = c.content.size
		}
	}
	return out
}

// leftOutInside tells of what is left out of directories that come into CLEAN: there it
// is no change of its own.
func (n *NewClean) leftOutInside(source *os.File) ([]Change, error) {
	paths, err := prunedPaths(source, n.left)
	if err != nil {
		return nil, err
	}
	var inside []string
	for _, path := range paths {
		if stateAt(n.whole, path).Kept() {
			continue
		}
		if slices.ContainsFunc(n.Changes, func(c Change) bool {
			return c.act&actCreate != 0 && path != c.Path && below(path, c.Path)
		}) {
			inside = append(inside, path)
		}
	}
	return n.leftOutOf(source, inside)
}

// notAmong gives the changes whose paths are not among others; both are in order.
func notAmong(changes, others []Change) []Change {
	var out []Change
	for _, c := range changes {
		for len(others) > 0 && comparePaths(others[0].Path, c.Path) < 0 {
			others = others[1:]
		}
		if len(others) == 0 || others[0].Path != c.Path {
			out = append(out, c)
		}
	}
	return out
}

// preview plans from the live volume.
func (n *NewClean) preview(live *os.File) error {
	clean, err := openDir(n.work.dir, n.work.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	if n.Kept, err = prunedPaths(clean, n.rules); err != nil {
		return err
	}
	return n.makePlans(clean, live)
}
