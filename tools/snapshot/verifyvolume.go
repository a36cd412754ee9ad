package snapshot

import (
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
)

// checkVolumes asks the reset what it would do with the volumes, as if they were not
// mounted, and looks at what it takes for granted.
func (v *verifier) checkVolumes(ctx context.Context, names []string) {
	report, err := reset.Run(v.top, v.plan, reset.Options{Mode: reset.ModeReset, DryRun: true, MountInfo: os.DevNull})
	if err != nil {
		v.failf("reset", "", "", "%v", err)
		return
	}
	results := map[string]*reset.Result{}
	for i := range report.Volumes {
		results[report.Volumes[i].Name] = &report.Volumes[i]
	}
	for _, name := range names {
		v.checkReset(results[name])
		v.checkMounted(results[name])
		h, err := reset.ReadHistory(v.top, v.plan, name)
		if err != nil {
			continue // the reset said so
		}
		v.checkClean(ctx, h)
		v.checkHistory(h)
		v.checkSwap(h)
	}
}

// checkReset says what the next reset would do.
func (v *verifier) checkReset(r *reset.Result) {
	for _, w := range r.Warnings {
		v.warnf("reset", r.Name, "", "%s", w)
	}
	switch {
	case r.Outcome == reset.OutcomeFailed:
		v.failf("reset", r.Name, "", "%s", r.Error)
	case r.Outcome == reset.OutcomeUnchanged:
		v.okf("reset", r.Name, "nothing changed: the next boot leaves it alone")
	case r.Way == reset.WayFull:
		v.okf("reset", r.Name, "the next boot compares everything, which takes longer (it is the first, or CLEAN or the rules have changed): %s", toDo(r))
	default:
		v.okf("reset", r.Name, "the next boot compares only what changed: %s", toDo(r))
	}
}

func toDo(r *reset.Result) string {
	return fmt.Sprintf("%d to wipe, %d to change back, %d to bring back", r.Wiped, r.ChangedBack, r.BroughtBack)
}

// checkMounted looks whether the volume is mounted where the plan says.
func (v *verifier) checkMounted(r *reset.Result) {
	f, err := v.files.Open(r.MountPoint)
	if err != nil {
		v.warnf("mount", r.Name, "", "%v", err)
		return
	}
	defer f.Close()
	live, err := reset.IsLive(v.top, r.Name, f)
	switch {
	case err != nil:
		v.warnf("mount", r.Name, "", "%v", err)
	case live:
		v.okf("mount", r.Name, "mounted at %s", r.MountPoint)
	default:
		v.warnf("mount", r.Name, fmt.Sprintf("mount it with subvol=%s, or correct settings.disk.subvolumes", r.Name),
			"what is at %s is not it: what the reset works on is not what is used there", r.MountPoint)
	}
}

// checkClean looks at the factory state.
func (v *verifier) checkClean(ctx context.Context, h *reset.History) {
	clean := h.Snapshot(v.plan.Clean)
	if clean == nil {
		return // the reset said so
	}
	items, err := readMetadata(ctx, v.top, clean.Info.ID)
	switch {
	case err != nil:
		v.failf("clean", h.Name, "sudo btrfs scrub start -B on it, and nixos-snapshot rebase", "it cannot be read: %v", err)
	case !clean.Info.ReadOnly:
		v.warnf("clean", h.Name, "btrfs property set on it, with ro true", "it can be written to: what is changed there comes into the volume at the next boot")
	case !h.Worked:
		v.okf("clean", h.Name, "there, read-only and readable (%s); no boot has reset to it yet", plural(items, "item"))
	default:
		v.okf("clean", h.Name, "there, read-only and readable (%s)", plural(items, "item"))
	}
}

// readMetadata reads all items of a subvolume: the kernel verifies their checksums.
func readMetadata(ctx context.Context, top *os.File, id uint64) (items int64, err error) {
	key := btrfs.SearchKey{Tree: id, Max: btrfs.Key{ObjectID: ^uint64(0), Type: 255, Offset: ^uint64(0)}}
	err = btrfs.NewScanner(top).Search(key, func(btrfs.Item) error {
		items++
		return context.Cause(ctx)
	})
	return items, err
}

// checkHistory looks at the other snapshots.
func (v *verifier) checkHistory(h *reset.History) {
	aged := int64(0)
	var writable []string
	for i := range h.Snapshots {
		s := &h.Snapshots[i]
		switch roleOf(s, v.plan.Clean) {
		case rolePrevious, rolePenultimate, roleReplaced:
			if !s.Info.ReadOnly {
				writable = append(writable, s.Name)
			}
		case roleAged:
			aged++
		case roleClean, roleCurrent, roleNext, roleOldClean, roleOther:
		}
	}
	switch {
	case len(writable) == 1 && writable[0] == reset.NamePrevious && h.Linked:
		v.okf("history", h.Name, "%s becomes read-only with the cleanup after this boot", reset.NamePrevious)
	case len(writable) > 0:
		v.warnf("history", h.Name, "sudo nixos-snapshot gc", "%s can be written to: the cleanup after the boot has not run", strings.Join(writable, " and "))
	}
	for _, name := range h.Foreign {
		v.warnf("history", h.Name, "move it away", "%q among the snapshots is no subvolume", name)
	}
	switch {
	case aged > 0 && h.Trash:
		v.okf("cleanup", h.Name, "%s for gc, and so does what the last reset moved away", waiting(aged))
	case aged > 0:
		v.okf("cleanup", h.Name, "%s for gc", waiting(aged))
	case h.Trash:
		v.okf("cleanup", h.Name, "what the last reset moved away waits for gc")
	}
}

func waiting(n int64) string {
	if n == 1 {
		return "1 snapshot waits"
	}
	return plural(n, "snapshot") + " wait"
}

// checkSwap looks for a swap file in use: the kernel takes no snapshot of a volume that
// holds one.
func (v *verifier) checkSwap(h *reset.History) {
	for _, name := range swapFiles(v.files) {
		f, err := v.files.Open(name)
		if err != nil {
			continue
		}
		inVolume := v.isIn(f, h)
		f.Close()
		if inVolume {
			v.failf("swap", h.Name, "swapoff it, and give swap files a subvolume that is never reset",
				"%s is in use: if the next boot uses it before the reset, no snapshot can be taken", name)
		}
	}
}

// isIn reports whether an open file lies in a live volume.
func (v *verifier) isIn(f *os.File, h *reset.History) bool {
	if on, err := btrfs.IsBtrfs(f); err != nil || !on {
		return false
	}
	here, err := btrfs.ReadFilesystem(f)
	if err != nil {
		return false
	}
	there, err := btrfs.ReadFilesystem(v.top)
	if err != nil || here.ID != there.ID {
		return false
	}
	info, err := btrfs.ReadInfo(f)
	return err == nil && info.ID == h.Live.ID
}

// space tells how much is free, and how much there is, in bytes.
func space(f *os.File) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
