package docs

import (
	"fmt"
	"strings"

	"nixos-go/pkg/clikit"
)

// fish is a completion for fish.
func (p page) fish() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# fish completion for %s\n", p.name)
	if kind, _ := p.argument(p.command); kind != Files {
		fmt.Fprintf(&b, "complete -c %s -f\n", p.name)
	}
	p.fishCommand(&b, p.command, nil, nil)
	return b.String()
}

// fishCommand completes one command below the chain of names; siblings are the
// commands of which one has not been typed yet.
func (p page) fishCommand(b *strings.Builder, c command, chain []string, _ []command) {
	names := make([]string, 0, len(c.commands))
	for _, sub := range c.commands {
		names = append(names, sub.name)
	}
	here := seen(chain)
	notYet := here
	if len(names) > 0 {
		notYet = and(here, "not __fish_seen_subcommand_from "+strings.Join(names, " "))
	}
	for _, flag := range c.flags {
		fmt.Fprintf(b, "complete -c %s%s%s\n", p.name, condition(here), p.fishFlag(flag))
	}
	if kind, choices := p.argument(c); kind != Nothing {
		fmt.Fprintf(b, "complete -c %s%s%s\n", p.name, condition(notYet), fishValues(kind, choices))
	}
	for _, sub := range c.commands {
		fmt.Fprintf(b, "complete -c %s%s -a %s -d %s\n", p.name, condition(notYet), sub.name, fishQuote(sub.usage))
	}
	for _, sub := range c.commands {
		p.fishCommand(b, sub, append(append([]string(nil), chain...), sub.name), c.commands)
	}
}

// seen is the condition that every name of a chain has been typed.
func seen(chain []string) string {
	text := ""
	for _, name := range chain {
		text = and(text, "__fish_seen_subcommand_from "+name)
	}
	return text
}

func and(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; and " + b
}

func condition(text string) string {
	if text == "" {
		return ""
	}
	return " -n " + fishQuote(text)
}

func (p page) fishFlag(flag clikit.FlagDoc) string {
	var b strings.Builder
	for _, name := range flag.Names {
		if len(name) == 1 {
			b.WriteString(" -s " + name)
		} else {
			b.WriteString(" -l " + name)
		}
	}
	if flag.Value != "" {
		kind, choices := p.value(flag.Value)
		if kind == Nothing {
			b.WriteString(" -x")
		} else {
			b.WriteString(" -r" + fishValues(kind, choices))
		}
	}
	b.WriteString(" -d " + fishQuote(flag.Usage))
	return b.String()
}

func fishValues(kind Kind, choices []string) string {
	switch kind {
	case Choices:
		return " -f -a " + fishQuote(strings.Join(choices, " "))
	case Files:
		return " -F"
	case Folders:
		return " -f -a '(__fish_complete_directories)'"
	case Hosts, Disks, Tools:
		return fmt.Sprintf(" -f -a '(nixos-go complete %s 2>/dev/null)'", kind)
	case Nothing:
	}
	return ""
}

// fishQuote is a word in single quotes, where fish knows \\ and \' alone.
func fishQuote(word string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(word) + "'"
}
