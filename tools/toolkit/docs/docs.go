// Package docs writes man pages and shell completions from the definitions that
// the tools parse their command lines by, so that none can differ from what a
// tool does.
//
// Completions are plain text: pressing the tab key starts a program only for
// what is not known beforehand, the hosts of the flake and the disks of the
// machine ("nixos-go complete KIND").
package docs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
)

// Kind is what a placeholder stands for.
type Kind string

// What the shells, or nixos-go complete, can list.
const (
	Nothing Kind = ""
	Files   Kind = "files"
	Folders Kind = "folders"
	Hosts   Kind = "hosts"
	Disks   Kind = "disks"
	Tools   Kind = "tools"
	Choices Kind = "choices"
)

// placeholders are the words in usages that stand for something that can be
// listed.
var placeholders = map[string]Kind{
	"DIR": Folders, "FILE": Files, "PATH": Files, "HOST": Hosts, "DISK": Disks, "NAME": Nothing,
}

// command is a tool or one of its commands.
type command struct {
	name        string
	usage       string
	description string
	synopsis    string
	args        string
	flags       []clikit.FlagDoc
	commands    []command
}

// page is a tool with everything that is said of it.
type page struct {
	command

	doc clikit.Doc
}

func newPage(app *cli.App) page {
	p := page{doc: clikit.DocOf(app)}
	p.command = command{
		name: app.Name, usage: app.Usage, description: app.Description, args: app.ArgsUsage,
		synopsis: clikit.UsageLine(app, nil), flags: clikit.FlagDocs(app.Flags),
		commands: newCommands(app, nil, app.Commands),
	}
	return p
}

func newCommands(app *cli.App, chain, list []*cli.Command) []command {
	var commands []command
	for _, c := range list {
		if c.Hidden {
			continue
		}
		below := append(slices.Clone(chain), c)
		commands = append(commands, command{
			name: c.Name, usage: c.Usage, description: c.Description, args: c.ArgsUsage,
			synopsis: clikit.UsageLine(app, below), flags: clikit.FlagDocs(c.Flags),
			commands: newCommands(app, below, c.Subcommands),
		})
	}
	return commands
}

// value is what a flag's or argument's placeholder stands for.
func (p page) value(placeholder string) (Kind, []string) {
	word := strings.Trim(placeholder, "[]…")
	if choices, ok := p.doc.Choices[word]; ok {
		return Choices, choices
	}
	return placeholders[word], nil
}

// argument is what the arguments of a command stand for.
func (p page) argument(c command) (Kind, []string) {
	for word := range strings.FieldsSeq(c.args) {
		if kind, choices := p.value(word); kind != Nothing {
			return kind, choices
		}
	}
	return Nothing, nil
}

// Write writes the man page of a tool, NAME.8, into one folder and its
// completions, NAME.bash, NAME.fish and _NAME for zsh, into another; an empty
// name leaves that out.
func Write(app *cli.App, man, completions string) error {
	p := newPage(app)
	files := map[string]string{}
	if man != "" {
		files[filepath.Join(man, p.name+".8")] = p.man()
	}
	if completions != "" {
		files[filepath.Join(completions, p.name+".bash")] = p.bash()
		files[filepath.Join(completions, "_"+p.name)] = p.zsh()
		files[filepath.Join(completions, p.name+".fish")] = p.fish()
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
