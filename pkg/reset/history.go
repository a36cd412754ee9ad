package reset

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// History is what there is of one volume.
type History struct {
	Name       string
	MountPoint string
	Live       btrfs.Info
	Snapshots  []Snapshot // CLEAN, CURRENT, PREVIOUS, PENULTIMATE, REPLACED, NEXT, then the aged ones, oldest first
	// Worked says that a boot has reset the volume to the CLEAN that is there.
	Worked bool
	// Linked says that PREVIOUS is what the reset that made the live volume replaced.
	Linked bool
	// Trash says that the live volume holds what the last reset moved out of the way.
	Trash bool
	// Foreign are names in the folder of the snapshots that are no subvolumes.
	Foreign []string
}

// Snapshot is one snapshot of a volume.
type Snapshot struct {
	Name string
	Info btrfs.Info
	// Trees are the tree ids of it and of all that is nested in it.
	Trees []uint64
	// Replaced says that it is a CLEAN that was replaced, and stays until a boot has
	// reset to the new one.
	Replaced bool
}

// Snapshot finds a snapshot by its name; nil if there is none.
func (h *History) Snapshot(name string) *Snapshot {
	for i := range h.Snapshots {
		if h.Snapshots[i].Name == name {
			return &h.Snapshots[i]
		}
	}
	return nil
}

// ReadHistory reads what there is of a volume of the plan, and writes nothing.
func ReadHistory(top *os.File, plan *PlanFile, volume string) (*History, error) {
	h, err := readHistory(top, plan, volume)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", volume, err)
	}
	return h, nil
}

func readHistory(top *os.File, plan *PlanFile, name string) (*History, error) {
	spec, err := plan.volume(name)
	if err != nil {
		return nil, err
	}
	v := &volume{spec: *spec, plan: plan, top: top}
	h := &History{Name: name, MountPoint: spec.MountPoint}
	live, err := v.openLive()
	if err != nil {
		return nil, err
	}
	defer live.Close()
	if is, err := btrfs.IsSubvolume(live); err != nil || !is {
		return nil, errors.Join(fmt.Errorf("%q is a plain directory, not a subvolume", name), err)
	}
	if h.Live, err = btrfs.ReadInfo(live); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	h.Trash = unix.Fstatat(int(live.Fd()), TrashName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	if v.dir, err = openDir(top, plan.Snapshots+"/"+name); err != nil {
		return nil, fmt.Errorf("its snapshots (take the first with `nixos-snapshot init`): %w", err)
	}
	defer v.dir.Close()
	return h, h.readSnapshots(v)
}

func (h *History) readSnapshots(v *volume) error {
	names, err := listSnapshots(v.dir)
	if err != nil {
		return err
	}
	replaced, err := v.replacedCleans()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := h.readSnapshot(v, name, slices.Contains(replaced, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	order := []string{v.plan.Clean, NameCurrent, NamePrevious, NamePenultimate, NameReplaced, NameNext}
	rank := func(s *Snapshot) int {
		switch i := slices.Index(order, s.Name); {
		case i >= 0:
			return i
		case s.Replaced:
			return len(order)
		case IsAged(s.Name):
			return len(order) + 1
		}
		return len(order) + 2
	}
	slices.SortFunc(h.Snapshots, func(a, b Snapshot) int {
		return cmp.Or(rank(&a)-rank(&b), a.Info.Created.Compare(b.Info.Created), strings.Compare(a.Name, b.Name))
	})
	slices.Sort(h.Foreign)
	if clean := h.Snapshot(v.plan.Clean); clean != nil {
		worked, err := v.workedClean()
		if err != nil {
			return err
		}
		h.Worked = worked == clean.Info.UUID.String()
	}
	if previous := h.Snapshot(NamePrevious); previous != nil {
		h.Linked = h.Live.ParentUUID == previous.Info.UUID
	}
	return nil
}

func (h *History) readSnapshot(v *volume, name string, replaced bool) error {
	f, err := openDir(v.dir, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		h.Foreign = append(h.Foreign, name)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	is, err := btrfs.IsSubvolume(f)
	if err != nil {
		return err
	}
	if !is {
		h.Foreign = append(h.Foreign, name)
		return nil
	}
	s := Snapshot{Name: name, Replaced: replaced}
	if s.Info, err = btrfs.ReadInfo(f); err != nil {
		return err
	}
	s.Trees = []uint64{s.Info.ID}
	for i := 0; i < len(s.Trees); i++ {
		children, err := btrfs.Children(f, s.Trees[i])
		if err != nil {
			return err
		}
		for _, c := range children {
			s.Trees = append(s.Trees, c.ID)
		}
	}
	h.Snapshots = append(h.Snapshots, s)
	return nil
}

// HasPath reports whether a snapshot has something at a path, which no symlink leads
// through.
func HasPath(snapshot *os.File, path string) (bool, error) {
	f, err := openBeneath(snapshot, path, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if errors.Is(err, unix.ELOOP) { // it is a symlink itself, or one is on the way
		parent, name := splitPath(path)
		dir, err := openDir(snapshot, parent)
		if err != nil {
			return false, nil // one is on the way
		}
		defer dir.Close()
		var st unix.Stat_t
		return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}
