package nix

import (
	"context"
	"fmt"
	"path"
	"strings"

	"nixos-go/pkg/run"
)

// Tree is what git says about the files of a flake.
type Tree struct {
	// Untracked are .nix files that git does not know, which a flake cannot
	// see, relative to the repository's root.
	Untracked []string
	// Dirty tells whether tracked files differ from the last commit.
	Dirty bool
}

// Inspect asks git about the flake's files.
func (f Flake) Inspect(ctx context.Context, r run.Runner) (Tree, error) {
	c := git(f.Dir(), f.Owner, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--", ".")
	result, err := r.Run(ctx, c)
	if err != nil {
		return Tree{}, err
	}
	return parseStatus(string(result.Stdout))
}

// parseStatus reads git status --porcelain=v1 -z (git-status(1)): entries of
// two letters, a space and a path, each ended by a NUL; a rename or copy is
// followed by the path it came from.
func parseStatus(text string) (Tree, error) {
	var tree Tree
	entries := strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
	if text == "" {
		return tree, nil
	}
	for i := 0; i < len(entries); i++ {
		entry := entries[i]
		if len(entry) < 4 || entry[2] != ' ' {
			return Tree{}, fmt.Errorf("git status printed %q", entry)
		}
		state, name := entry[:2], entry[3:]
		switch state {
		case "??":
			if path.Ext(name) == ".nix" {
				tree.Untracked = append(tree.Untracked, name)
			}
		case "!!":
		default:
			tree.Dirty = true
			if strings.ContainsAny(state, "RC") {
				i++
			}
		}
	}
	return tree, nil
}

// Init makes a repository of a folder that has none.
func Init(dir string, owner int) run.Command {
	return git(dir, owner, "init", "--quiet")
}

// Add makes files known to git; names are relative to the repository's root.
// With intent only, nothing is staged for the next commit.
func (f Flake) Add(names ...string) run.Command {
	return git(f.Top, f.Owner, append([]string{"add", "--intent-to-add", "--"}, names...)...)
}
