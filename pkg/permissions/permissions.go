// Package permissions says who owns the configuration and the secrets of a
// machine, and makes it so.
//
// The configuration belongs to the admin, and nobody else may write to it. The
// secrets belong to root, and nobody else may look at them. [Plan] finds what
// differs and changes nothing; [Apply] makes the changes of a plan.
//
// The admin can change the configuration's folder at any moment, while root
// works in it: no symlink is followed, every change is made on an open file
// that is still the one of the plan, and a file with further names, which may
// lie outside the folder, is left alone unless it is the owner's already.
package permissions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what a tree holds.
type Kind int

const (
	// Configuration is the flake: its owner writes, nobody else does.
	Configuration Kind = iota
	// Secrets are for their owner alone: folders 0700, files 0600.
	Secrets
)

// Tree is a folder and who owns it.
type Tree struct {
	// Path is the folder.
	Path string
	// UID and GID own everything in it.
	UID, GID int
	Kind     Kind
}

// Change is what has to change in one file. Modes are the bits of chmod(2).
type Change struct {
	// Path is the file, relative to the tree; "." is the tree itself.
	Path string
	// FromUID to ToMode are owner, group and mode, before and after.
	FromUID, FromGID int
	ToUID, ToGID     int
	FromMode, ToMode uint32

	inode  uint64
	device uint64
	link   bool
}

// Owner tells whether owner or group change.
func (c Change) Owner() bool { return c.FromUID != c.ToUID || c.FromGID != c.ToGID }

// Mode tells whether the mode changes.
func (c Change) Mode() bool { return c.FromMode != c.ToMode }

// Result is a plan.
type Result struct {
	// Changes are in the order of their paths.
	Changes []Change
	// Skipped are files that are left alone, each with the reason.
	Skipped []Skipped
	// Files is how many files were looked at.
	Files int
}

// Skipped is a file that is left alone.
type Skipped struct {
	Path   string
	Reason string
}

// Plan compares a tree with what it should be.
func Plan(ctx context.Context, tree Tree) (Result, error) {
	root, err := os.OpenFile(tree.Path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	w := walker{ctx: ctx, tree: tree}
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return Result{}, &fs.PathError{Op: "stat", Path: tree.Path, Err: err}
	}
	w.device = st.Dev
	w.compare(".", &st)
	if err := w.walk(root, "."); err != nil {
		return Result{}, err
	}
	slices.SortFunc(w.result.Changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return w.result, nil
}

type walker struct {
	ctx    context.Context
	tree   Tree
	device uint64
	result Result
}

// walk compares what is in an open directory.
func (w *walker) walk(dir *os.File, name string) error {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := context.Cause(w.ctx); err != nil {
			return err
		}
		child := path.Join(name, entry.Name())
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), entry.Name(), &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue // gone meanwhile
		}
		if err != nil {
			return &fs.PathError{Op: "stat", Path: path.Join(w.tree.Path, child), Err: err}
		}
		if st.Dev != w.device {
			w.skip(child, "another file system is mounted there")
			continue
		}
		w.compare(child, &st)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if err := w.descend(dir, entry.Name(), child); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) descend(dir *os.File, base, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // replaced meanwhile
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path.Join(w.tree.Path, name), Err: err}
	}
	child := os.NewFile(uintptr(fd), path.Join(w.tree.Path, name))
	defer child.Close()
	return w.walk(child, name)
}

func (w *walker) skip(name, reason string) {
	w.result.Skipped = append(w.result.Skipped, Skipped{Path: name, Reason: reason})
}

// compare adds the change that a file needs.
func (w *walker) compare(name string, st *unix.Stat_t) {
	w.result.Files++
	kind := st.Mode & unix.S_IFMT
	c := Change{
		Path: name, inode: st.Ino, device: st.Dev, link: kind == unix.S_IFLNK,
		FromUID: int(st.Uid), FromGID: int(st.Gid), ToUID: w.tree.UID, ToGID: w.tree.GID,
		FromMode: st.Mode & 0o7777,
	}
	switch kind {
	case unix.S_IFDIR, unix.S_IFREG:
		c.ToMode = w.tree.Kind.mode(c.FromMode, kind == unix.S_IFDIR)
		if kind == unix.S_IFREG && isGitObject(name) {
			c.ToMode &^= 0o200 &^ c.FromMode // git makes them read-only
		}
	case unix.S_IFLNK:
		c.ToMode = c.FromMode // Linux ignores it
	default:
		w.skip(name, "neither a file, a folder nor a symlink")
		return
	}
	if !c.Owner() && !c.Mode() {
		return
	}
	if kind == unix.S_IFREG && st.Nlink > 1 && c.FromUID != c.ToUID {
		w.skip(name, fmt.Sprintf("it has %d names, and others may lie elsewhere", st.Nlink))
		return
	}
	w.result.Changes = append(w.result.Changes, c)
}

// isGitObject tells whether a file is of a repository's store of objects.
func isGitObject(name string) bool {
	return strings.HasPrefix(name, ".git/") && strings.Contains(name, "/objects/")
}

// mode is what a mode has to become.
func (k Kind) mode(mode uint32, folder bool) uint32 {
	if k == Secrets {
		if folder {
			return 0o700
		}
		return 0o600
	}
	// Who may read and execute is the owner's business; the rest is not.
	mode &^= 0o7022
	if folder {
		return mode | 0o700
	}
	return mode | 0o600
}
