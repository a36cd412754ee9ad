// Package versions takes away what the cache holds of earlier versions of a
// thing: a guest's tree, a kernel, QEMU, a disk image.
//
// Whether another run, of another working tree perhaps, still stands on a version
// cannot be seen from the files. So a run that takes one notes that by [Used], and
// [Forget] spares what was in use lately. The version in use now always stays,
// however old it is: without a network there would be no other.
//
// Both are called under the lock of the folder, so that nothing goes between
// being found and being noted.
package versions

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// idle is how long after its last use a version goes.
	idle = 7 * 24 * time.Hour
	// busy is longer than any run lasts: a version used since then may be in use
	// now.
	busy = 6 * time.Hour

	stampPrefix = ".used-"
	gonePrefix  = ".forgotten-"
)

// stamp is the file whose time is that of the last use. The thing itself keeps
// its own time, by which checkpoints know it again.
func stamp(path string) string {
	return filepath.Join(filepath.Dir(path), stampPrefix+filepath.Base(path))
}

// Used notes that a run uses a file or folder from now on.
func Used(path string) error {
	name := stamp(path)
	now := time.Now()
	err := os.Chtimes(name, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.WriteFile(name, nil, 0o600)
	}
	return err
}

// lastUse is when a run has used it, or when it was made where none has said so.
func lastUse(path string) (time.Time, error) {
	info, err := os.Stat(stamp(path))
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(path)
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// Forget takes away, of all versions of a thing, those that nobody has used for a
// week; of those beyond the latest spared ones, all that no run can be using any
// more. current is never taken, and does not count. It tells what has gone.
func Forget(current string, all []string, spared int) ([]string, error) {
	type version struct {
		path string
		used time.Time
	}
	var others []version
	for _, path := range all {
		if path == current {
			continue
		}
		used, err := lastUse(path)
		if err != nil {
			return nil, err
		}
		others = append(others, version{path, used})
	}
	slices.SortFunc(others, func(a, b version) int { return b.used.Compare(a.used) })
	var gone []string
	for i, other := range others {
		age := time.Since(other.used)
		if age < busy || (i < spared && age < idle) {
			continue
		}
		if err := remove(other.path); err != nil {
			return gone, err
		}
		gone = append(gone, other.path)
	}
	return gone, nil
}

// remove takes a version away. Cut off, it leaves no half of it under its name.
func remove(path string) error {
	away := filepath.Join(filepath.Dir(path), gonePrefix+filepath.Base(path))
	if err := errors.Join(os.RemoveAll(away), os.Rename(path, away), os.RemoveAll(away)); err != nil {
		return err
	}
	if err := os.Remove(stamp(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Scraps takes away what runs that were cut off have left in a folder: what was
// going away, and whatever matches a pattern of [filepath.Match]. Who holds the
// lock of the folder knows that nobody is at work on them.
func Scraps(dir string, patterns ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		scrap := strings.HasPrefix(entry.Name(), gonePrefix)
		for _, pattern := range patterns {
			match, err := filepath.Match(pattern, entry.Name())
			if err != nil {
				return err
			}
			scrap = scrap || match
		}
		if !scrap {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
