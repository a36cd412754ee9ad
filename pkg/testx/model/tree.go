// Package model says, slowly and obviously, what a reset must leave behind: it
// reads a volume whole into a Tree, computes the tree that the rules demand of
// an old and a clean one, path by path, and tells how another differs from it.
//
// It is what tests hold the real engine against, so it shares no code with it:
// rules, walk and decision are written again here, in the plainest way.
package model

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Tree is all of a volume: each path relative to its root, components joined
// by slashes, the root itself as "". Nested subvolumes are part of it.
type Tree map[string]Entry

// An Entry is what stands at one path.
type Entry struct {
	Type     uint32 // S_IFREG, S_IFDIR, …
	Mode     uint32 // permissions and set-id bits
	UID, GID uint32
	MTime    int64 // nanoseconds since 1970
	Xattrs   map[string]string
	Flags    uint32 // those that chattr can set; directories and regular files

	Size   int64             // regular files
	Hash   [sha256.Size]byte // regular files: of the content
	Target string            // symlinks
	Rdev   uint64            // devices

	// Inode is the same for all names of one inode of a tree, and means
	// nothing else. Empty: no other name.
	Inode string

	Subvolume bool   // a nested subvolume's root
	ReadOnly  bool   // of a nested subvolume
	UUID      string // of a nested subvolume; in a wanted tree, empty: any
	Stub      bool   // what a snapshot shows in a nested subvolume's place

	AnyMTime bool // in a wanted tree: the time does not matter
}

// IsDir tells whether the entry can have others below it.
func (e Entry) IsDir() bool { return e.Type == unix.S_IFDIR }

// parents returns the proper ancestors of a path, the root first.
func parents(path string) []string {
	if path == "" {
		return nil
	}

	above := []string{""}

	for i := range len(path) {
		if path[i] == '/' {
			above = append(above, path[:i])
		}
	}

	return above
}

func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

// topDown returns the paths of trees, each once, with every path after its
// parents.
func topDown(trees ...Tree) []string {
	all := map[string]bool{}

	for _, t := range trees {
		for path := range t {
			all[path] = true
		}
	}

	return slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		if d := depth(a) - depth(b); d != 0 {
			return d
		}

		return strings.Compare(a, b)
	})
}

func depth(path string) int {
	if path == "" {
		return 0
	}

	return 1 + strings.Count(path, "/")
}

// links returns, for each inode that has several names in the tree, these
// names, sorted.
func (t Tree) links() map[string][]string {
	names := map[string][]string{}

	for path, e := range t {
		if e.Inode != "" && !e.IsDir() {
			names[e.Inode] = append(names[e.Inode], path)
		}
	}

	maps.DeleteFunc(names, func(_ string, paths []string) bool { return len(paths) < 2 })

	for _, paths := range names {
		slices.Sort(paths)
	}

	return names
}

// typeName is the letter that ls shows, in words.
func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	default:
		return fmt.Sprintf("type %#o", mode&unix.S_IFMT)
	}
}
