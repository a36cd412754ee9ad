package debian

import (
	"errors"
	"path/filepath"
	"strings"

	"nixos-go/vmtest/versions"
)

// spared is how many earlier versions of a set stay for a while.
const spared = 2

// kind is what the folders of a set's versions have in common: their names
// without the digest, and without the version that a kernel's package has in its
// own name (linux-image-6.1.0-50-cloud-amd64).
func kind(tree string) string {
	parts := strings.Split(filepath.Base(tree), "-")
	var same []string
	for _, part := range parts[:len(parts)-1] {
		if part != "" && (part[0] < '0' || part[0] > '9') {
			same = append(same, part)
		}
	}
	return strings.Join(same, "-")
}

// forgetOlder notes that a tree is in use, and takes earlier versions of it away.
// It is called under the lock.
func forgetOlder(tree string) error {
	dir := filepath.Dir(tree)
	found, err := filepath.Glob(filepath.Join(dir, "[^.]*"))
	if err != nil {
		return err
	}
	var same []string
	for _, other := range found {
		if kind(other) == kind(tree) {
			same = append(same, other)
		}
	}
	if err := errors.Join(versions.Used(tree), versions.Scraps(dir, ".unpacking-*")); err != nil {
		return err
	}
	_, err = versions.Forget(tree, same, spared)
	return err
}
