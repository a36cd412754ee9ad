package clikit

import (
	"fmt"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/ui"
)

// version is set by the linker: -X nixos-go/pkg/clikit.version=1.2.
var version string

// Version is the version of the toolkit.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				return "0-" + setting.Value[:min(12, len(setting.Value))]
			}
		}
	}
	return "0-unknown"
}

// FlagDoc is a flag as documentation shows it.
type FlagDoc struct {
	// Names are the names without dashes, the long one first.
	Names []string
	// Value is the placeholder of its value; empty for a switch.
	Value string
	// Usage says what it does, with its default and environment variable.
	Usage string
}

// FlagDocs are the visible flags, in order of definition.
func FlagDocs(flags []cli.Flag) []FlagDoc {
	var docs []FlagDoc
	for _, flag := range flags {
		if visible, ok := flag.(cli.VisibleFlag); ok && !visible.IsVisible() {
			continue
		}
		documented, ok := flag.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		value, usage := placeholder(documented.GetUsage())
		if !documented.TakesValue() {
			value = ""
		} else if value == "" {
			value = "VALUE"
		}
		if text := documented.GetDefaultText(); text != "" && documented.TakesValue() && text != `""` {
			usage += " (default: " + strings.Trim(text, `"`) + ")"
		}
		if env := documented.GetEnvVars(); len(env) > 0 {
			usage += " [$" + strings.Join(env, ", $") + "]"
		}
		docs = append(docs, FlagDoc{Names: flag.Names(), Value: value, Usage: usage})
	}
	return docs
}

// placeholder is the back-quoted word of a usage, and the usage without the
// quotes.
func placeholder(usage string) (value, plain string) {
	_, rest, found := strings.Cut(usage, "`")
	if !found {
		return "", usage
	}
	value, _, _ = strings.Cut(rest, "`")
	return value, strings.ReplaceAll(usage, "`", "")
}

// Synopsis is a flag as it is typed: "-n, --dry-run", "--host NAME".
func (f FlagDoc) Synopsis() string {
	var short, long []string
	for _, name := range f.Names {
		if len(name) == 1 {
			short = append(short, "-"+name)
		} else {
			long = append(long, "--"+name)
		}
	}
	text := strings.Join(append(short, long...), ", ")
	if f.Value != "" {
		text += " " + f.Value
	}
	return text
}

// Help is the help of a tool, or of one of its commands.
func Help(app *cli.App, chain []*cli.Command, u *ui.UI) string {
	h := helpText{ui: u}
	full := strings.Join(append([]string{app.Name}, names(chain)...), " ")
	usage, description := app.Usage, app.Description
	commands, own := app.Commands, app.Flags
	inherited := make([]cli.Flag, 0, len(own))
	for _, command := range chain {
		usage, description = command.Usage, command.Description
		inherited = append(inherited, own...)
		commands, own = command.Subcommands, command.Flags
	}
	h.printf("%s: %s\n", u.Out(ui.Bold, full), usage)
	h.printf("\n%s %s\n", u.Out(ui.Bold, "Usage:"), UsageLine(app, chain))
	if description != "" {
		h.printf("\n%s\n", Wrap(description, helpWidth, ""))
	}
	h.commands(commands)
	h.flags("Options:", own)
	h.flags("Options of every command:", inherited)
	h.examples(full, DocOf(app).Examples)
	return h.String()
}

func names(chain []*cli.Command) []string {
	list := make([]string, 0, len(chain))
	for _, command := range chain {
		list = append(list, command.Name)
	}
	return list
}

// UsageLine is the form of a command line.
func UsageLine(app *cli.App, chain []*cli.Command) string {
	words := append([]string{app.Name}, names(chain)...)
	argsUsage, commands := app.ArgsUsage, len(app.Commands) > 0
	needed := app.Metadata[needsCommandKey] == true
	if len(chain) > 0 {
		last := chain[len(chain)-1]
		argsUsage, commands, needed = last.ArgsUsage, len(last.Subcommands) > 0, true
	}
	switch {
	case commands && needed:
		words = append(words, "COMMAND")
	case commands:
		words = append(words, "[COMMAND]")
	}
	words = append(words, "[OPTIONS]")
	if argsUsage != "" {
		words = append(words, argsUsage)
	}
	return strings.Join(words, " ")
}

// helpWidth is where help texts are broken, in columns.
const helpWidth = 80

type helpText struct {
	strings.Builder

	ui *ui.UI
}

func (h *helpText) printf(format string, args ...any) { fmt.Fprintf(h, format, args...) }

func (h *helpText) commands(commands []*cli.Command) {
	var rows [][2]string
	for _, command := range commands {
		if !command.Hidden {
			rows = append(rows, [2]string{command.Name, command.Usage})
		}
	}
	h.section("Commands:", rows)
}

func (h *helpText) flags(title string, flags []cli.Flag) {
	docs := FlagDocs(flags)
	rows := make([][2]string, 0, len(docs))
	for _, flag := range docs {
		synopsis := flag.Synopsis()
		if !strings.HasPrefix(synopsis, "-") || strings.HasPrefix(synopsis, "--") {
			synopsis = "    " + synopsis
		}
		rows = append(rows, [2]string{synopsis, flag.Usage})
	}
	h.section(title, rows)
}

// section shows rows in two columns.
func (h *helpText) section(title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	const widest = 26
	left := 0
	for _, row := range rows {
		if n := utf8.RuneCountInString(row[0]); n <= widest {
			left = max(left, n)
		}
	}
	h.printf("\n%s\n", h.ui.Out(ui.Bold, title))
	indent := strings.Repeat(" ", left+4)
	for _, row := range rows {
		text := strings.TrimLeft(Wrap(row[1], helpWidth, indent), " ")
		if utf8.RuneCountInString(row[0]) > left {
			h.printf("  %s\n%s%s\n", row[0], indent, text)
			continue
		}
		h.printf("  %-*s  %s\n", left, row[0], text)
	}
}

// examples shows those that begin with the command; all for the tool itself.
func (h *helpText) examples(full string, examples []Example) {
	var own []Example
	for _, example := range examples {
		if strings.Contains(example.Command+" ", full+" ") {
			own = append(own, example)
		}
	}
	if len(own) == 0 {
		return
	}
	h.printf("\n%s\n", h.ui.Out(ui.Bold, "Examples:"))
	for _, example := range own {
		h.printf("  %s\n%s\n", example.Command, Wrap(example.Does, helpWidth, "      "))
	}
}

// Wrap breaks text at spaces; each line begins with indent. A line that begins
// with a space is kept as it is, a blank line ends a paragraph.
func Wrap(text string, width int, indent string) string {
	var lines []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		lines = append(lines, wrapParagraph(paragraph, width, indent)...)
		lines = append(lines, "")
	}
	return strings.Join(lines[:len(lines)-1], "\n")
}

func wrapParagraph(paragraph string, width int, indent string) []string {
	var lines []string
	current := ""
	flush := func() {
		if current != "" {
			lines = append(lines, indent+current)
			current = ""
		}
	}
	for line := range strings.SplitSeq(paragraph, "\n") {
		if strings.HasPrefix(line, " ") {
			flush()
			lines = append(lines, indent+line)
			continue
		}
		for word := range strings.FieldsSeq(line) {
			length := utf8.RuneCountInString(indent + current + " " + word)
			if current != "" && length > width {
				flush()
			}
			if current != "" {
				current += " "
			}
			current += word
		}
	}
	flush()
	return lines
}
