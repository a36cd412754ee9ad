package full

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/run"
	"nixos-go/vmtest/debian"
)

// Tree is an installed system in a folder. It is shared: nobody writes to it.
type Tree struct {
	// Root is the folder.
	Root string
	// Kernel is the kernel of the release, an EFI program too.
	Kernel, Release string
	// key names the versions of all packages.
	key string
}

// locked runs work while no other process does the same in the folder.
func locked(dir string, work func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return work()
}

// fetchTree installs the system into a folder of the cache, or finds it there.
func fetchTree(ctx context.Context, cache debian.Cache, dir string) (Tree, error) {
	versions, err := cache.Versions(ctx, debian.Set{Suite: suite, Arch: arch, Packages: packages(), Depends: true})
	if err != nil {
		return Tree{}, err
	}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintln(sum, name, versions[name])
	}
	tree := Tree{key: hex.EncodeToString(sum.Sum(nil)[:6])}
	tree.Root = filepath.Join(dir, "tree-"+tree.key)
	if _, err := os.Stat(tree.Root); errors.Is(err, os.ErrNotExist) {
		err = install(ctx, tree.Root)
		if err != nil {
			return Tree{}, err
		}
	}
	kernels, err := filepath.Glob(filepath.Join(tree.Root, "boot", "vmlinuz-*"))
	if err != nil {
		return Tree{}, err
	}
	if len(kernels) != 1 {
		return Tree{}, fmt.Errorf("%s has the kernels %v, want one", tree.Root, kernels)
	}
	tree.Kernel = kernels[0]
	tree.Release = strings.TrimPrefix(filepath.Base(tree.Kernel), "vmlinuz-")
	return tree, nil
}

// install makes the tree; it appears under its name when it is complete.
func install(ctx context.Context, root string) error {
	source, err := debian.Source(suite)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(root), ".installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tar := filepath.Join(work, "tree.tar")
	mmdebstrap := run.New("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--format=tar",
		"--include="+strings.Join(packages(), ","),
		`--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		suite, tar, source)
	// Some hooks of packages would ask, or start a server.
	mmdebstrap.Env = []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	if _, err := (&run.Local{}).Run(ctx, mmdebstrap); err != nil {
		return fmt.Errorf("install the full guest: %w", err)
	}
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	unpack := run.New("tar", "-C", tree, "--numeric-owner", "-xf", tar,
		"--exclude=./dev/*", "--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./boot/initrd.img*")
	if _, err := (&run.Local{}).Run(ctx, unpack); err != nil {
		return err
	}
	return os.Rename(tree, root)
}
