// Package fixpermissions is nixos-fix-permissions: the configuration belongs to
// the admin, the secrets belong to root.
package fixpermissions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/permissions"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// App is the tool.
func App() *cli.App { return newApp(clikit.System()) }

func newApp(env *clikit.Env) *cli.App {
	t := tool{env}
	return clikit.New(&cli.App{
		Name:  "nixos-fix-permissions",
		Usage: "put owners and modes of configuration and secrets right",
		Description: "The folder of the configuration, with all in it, is given to the admin; write " +
			"permission of others, and set-user-ID bits, are taken away. The folder of the secrets " +
			"is given to root: folders 0700, files 0600. What is right already is left alone.\n\n" +
			"A file with a second name is not given away, since that name may lie elsewhere; " +
			"devices, sockets and mounted file systems are left alone as well. Each is named.",
		Flags: []cli.Flag{
			clikit.DryRunFlag(), clikit.JSONFlag(), clikit.YesFlag(), clikit.FlakeFlag(),
		},
		Action: t.run,
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "nixos-fix-permissions --dry-run", Does: "what would change"},
			{Command: "sudo nixos-fix-permissions", Does: "change it"},
			{Command: "sudo nixos-fix-permissions --json", Does: "change it and tell a program what was changed"},
		},
		Files: []clikit.File{
			{Path: "/etc/nixos", Does: "the configuration, the admin's"},
			{Path: "/var/lib/nixos-go/secrets", Does: "the secrets, root's (settings.secrets.path)"},
		},
		SeeAlso: []string{"nixos-install-go(8)", "nixos-update(8)"},
	})
}

type tool struct{ env *clikit.Env }

// report is the result.
type report struct {
	Applied bool         `json:"applied"`
	Trees   []treeReport `json:"trees"`
}

type treeReport struct {
	ui.Path

	Kind    string          `json:"kind"`
	Owner   string          `json:"owner"`
	Files   int             `json:"files"`
	Changes []changeReport  `json:"changes"`
	Skipped []skippedReport `json:"skipped"`
}

type changeReport struct {
	ui.Path

	FromOwner string `json:"fromOwner,omitempty"`
	ToOwner   string `json:"toOwner,omitempty"`
	FromMode  string `json:"fromMode,omitempty"`
	ToMode    string `json:"toMode,omitempty"`
}

type skippedReport struct {
	ui.Path

	Reason string `json:"reason"`
}

// work is one tree with its plan.
type work struct {
	tree  permissions.Tree
	kind  string
	owner string
	plan  permissions.Result
}

func (t tool) run(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	options := clikit.OptionsOf(c)
	if !options.DryRun {
		if err := t.env.RequireRoot("nixos-fix-permissions"); err != nil {
			return err
		}
	}
	works, err := t.plan(c.Context, c.String("flake"))
	if err != nil {
		return err
	}
	if !options.JSON {
		t.show(works)
	}
	if !options.DryRun {
		for _, w := range works {
			if err := permissions.Apply(c.Context, w.tree, w.plan.Changes); err != nil {
				return clikit.WithHint(err, "what was changed stays changed; run the command again for the rest")
			}
		}
	}
	if options.JSON {
		return t.env.UI.JSON(newReport(works, !options.DryRun))
	}
	t.conclude(works, options.DryRun)
	return nil
}

// plan finds both trees and what differs in them.
func (t tool) plan(ctx context.Context, folder string) ([]work, error) {
	dir, err := flake.Dir(folder)
	if err != nil {
		return nil, err
	}
	// The folder itself may be a symlink to the admin's repository.
	top, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	s, err := settings.Load(ctx, t.env.Host, dir)
	if err != nil {
		return nil, err
	}
	account, err := permissions.FindAccount(t.env.Host.Files, s.User.Admin.Name)
	if err != nil {
		return nil, err
	}
	works := []work{{
		tree: permissions.Tree{Path: top, UID: account.UID, GID: account.GID, Kind: permissions.Configuration},
		kind: "configuration", owner: account.Name,
	}}
	secrets, err := t.env.Host.Files.Resolve(s.Secrets.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.env.UI.Warnf("%s is not there: no secrets to protect", s.Secrets.Path)
	case err != nil:
		return nil, err
	default:
		works = append(works, work{tree: permissions.Tree{Path: secrets, Kind: permissions.Secrets}, kind: "secrets", owner: "root"})
	}
	for i := range works {
		if works[i].plan, err = permissions.Plan(ctx, works[i].tree); err != nil {
			return nil, err
		}
	}
	return works, nil
}

// show lists what differs.
func (t tool) show(works []work) {
	for _, w := range works {
		for _, skipped := range w.plan.Skipped {
			t.env.UI.Warnf("%s is left alone: %s", ui.Printable(filepath.Join(w.tree.Path, skipped.Path)), skipped.Reason)
		}
		for _, row := range fold(w.plan.Changes) {
			_ = t.env.UI.Print(line(w, row))
		}
	}
}

// row is a change, or that of a folder and of much in it.
type row struct {
	permissions.Change

	below int // changes in the folder that are the same
}

// fold puts the changes in a folder into the folder's own row where all of them are
// the same.
func fold(changes []permissions.Change) []row {
	// In the order of the tree, a folder before what is in it.
	key := func(c permissions.Change) string { return strings.ReplaceAll(c.Path, "/", "\x00") }
	changes = slices.SortedFunc(slices.Values(changes), func(a, b permissions.Change) int { return cmp.Compare(key(a), key(b)) })
	var rows []row
	for i := 0; i < len(changes); {
		end := i + 1
		for end < len(changes) && isBelow(changes[end].Path, changes[i].Path) {
			end++
		}
		differs := func(c permissions.Change) bool { return difference(c) != difference(changes[i]) }
		if slices.ContainsFunc(changes[i:end], differs) {
			end = i + 1
		}
		rows = append(rows, row{changes[i], end - i - 1})
		i = end
	}
	return rows
}

func isBelow(name, dir string) bool { return dir == "." || strings.HasPrefix(name, dir+"/") }

// difference is what changes, whatever the file.
func difference(c permissions.Change) [4]string {
	r := newChange(c)
	return [4]string{r.FromOwner, r.ToOwner, r.FromMode, r.ToMode}
}

func line(w work, c row) string {
	r := newChange(c.Change)
	text := ui.Printable(filepath.Join(w.tree.Path, c.Path))
	if c.below > 0 {
		text += fmt.Sprintf(" and %d in it", c.below)
	}
	text += ":"
	if c.Owner() {
		text += fmt.Sprintf(" owner %s → %s", r.FromOwner, r.ToOwner)
	}
	if c.Owner() && c.Mode() {
		text += ","
	}
	if c.Mode() {
		text += fmt.Sprintf(" mode %s → %s", r.FromMode, r.ToMode)
	}
	return text
}

func (t tool) conclude(works []work, dryRun bool) {
	for _, w := range works {
		many := fmt.Sprintf("%d of %s", len(w.plan.Changes), ui.Count(int64(w.plan.Files), "file"))
		switch {
		case len(w.plan.Changes) == 0:
			t.env.UI.Donef("%s: %s is right (%s's)", w.kind, w.tree.Path, w.owner)
		case dryRun:
			t.env.UI.Infof("%s: %s to change", w.kind, many)
		default:
			t.env.UI.Donef("%s: %s changed", w.kind, many)
		}
	}
}

func newReport(works []work, applied bool) report {
	r := report{Applied: applied, Trees: []treeReport{}}
	for _, w := range works {
		tree := treeReport{
			Path: ui.JSONPath(w.tree.Path), Kind: w.kind, Owner: w.owner, Files: w.plan.Files,
			Changes: []changeReport{}, Skipped: []skippedReport{},
		}
		for _, change := range w.plan.Changes {
			tree.Changes = append(tree.Changes, newChange(change))
		}
		for _, skipped := range w.plan.Skipped {
			tree.Skipped = append(tree.Skipped, skippedReport{ui.JSONPath(skipped.Path), skipped.Reason})
		}
		r.Trees = append(r.Trees, tree)
	}
	return r
}

func newChange(c permissions.Change) changeReport {
	r := changeReport{Path: ui.JSONPath(c.Path)}
	if c.Owner() {
		r.FromOwner, r.ToOwner = fmt.Sprintf("%d:%d", c.FromUID, c.FromGID), fmt.Sprintf("%d:%d", c.ToUID, c.ToGID)
	}
	if c.Mode() {
		r.FromMode, r.ToMode = fmt.Sprintf("%04o", c.FromMode), fmt.Sprintf("%04o", c.ToMode)
	}
	return r
}
