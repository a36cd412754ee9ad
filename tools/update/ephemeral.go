package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// losing is a path that holds data and that the new generation no longer
// keeps.
type losing struct {
	ui.Path

	// Whole says that a whole volume begins to be reset: the path is its mount
	// point.
	Whole bool `json:"wholeVolume"`
}

// findEphemeral compares what the present generations keep with what the new
// one keeps, on the files that are there.
func (s *session) findEphemeral(ctx context.Context, system string) error {
	if s.before.running == "" {
		return nil // no NixOS: nothing here is kept or wiped
	}
	after, err := settings.ReadPlan(s.env.Host.Files, path.Join(system, settings.PlanFile))
	if err != nil {
		return err
	}
	if after == nil || after.Mode == reset.ModeDisabled {
		return nil
	}
	var before []*reset.PlanFile
	for _, generation := range []string{settings.RunningSystem, settings.SystemProfile} {
		p, err := settings.ReadPlan(s.env.Host.Files, path.Join(generation, settings.PlanFile))
		if err != nil {
			s.env.UI.Warnf("what the present system keeps cannot be read: %v", err)
			continue
		}
		if p != nil {
			before = append(before, p)
		}
	}
	found, unreadable, err := ephemeral(ctx, s.env.Host.Files, before, after)
	if unreadable > 0 {
		s.env.UI.Warnf("%s could not be read: only root sees whether anything in it is no longer kept", ui.Count(int64(unreadable), "folder"))
	}
	s.report.Ephemeral = found
	return err
}

// ephemeral lists, top-most first, what is there and was kept by any of the
// plans before, and is not kept after; and counts the folders that this user
// may not look into.
func ephemeral(ctx context.Context, files run.Files, before []*reset.PlanFile, after *reset.PlanFile) (found []losing, unreadable int, err error) {
	w := walk{ctx: ctx, files: files, found: []losing{}}
	for _, volume := range after.Volumes {
		rules, err := volume.Rules()
		if err != nil {
			return nil, 0, err
		}
		old, err := rulesBefore(before, volume.MountPoint)
		if err != nil {
			return nil, 0, err
		}
		if len(old) == 0 {
			// The volume was never reset: all of it was kept.
			w.found = append(w.found, losing{ui.JSONPath(volume.MountPoint), true})
			continue
		}
		if err := w.visit(volume.MountPoint, keep.NewMatcher(old...).Root(), keep.NewMatcher(rules).Root()); err != nil {
			return nil, 0, err
		}
	}
	return w.found, w.unreadable, nil
}

// rulesBefore are the rules that the plans have for the volume that is mounted
// at a place.
func rulesBefore(plans []*reset.PlanFile, mountPoint string) ([]keep.Set, error) {
	var sets []keep.Set
	for _, plan := range plans {
		for _, v := range plan.Volumes {
			if v.MountPoint != mountPoint {
				continue
			}
			set, err := v.Rules()
			if err != nil {
				return nil, err
			}
			sets = append(sets, set)
		}
	}
	return sets, nil
}

type walk struct {
	ctx        context.Context
	files      run.Files
	found      []losing
	unreadable int
}

// visit looks into a directory that both rule sets say more about below.
func (w *walk) visit(dir string, before, after keep.State) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	entries, err := w.files.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		w.unreadable++
		return nil
	case err != nil:
		return err
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		was, will := before.Step(entry.Name()), after.Step(entry.Name())
		if w.isSafe(was, will) || w.isMountPoint(name) {
			continue
		}
		switch {
		case was.Kept() && !will.Kept() && !will.MayKeepBelow():
			// Nothing of it is kept any more.
			if w.holdsData(name, entry) {
				w.found = append(w.found, losing{ui.JSONPath(name), false})
			}
		case entry.IsDir():
			if err := w.visit(name, was, will); err != nil {
				return err
			}
		case was.Kept() && !will.Kept():
			w.found = append(w.found, losing{ui.JSONPath(name), false})
		}
	}
	return nil
}

// isSafe tells whether nothing here or below can be lost by the change.
func (*walk) isSafe(before, after keep.State) bool {
	nothingBefore := !before.Kept() && !before.MayKeepBelow()
	allAfter := after.Kept() && !after.MayWipeBelow()
	return nothingBefore || allAfter
}

// holdsData tells whether a path is more than an empty directory.
func (w *walk) holdsData(name string, entry fs.DirEntry) bool {
	if !entry.IsDir() {
		return true
	}
	entries, err := w.files.ReadDir(name)
	return err != nil || len(entries) > 0
}

// isMountPoint tells whether another file system begins here, which has rules
// of its own.
func (w *walk) isMountPoint(name string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, w.files.Path(name), unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// mostShown bounds how many paths the warning names.
const mostShown = 20

// warnEphemeral names what the next boot would wipe.
func (s *session) warnEphemeral() {
	var lines []string
	for _, l := range s.report.Ephemeral {
		name, err := l.Bytes()
		if err != nil {
			name = l.PathBase64
		}
		text := ui.Printable(name)
		if l.Whole {
			text += "  (the whole volume: it was not reset until now)"
		}
		lines = append(lines, text)
	}
	if more := len(lines) - mostShown; more > 0 {
		lines = append(lines[:mostShown], fmt.Sprintf("… and %d more (--json lists all)", more))
	}
	s.env.UI.Warnf("the new generation no longer keeps what is here; the next boot wipes it:\n%s", strings.Join(lines, "\n"))
}
