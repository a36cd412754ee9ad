// Package debian fetches Debian packages of any suite and architecture into a
// cache of the project's own, and unpacks them there.
//
// Nothing is installed, and the system's own package lists are not touched: apt
// works with private lists, an empty status file, and the mirror that the
// machine's own sources name. Where the machine has no apt, or no Debian mirror
// in its sources, it says so by [ErrUnavailable].
//
// What was fetched once is found again without a network, by the versions of
// the packages; lists are renewed when they are a day old and the mirror can be
// reached. Of earlier versions those go that no run has used for long
// (package versions).
package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/atomicfile"
	"nixos-go/pkg/run"
)

// ErrUnavailable says that this machine cannot fetch Debian packages.
var ErrUnavailable = errors.New("no Debian packages to be had on this machine")

// listsAge is when the lists of packages are renewed.
const listsAge = 24 * time.Hour

// CacheVariable names the folder of the cache, to be shared by several working
// trees.
const CacheVariable = "NIXOS_GO_VM_CACHE"

// Cache keeps what was fetched.
type Cache struct {
	// Dir is its folder.
	Dir string
	// Runner runs apt and dpkg; nil runs them here.
	Runner run.Runner

	mirror *mirror // nil: the system's
}

// Set is what to fetch.
type Set struct {
	// Suite is "trixie", "bookworm", …
	Suite string `json:"suite"`
	// Arch is Debian's name of the architecture, which is Go's for those we use.
	Arch string `json:"arch"`
	// Packages are the names.
	Packages []string `json:"packages"`
	// Depends fetches what they depend on too, all of it, so that the tree can
	// be run on its own. Recommendations are not followed.
	Depends bool `json:"depends"`
	// Without are packages to leave out of what they depend on.
	Without []string `json:"without,omitempty"`
}

// Tree is a set that was fetched and unpacked. It is shared: nobody writes to
// it.
type Tree struct {
	// Root is the folder in which the packages are unpacked.
	Root string
	// Versions are the packages' versions.
	Versions map[string]string
}

// archive is one package as apt tells it.
type archive struct {
	URI     string `json:"uri"`
	File    string `json:"file"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

func (c Cache) runner() run.Runner {
	if c.Runner != nil {
		return c.Runner
	}
	return &run.Local{}
}

// Fetch fetches and unpacks a set, or finds it in the cache.
func (c Cache) Fetch(ctx context.Context, set Set) (Tree, error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return Tree{}, err
	}
	defer unlock()
	apt, err := c.open(set.Suite, set.Arch)
	if err != nil {
		return Tree{}, err
	}
	archives, err := c.resolve(ctx, apt, set)
	if err != nil {
		return Tree{}, fmt.Errorf("packages %s of %s: %w", strings.Join(set.Packages, " "), set.Suite, err)
	}
	tree := Tree{Root: c.treeDir(set, archives), Versions: map[string]string{}}
	for _, a := range archives {
		tree.Versions[a.Name] = a.Version
	}
	if _, err := os.Stat(tree.Root); err != nil {
		if err := c.unpack(ctx, apt, archives, tree.Root); err != nil {
			return tree, err
		}
	}
	return tree, forgetOlder(tree.Root)
}

// lock keeps the other processes of a test run out: packages are tested side by
// side.
func (c Cache) lock(ctx context.Context) (unlock func(), err error) {
	if c.Dir == "" {
		return nil, errors.New("the cache of Debian packages has no folder")
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(&os.PathError{Op: "lock", Path: f.Name(), Err: err}, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for the cache of Debian packages: %w", context.Cause(ctx)), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// treeDir is the folder of a set in certain versions.
func (c Cache) treeDir(set Set, archives []archive) string {
	names := make([]string, len(archives))
	for i, a := range archives {
		names[i] = a.Name + "=" + a.Version
	}
	slices.Sort(names)
	sum := sha256.Sum256([]byte(strings.Join(names, "\n")))
	return filepath.Join(c.Dir, "trees", set.Suite+"-"+set.Arch+"-"+set.Packages[0]+"-"+hex.EncodeToString(sum[:6]))
}

// resolve finds out which archives make a set. The answer is remembered as long
// as the lists are the same.
func (c Cache) resolve(ctx context.Context, apt *aptState, set Set) ([]archive, error) {
	fresh := apt.update(ctx, c.runner())
	key, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(key)
	memory := filepath.Join(apt.dir, "resolved-"+hex.EncodeToString(sum[:8])+".json")
	if archives := apt.remembered(memory); archives != nil {
		return archives, nil
	}
	if fresh != nil {
		return nil, fresh
	}
	args := []string{"install", "--print-uris", "-qq", "-y"}
	if !set.Depends {
		args = []string{"download", "--print-uris", "-qq"}
	}
	result, err := c.runner().Run(ctx, apt.command("apt-get", append(args, set.Packages...)...))
	if err != nil {
		return nil, err
	}
	archives, err := parseURIs(bytes.NewReader(result.Stdout))
	if err != nil {
		return nil, err
	}
	archives = slices.DeleteFunc(archives, func(a archive) bool { return slices.Contains(set.Without, a.Name) })
	if len(archives) == 0 {
		return nil, errors.New("apt names no archive")
	}
	b, err := json.Marshal(archives)
	if err != nil {
		return nil, err
	}
	return archives, atomicfile.Write(memory, b, 0o600)
}

// unpack downloads archives and unpacks them into a folder that appears when
// all is there.
func (c Cache) unpack(ctx context.Context, apt *aptState, archives []archive, root string) error {
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(root), ".unpacking-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	debs, tree := filepath.Join(work, "debs"), filepath.Join(work, "tree")
	if err := errors.Join(os.Mkdir(debs, 0o755), os.Mkdir(tree, 0o755)); err != nil {
		return err
	}
	names := make([]string, len(archives))
	for i, a := range archives {
		names[i] = a.Name + "=" + a.Version
	}
	download := apt.command("apt-get", append([]string{"download", "-qq"}, names...)...)
	download.Dir = debs
	if _, err := c.runner().Run(ctx, download); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	if len(files) != len(archives) {
		return fmt.Errorf("apt has downloaded %d of %d archives", len(files), len(archives))
	}
	for _, file := range files {
		if _, err := c.runner().Run(ctx, run.New("dpkg-deb", "-x", file, tree)); err != nil {
			return err
		}
	}
	return os.Rename(tree, root)
}

// Show is a field of a package's entry in the lists, such as "Depends". It too is
// remembered as long as the lists are the same: apt takes a second to read them.
func (c Cache) Show(ctx context.Context, suite, arch, name, field string) (string, error) {
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	apt, err := c.open(suite, arch)
	if err != nil {
		return "", err
	}
	if err := apt.update(ctx, c.runner()); err != nil && !apt.hasLists() {
		return "", err
	}
	memory := filepath.Join(apt.dir, "show-"+name+"-"+field)
	if apt.isFresh(memory) {
		value, err := os.ReadFile(memory)
		return string(value), err
	}
	result, err := c.runner().Run(ctx, apt.command("apt-cache", "show", "--no-all-versions", name))
	if err != nil {
		return "", err
	}
	for line := range strings.SplitSeq(string(result.Stdout), "\n") {
		if value, ok := strings.CutPrefix(line, field+": "); ok {
			return value, atomicfile.Write(memory, []byte(value), 0o600)
		}
	}
	return "", fmt.Errorf("package %s of %s has no field %s", name, suite, field)
}

// Kernel is the package behind a meta package such as linux-image-cloud-amd64:
// the kernel in the version that the suite has now.
func (c Cache) Kernel(ctx context.Context, suite, arch, meta string) (string, error) {
	depends, err := c.Show(ctx, suite, arch, meta, "Depends")
	if err != nil {
		return "", err
	}
	for dependency := range strings.SplitSeq(depends, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(dependency), " ")
		if strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s of %s depends on no kernel: %s", meta, suite, depends)
}

// Available tells whether packages can be fetched here, by an error.
func Available() error {
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	_, err := systemMirror()
	return err
}
