// Package flake prepares the folder of the configuration for a tool, by the
// rules that all tools keep:
//
//   - the flake is a git repository; where it is none, git init is offered;
//   - a flake cannot see .nix files that git does not know: they are listed, and
//     git add is offered;
//   - changes that are not committed are built all the same, with a warning;
//   - where flake.lock is missing it is written first, and never again after.
//
// What git and nix write as root is given back to the folder's owner.
package flake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/permissions"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// Open prepares the folder dir. A dry run changes nothing and warns of what
// would have to change.
func Open(ctx context.Context, env *clikit.Env, options clikit.Options, dir string) (nix.Flake, error) {
	p := preparation{env: env, options: options}
	f, err := nix.Open(ctx, env.Host, dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nix.Flake{}, noFlake(err)
	case errors.Is(err, nix.ErrNoRepository):
		if f, err = p.initialise(ctx, dir); err != nil {
			return nix.Flake{}, err
		}
	case err != nil:
		return nix.Flake{}, err
	}
	if err := p.track(ctx, f); err != nil {
		return nix.Flake{}, err
	}
	return f, p.lock(ctx, f)
}

// Dir is a folder of the command line as an absolute path.
func Dir(name string) (string, error) {
	if name == "" {
		return "", clikit.Usagef("--flake is empty")
	}
	if strings.HasPrefix(name, "git+file://") || strings.HasPrefix(name, "path:") {
		return "", clikit.Usagef("--flake takes a folder, not %q", name)
	}
	return filepath.Abs(name)
}

// Settings are the settings of this machine: the file that its system carries,
// or else one evaluation of the configuration in dir.
func Settings(ctx context.Context, env *clikit.Env, dir string) (*settings.Settings, error) {
	s, err := settings.Load(ctx, env.Host, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noFlake(err)
	}
	return s, err
}

func noFlake(err error) error {
	return clikit.WithHint(err, "name the folder of the configuration with --flake DIR, or in NIXOS_GO_ROOT")
}

type preparation struct {
	env     *clikit.Env
	options clikit.Options
}

// initialise offers git init.
func (p preparation) initialise(ctx context.Context, dir string) (nix.Flake, error) {
	refused := clikit.WithHint(fmt.Errorf("%s: %w", dir, nix.ErrNoRepository), "make one: git -C %s init", dir)
	if p.options.DryRun {
		return nix.Flake{}, refused
	}
	ok, err := p.env.Confirm(ctx, p.options, dir+" is in no git repository, which a flake needs. Make it one?",
		"Nix copies a folder without git into the world-readable store, secrets included.")
	if err != nil {
		return nix.Flake{}, err
	}
	if !ok {
		return nix.Flake{}, refused
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nix.Flake{}, err
	}
	owner, _ := nix.OwnerOf(info)
	if _, err := p.env.Host.Run(ctx, nix.Init(dir, owner)); err != nil {
		return nix.Flake{}, err
	}
	p.env.UI.Donef("%s is a git repository now", dir)
	f, err := nix.Open(ctx, p.env.Host, dir)
	if err != nil {
		return nix.Flake{}, err
	}
	return f, GiveBack(ctx, p.env, f)
}

// track lists what git does not know and offers to add it.
func (p preparation) track(ctx context.Context, f nix.Flake) error {
	tree, err := f.Inspect(ctx, p.env.Host)
	if err != nil {
		return err
	}
	if len(tree.Untracked) > 0 {
		return p.add(ctx, f, tree.Untracked)
	}
	if tree.Dirty {
		p.env.UI.Warnf("%s has changes that are not committed; they are part of what is built", f.Dir())
	}
	return nil
}

func (p preparation) add(ctx context.Context, f nix.Flake, names []string) error {
	shown := make([]string, 0, len(names))
	for _, name := range names {
		shown = append(shown, ui.Printable(name))
	}
	p.env.UI.Warnf("git does not know %s, so the flake cannot see %s:\n%s",
		ui.Count(int64(len(names)), "file"), itThem(len(names)), strings.Join(shown, "\n"))
	if p.options.DryRun {
		return nil
	}
	ok, err := p.env.Confirm(ctx, p.options, "Make git know "+itThem(len(names))+" (git add --intent-to-add)?", "")
	if none := (*prompt.NoTerminalError)(nil); errors.As(err, &none) {
		// Nothing is lost: without them the flake is what it was.
		p.env.UI.Hintf("add them with git add, or use --yes")
		return nil
	}
	if err != nil || !ok {
		return err
	}
	if _, err := p.env.Host.Run(ctx, f.Add(names...)); err != nil {
		return err
	}
	return GiveBack(ctx, p.env, f)
}

func itThem(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// lock writes flake.lock where there is none.
func (p preparation) lock(ctx context.Context, f nix.Flake) error {
	if f.IsLocked() {
		return nil
	}
	if p.options.DryRun {
		p.env.UI.Infof("flake.lock is missing: it would be written first")
		return nil
	}
	p.env.UI.Stepf("Locking the inputs of the flake")
	if _, err := p.env.Host.Run(ctx, f.Lock()); err != nil {
		return err
	}
	return GiveBack(ctx, p.env, f)
}

// GiveBack gives what root's git and nix have written, the index of the
// repository and the lock file, back to the folder's owner.
func GiveBack(ctx context.Context, env *clikit.Env, f nix.Flake) error {
	if env.UID != 0 || f.Owner == 0 {
		return nil
	}
	tree := permissions.Tree{Path: f.Top, UID: f.Owner, GID: f.Group, Kind: permissions.Configuration}
	result, err := permissions.Plan(ctx, tree)
	if err != nil {
		return err
	}
	var roots []permissions.Change
	for _, change := range result.Changes {
		inRepository := change.Path == ".git" || strings.HasPrefix(change.Path, ".git/")
		if change.FromUID == 0 && (inRepository || change.Path == path.Join(f.Sub, "flake.lock")) {
			roots = append(roots, change)
		}
	}
	return permissions.Apply(ctx, tree, roots)
}

// Selection says which configuration of a flake is meant.
type Selection struct {
	Host   settings.HostFile
	Target settings.Target
}

// Configuration is the configuration's name.
func (s Selection) Configuration() string { return settings.Configuration(s.Host.Name, s.Target) }

// Select finds the configuration: the flags --host and --target where they are
// given, else config.json.
func Select(dir, host, target string) (Selection, error) {
	var s Selection
	if _, err := os.Stat(path.Join(dir, "flake.nix")); errors.Is(err, fs.ErrNotExist) {
		return s, noFlake(fmt.Errorf("%s holds no flake.nix: %w", dir, fs.ErrNotExist))
	}
	config, err := settings.ReadConfig(dir)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return s, err
	}
	s.Target = settings.StandardBoot
	if config != nil {
		s.Target = config.Target
		s.Host = settings.HostFile{Name: config.Host(), System: path.Base(path.Dir(config.HostPath)), Path: config.HostPath}
	}
	if target != "" {
		if s.Target, err = settings.ParseTarget(target); err != nil {
			return s, clikit.Usagef("--target: %v", err)
		}
	}
	if host == "" && missing {
		return s, clikit.WithHint(
			fmt.Errorf("%s says nowhere which host this machine is: %s is missing", dir, settings.ConfigName),
			"name it with --host NAME")
	}
	if host != "" {
		hosts, err := settings.Hosts(dir)
		if err != nil {
			return s, err
		}
		if s.Host, err = settings.FindHost(hosts, host); err != nil {
			return s, clikit.Usagef("--host: %v", err)
		}
	}
	return s, nil
}

// HostFlag chooses another host than config.json's.
func HostFlag() cli.Flag {
	return &cli.StringFlag{Name: "host", Usage: "take the host `HOST` instead of the one in config.json"}
}

// TargetFlag chooses another target than config.json's.
func TargetFlag() cli.Flag {
	return &cli.StringFlag{Name: "target", Usage: "boot by `TARGET`, Standard-Boot or Secure-Boot, instead of the one in config.json"}
}
