package nix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"nixos-go/pkg/run"
)

// ErrNoRepository says that a folder is in no git repository.
var ErrNoRepository = errors.New("not in a git repository")

// Flake is a folder with a flake.nix in a git repository.
type Flake struct {
	// Top is the root of the repository, absolute, as programs see it.
	Top string
	// Sub is the flake's folder below Top; empty for Top itself.
	Sub string
	// Owner and Group own the flake.
	Owner, Group int
}

// Open finds the repository of a folder of this machine. It gives
// [ErrNoRepository] where there is none, and an error that wraps fs.ErrNotExist
// where flake.nix is missing.
func Open(ctx context.Context, r run.Runner, dir string) (Flake, error) {
	info, err := os.Stat(path.Join(dir, "flake.nix"))
	if errors.Is(err, fs.ErrNotExist) {
		return Flake{}, fmt.Errorf("%s holds no flake.nix: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return Flake{}, err
	}
	owner, group := OwnerOf(info)
	result, err := r.Run(ctx, git(dir, owner, "rev-parse", "--show-toplevel", "--show-prefix"))
	if _, ran := run.StatusOf(err); ran {
		return Flake{}, fmt.Errorf("%s: %w", dir, ErrNoRepository)
	}
	if err != nil {
		return Flake{}, err
	}
	top, prefix, found := strings.Cut(strings.TrimSuffix(string(result.Stdout), "\n"), "\n")
	if !found || !path.IsAbs(top) {
		return Flake{}, fmt.Errorf("git rev-parse in %s gave %q", dir, result.Stdout)
	}
	return Flake{Top: top, Sub: strings.TrimSuffix(prefix, "/"), Owner: owner, Group: group}, nil
}

// OwnerOf is the user and the group that own a file.
func OwnerOf(info fs.FileInfo) (uid, gid int) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid), int(stat.Gid)
	}
	return 0, 0
}

// Dir is the flake's folder.
func (f Flake) Dir() string { return path.Join(f.Top, f.Sub) }

// URL names the flake for nix.
func (f Flake) URL() string {
	u := url.URL{Path: f.Top}
	text := "git+file://" + u.EscapedPath()
	if f.Sub != "" {
		text += "?dir=" + url.QueryEscape(f.Sub)
	}
	return text
}

// Configuration names one of the flake's NixOS configurations, as
// nixos-rebuild and nixos-install take it.
func (f Flake) Configuration(name string) string { return f.URL() + "#" + name }

// Attribute names an attribute of one of the flake's NixOS configurations, as
// nix takes it; attribute is "" for the whole configuration.
func (f Flake) Attribute(name, attribute string) string {
	text := f.URL() + `#nixosConfigurations.` + quoteName(name)
	if attribute != "" {
		text += "." + attribute
	}
	return text
}

// quoteName is a name as a component of an attribute path.
func quoteName(name string) string { return StringLiteral(name) }

// StringLiteral is text as the Nix language writes it, in double quotes and on one
// line (nix manual, "String literal").
func StringLiteral(text string) string {
	escapes := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `${`, `\${`, "\n", `\n`, "\r", `\r`, "\t", `\t`)
	return `"` + escapes.Replace(text) + `"`
}

// environment makes git, and the git library inside nix, accept a repository
// that belongs to somebody else when root asks: both take the owner's id in
// SUDO_UID as root's own. (The library does not read GIT_CONFIG_COUNT.)
func environment(owner int) []string {
	return []string{"SUDO_UID=" + strconv.Itoa(owner)}
}

// git is a call of git in a folder. fsmonitor would run a program that the
// repository names.
func git(dir string, owner int, args ...string) run.Command {
	c := run.New("git", append([]string{"-C", dir, "-c", "core.fsmonitor=false"}, args...)...)
	c.Env = environment(owner)
	return c
}

// features are what the calls need of nix; live systems do not enable them.
var features = []string{"--extra-experimental-features", "nix-command flakes"}

// nix is a call of nix for the flake.
func (f Flake) nix(args ...string) run.Command {
	c := run.New("nix", append(append([]string(nil), features...), args...)...)
	c.Env = environment(f.Owner)
	return c
}

// locked forbids changes to the lock file.
const locked = "--no-update-lock-file"

// Lock writes flake.lock where inputs are missing in it.
func (f Flake) Lock() run.Command {
	c := f.nix("flake", "lock", f.URL())
	c.Stream = true
	return c
}

// Update takes the newest revision of the inputs, all of them where none is
// named.
func (f Flake) Update(inputs ...string) run.Command {
	args := []string{"flake", "update", "--flake", f.URL()}
	if len(inputs) > 0 {
		args = append(append(args, "--"), inputs...)
	}
	c := f.nix(args...)
	c.Stream = true
	return c
}

// IsLocked tells whether there is a flake.lock.
func (f Flake) IsLocked() bool {
	_, err := os.Stat(path.Join(f.Dir(), "flake.lock"))
	return err == nil
}
