package docs

import (
	"fmt"
	"strings"

	"nixos-go/pkg/clikit"
)

// zsh is a completion for zsh, by _arguments.
func (p page) zsh() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# zsh completion for %s\n", p.name, p.name)
	b.WriteString("local curcontext=$curcontext state line\ntypeset -A opt_args\n")
	p.zshCommand(&b, p.command, nil, "")
	return b.String()
}

// zshCommand completes one command; the words after a subcommand are completed
// by what follows for it.
func (p page) zshCommand(b *strings.Builder, c command, inherited []clikit.FlagDoc, indent string) {
	flags := append(append([]clikit.FlagDoc(nil), c.flags...), inherited...)
	b.WriteString(indent + "_arguments -s -S -C")
	for _, flag := range flags {
		for _, spec := range p.zshFlag(flag) {
			b.WriteString(" \\\n" + indent + "  " + spec)
		}
	}
	if len(c.commands) > 0 {
		b.WriteString(" \\\n" + indent + "  '1: :->command' \\\n" + indent + "  '*:: :->rest'")
	} else if kind, choices := p.argument(c); kind != Nothing {
		b.WriteString(" \\\n" + indent + "  " + quote("*: :"+zshAction(kind, choices)))
	}
	b.WriteString(" && return 0\n")
	if len(c.commands) == 0 {
		return
	}
	p.zshCommands(b, c, flags, indent)
}

func (p page) zshCommands(b *strings.Builder, c command, flags []clikit.FlagDoc, indent string) {
	b.WriteString(indent + "case $state in\n" + indent + "  command)\n" + indent + "    local -a commands=(\n")
	for _, sub := range c.commands {
		fmt.Fprintf(b, "%s      %s\n", indent, quote(strings.ReplaceAll(sub.name, ":", `\:`)+":"+sub.usage))
	}
	b.WriteString(indent + "    )\n" + indent + "    _describe command commands\n")
	if kind, choices := p.argument(c); kind != Nothing {
		b.WriteString(indent + "    " + strings.Trim(zshStatement(kind, choices), " ") + "\n")
	}
	b.WriteString(indent + "    ;;\n" + indent + "  rest)\n" + indent + "    case $line[1] in\n")
	for _, sub := range c.commands {
		fmt.Fprintf(b, "%s      %s)\n", indent, sub.name)
		p.zshCommand(b, sub, flags, indent+"        ")
		b.WriteString(indent + "        ;;\n")
	}
	b.WriteString(indent + "    esac\n" + indent + "    ;;\n" + indent + "esac\n")
}

// zshFlag are the specifications of one flag: each name excludes the others.
func (p page) zshFlag(flag clikit.FlagDoc) []string {
	names := dashed(flag.Names)
	description := strings.NewReplacer("[", `\[`, "]", `\]`).Replace(flag.Usage)
	specs := make([]string, 0, len(names))
	for _, name := range names {
		exclude := ""
		if len(names) > 1 {
			exclude = "(" + strings.Join(names, " ") + ")"
		}
		spec := exclude + name
		if flag.Value != "" {
			if strings.HasPrefix(name, "--") {
				spec += "="
			}
			kind, choices := p.value(flag.Value)
			spec += "[" + description + "]:" + flag.Value + ":" + zshAction(kind, choices)
		} else {
			spec += "[" + description + "]"
		}
		specs = append(specs, quote(spec))
	}
	return specs
}

// zshAction is the part of a specification that lists values.
func zshAction(kind Kind, choices []string) string {
	switch kind {
	case Choices:
		return "(" + strings.Join(choices, " ") + ")"
	case Files:
		return "_files"
	case Folders:
		return "_files -/"
	case Hosts, Disks, Tools:
		return "{" + zshStatement(kind, nil) + "}"
	case Nothing:
	}
	return " "
}

func zshStatement(kind Kind, choices []string) string {
	switch kind {
	case Choices:
		return "compadd -- " + strings.Join(choices, " ")
	case Files:
		return "_files"
	case Folders:
		return "_files -/"
	case Hosts, Disks, Tools:
		return fmt.Sprintf("compadd -- ${(f)\"$(nixos-go complete %s 2>/dev/null)\"}", kind)
	case Nothing:
	}
	return ""
}
