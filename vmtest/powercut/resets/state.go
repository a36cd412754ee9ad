package resets

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx/model"
)

// live stands for the live subvolume among the names of a volume's snapshots.
const live = "live"

// A subvolume is all that a test wants to know of one.
type subvolume struct {
	tree     model.Tree
	uuid     string
	readOnly bool
	ready    bool // it has a .boot-ready
	trash    bool // of live: it has something for the cleanup to delete
}

// A volumeState is a volume: its live subvolume and its snapshots, by name.
type volumeState map[string]subvolume

// A state is all volumes of a disk, by name.
type state map[string]volumeState

// readState reads the volumes of a plan below the top level mounted at a path.
func readState(mount string, p *reset.PlanFile) (state, error) {
	all := state{}
	for _, v := range p.Volumes {
		volume, err := readVolume(mount, p.Snapshots, v.Name)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		all[v.Name] = volume
	}
	return all, nil
}

func readVolume(mount, snapshots, name string) (volumeState, error) {
	volume := volumeState{}
	var err error
	if volume[live], err = readSubvolume(filepath.Join(mount, name)); err != nil {
		return nil, err
	}
	if exists(filepath.Join(mount, name, reset.TrashName)) {
		sub := volume[live]
		sub.trash = true
		volume[live] = sub
	}
	folder := filepath.Join(mount, snapshots, name)
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // before the first CLEAN
		return nil, err
	}
	for _, e := range entries {
		if volume[e.Name()], err = readSubvolume(filepath.Join(folder, e.Name())); err != nil {
			return nil, err
		}
	}
	return volume, nil
}

var errNoSubvolume = errors.New("not a subvolume")

func readSubvolume(path string) (subvolume, error) {
	dir, err := os.Open(path)
	if err != nil {
		return subvolume{}, err
	}
	defer dir.Close()
	if is, err := btrfs.IsSubvolume(dir); err != nil || !is {
		return subvolume{}, errors.Join(err, &os.PathError{Op: "read", Path: path, Err: errNoSubvolume})
	}
	info, err := btrfs.ReadInfo(dir)
	if err != nil {
		return subvolume{}, err
	}
	tree, err := model.Read(path)
	if err != nil {
		return subvolume{}, err
	}
	return subvolume{
		tree: tree, uuid: info.UUID.String(), readOnly: info.ReadOnly,
		ready: exists(filepath.Join(path, reset.ReadyName)),
	}, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// settled is the state without what the cleanup after the boot takes away.
func (v volumeState) settled() volumeState {
	left := maps.Clone(v)
	maps.DeleteFunc(left, func(name string, _ subvolume) bool { return reset.IsAged(name) })
	return left
}

// diffSubvolume tells how got differs from want, line by line.
func diffSubvolume(name string, want, got subvolume) string {
	var lines []string
	if want.readOnly != got.readOnly {
		lines = append(lines, fmt.Sprintf("want read-only %v, got %v", want.readOnly, got.readOnly))
	}
	if want.ready != got.ready {
		lines = append(lines, fmt.Sprintf("want %s %v, got %v", reset.ReadyName, want.ready, got.ready))
	}
	if want.trash != got.trash {
		lines = append(lines, fmt.Sprintf("want %s %v, got %v", reset.TrashName, want.trash, got.trash))
	}
	if diff := model.Diff(want.tree, got.tree); diff != "" {
		lines = append(lines, diff)
	}
	if len(lines) == 0 {
		return ""
	}
	return name + ":\n  " + strings.ReplaceAll(strings.Join(lines, "\n"), "\n", "\n  ")
}

// diffVolume tells how a volume differs from another.
func diffVolume(want, got volumeState) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(union(want, got))) {
		w, inWant := want[name]
		g, inGot := got[name]
		switch {
		case !inGot:
			parts = append(parts, name+": want it, got nothing")
		case !inWant:
			parts = append(parts, name+": want nothing, got a subvolume")
		default:
			if diff := diffSubvolume(name, w, g); diff != "" {
				parts = append(parts, diff)
			}
		}
	}
	return strings.Join(parts, "\n")
}

func union(a, b volumeState) volumeState {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// without leaves out the paths that satisfy drop, and all below them.
func without(t model.Tree, drop map[string]bool) model.Tree {
	if len(drop) == 0 {
		return t
	}
	left := model.Tree{}
	for path, e := range t {
		if !dropped(path, drop) {
			left[path] = e
		}
	}
	return left
}

func dropped(path string, drop map[string]bool) bool {
	for ; path != ""; path = parent(path) {
		if drop[path] {
			return true
		}
	}
	return false
}

// parent is the directory of a path of a tree; of one in the root, "".
func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

// below is the part of a tree at a path and below it.
func below(t model.Tree, at string) model.Tree {
	part := model.Tree{}
	for path, e := range t {
		if path == at || strings.HasPrefix(path, at+"/") {
			part[path] = e
		}
	}
	return part
}
