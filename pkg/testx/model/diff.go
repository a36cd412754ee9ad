package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxDifferences bounds what Diff prints.
const maxDifferences = 60

// Diff tells how got differs from want, a line for each difference, and nothing
// if they are equal. Below a path that is missing or unexpected nothing more is
// said.
func Diff(want, got Tree) string {
	var lines []string

	wantLinks, gotLinks := want.links(), got.links()
	linked := map[[2]string]bool{} // alike, of two inodes: each may have very many names

	for _, path := range topDown(want, got) {
		w, inWant := want[path]
		g, inGot := got[path]

		switch {
		case inWant && inGot:
			for _, line := range diffEntry(w, g) {
				lines = append(lines, fmt.Sprintf("%q: %s", path, line))
			}

			pair := [2]string{w.Inode, g.Inode}
			if _, known := linked[pair]; !known {
				linked[pair] = slices.Equal(wantLinks[w.Inode], gotLinks[g.Inode])
			}

			if w, g := wantLinks[w.Inode], gotLinks[g.Inode]; !linked[pair] {
				lines = append(lines, fmt.Sprintf("%q: want linked as %q, got %q", path, w, g))
			}
		case path != "" && !has(want, parent(path)) || path != "" && !has(got, parent(path)):
		case inWant:
			lines = append(lines, fmt.Sprintf("%q: want a %s, got nothing", path, describe(w)))
		default:
			lines = append(lines, fmt.Sprintf("%q: want nothing, got a %s", path, describe(g)))
		}
	}

	if more := len(lines) - maxDifferences; more > 0 {
		lines = append(lines[:maxDifferences], fmt.Sprintf("and %d more differences", more))
	}

	return strings.Join(lines, "\n")
}

func has(t Tree, path string) bool {
	_, ok := t[path]

	return ok
}

func describe(e Entry) string {
	switch {
	case e.Stub:
		return "stub of a subvolume"
	case e.Subvolume:
		return "subvolume"
	default:
		return typeName(e.Type)
	}
}

func diffEntry(want, got Entry) []string {
	var lines []string

	differ := func(what string, want, got any) {
		if want != got {
			lines = append(lines, fmt.Sprintf("want %s %v, got %v", what, want, got))
		}
	}

	differ("a", describe(want), describe(got))

	if want.Type != got.Type {
		return lines
	}

	differ("mode", octal(want.Mode), octal(got.Mode))
	differ("owner", want.UID, got.UID)
	differ("group", want.GID, got.GID)
	differ("size", want.Size, got.Size)
	differ("target", quoted(want.Target), quoted(got.Target))
	differ("device number", want.Rdev, got.Rdev)
	differ("flags", fmt.Sprintf("%#x", want.Flags), fmt.Sprintf("%#x", got.Flags))
	differ("read-only", want.ReadOnly, got.ReadOnly)

	// The kernel makes up the times of a stub each time that it loads one.
	if !want.AnyMTime && (!want.Stub || !got.Stub) {
		differ("mtime", stamp(want.MTime), stamp(got.MTime))
	}

	if want.UUID != "" {
		differ("subvolume", want.UUID, got.UUID)
	}

	if want.Hash != got.Hash {
		lines = append(lines, fmt.Sprintf("want content %x, got %x", want.Hash[:4], got.Hash[:4]))
	}

	return append(lines, diffXattrs(want.Xattrs, got.Xattrs)...)
}

func diffXattrs(want, got map[string]string) []string {
	var lines []string

	all := maps.Clone(want)
	if all == nil {
		all = map[string]string{}
	}

	maps.Copy(all, got)

	for _, name := range slices.Sorted(maps.Keys(all)) {
		w, inWant := want[name]
		g, inGot := got[name]

		switch {
		case !inWant:
			lines = append(lines, fmt.Sprintf("want no xattr %q, got %q", name, g))
		case !inGot:
			lines = append(lines, fmt.Sprintf("want xattr %q = %q, got none", name, w))
		case w != g:
			lines = append(lines, fmt.Sprintf("want xattr %q = %q, got %q", name, w, g))
		}
	}

	return lines
}

func octal(mode uint32) string { return fmt.Sprintf("%#o", mode) }

func quoted(s string) string { return fmt.Sprintf("%q", s) }

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000") }
