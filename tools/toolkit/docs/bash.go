package docs

import (
	"fmt"
	"regexp"
	"strings"

	"nixos-go/pkg/clikit"
)

var notIdentifier = regexp.MustCompile(`[^A-Za-z0-9_]`)

// function is the name of a tool's completion function.
func (p page) function() string { return "_" + notIdentifier.ReplaceAllString(p.name, "_") }

// quote is a word for a POSIX shell, always in single quotes.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// bash is a completion for bash 4 and later; it needs nothing of the package
// bash-completion.
func (p page) bash() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# bash completion for %s\n%s() {\n", p.name, p.function())
	b.WriteString(`  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} word command= plain= i
  COMPREPLY=()
  # bash splits --flag=value into three words.
  if [[ $cur == = ]]; then
    cur=
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    [[ $word == -- ]] && plain=1
    case $command/$word in
`)
	p.eachCommand(func(path string, _ command) {
		fmt.Fprintf(&b, "      %s) command=%s ;;\n", quote(path), quote(path))
	})
	b.WriteString("    esac\n  done\n")
	p.bashValues(&b)
	b.WriteString("  local flags= commands=\n  case $command in\n")
	p.bashCommand(&b, "", p.command, nil)
	p.eachCommand(func(path string, c command) { p.bashCommand(&b, path, c, p.flags) })
	b.WriteString(`  esac
  if [[ $cur == -* && -z $plain ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
    return
  fi
  [[ -z $commands ]] || mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
`)
	b.WriteString("  case $command in\n")
	p.bashArgument(&b, "", p.command)
	p.eachCommand(func(path string, c command) { p.bashArgument(&b, path, c) })
	fmt.Fprintf(&b, "  esac\n}\ncomplete -F %s %s\n", p.function(), p.name)
	return b.String()
}

// eachCommand visits the commands with their paths: "/enable", "/key/list".
func (p page) eachCommand(visit func(path string, c command)) {
	var below func(prefix string, commands []command)
	below = func(prefix string, commands []command) {
		for _, c := range commands {
			visit(prefix+"/"+c.name, c)
			below(prefix+"/"+c.name, c.commands)
		}
	}
	below("", p.commands)
}

// bashValues completes the value after a flag.
func (p page) bashValues(b *strings.Builder) {
	b.WriteString("  case $prev in\n")
	seen := map[string]bool{}
	values := func(flags []clikit.FlagDoc) {
		for _, flag := range flags {
			pattern := strings.Join(dashed(flag.Names), "|")
			if flag.Value == "" || seen[pattern] {
				continue
			}
			seen[pattern] = true
			kind, choices := p.value(flag.Value)
			fmt.Fprintf(b, "    %s)%s return ;;\n", pattern, bashCandidates(kind, choices))
		}
	}
	values(p.flags)
	p.eachCommand(func(_ string, c command) { values(c.flags) })
	b.WriteString("  esac\n")
}

func dashed(names []string) []string {
	list := make([]string, 0, len(names))
	for _, name := range names {
		if len(name) == 1 {
			list = append(list, "-"+name)
		} else {
			list = append(list, "--"+name)
		}
	}
	return list
}

// bashCandidates fills COMPREPLY.
func bashCandidates(kind Kind, choices []string) string {
	switch kind {
	case Files:
		return ` compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur");`
	case Folders:
		return ` compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur");`
	case Hosts, Disks, Tools:
		return fmt.Sprintf(` mapfile -t COMPREPLY < <(compgen -W "$(nixos-go complete %s 2>/dev/null)" -- "$cur");`, kind)
	case Choices:
		return fmt.Sprintf(` mapfile -t COMPREPLY < <(compgen -W %s -- "$cur");`, quote(strings.Join(choices, " ")))
	case Nothing:
	}
	return ""
}

// bashCommand names the flags and commands that may follow a command.
func (p page) bashCommand(b *strings.Builder, path string, c command, inherited []clikit.FlagDoc) {
	all := append(append([]clikit.FlagDoc(nil), c.flags...), inherited...)
	flags := make([]string, 0, len(all))
	for _, flag := range all {
		flags = append(flags, dashed(flag.Names)...)
	}
	commands := make([]string, 0, len(c.commands))
	for _, sub := range c.commands {
		commands = append(commands, sub.name)
	}
	fmt.Fprintf(b, "    %s) flags=%s commands=%s ;;\n", quote(path), quote(strings.Join(flags, " ")), quote(strings.Join(commands, " ")))
}

func (p page) bashArgument(b *strings.Builder, path string, c command) {
	if kind, choices := p.argument(c); kind != Nothing {
		text := strings.ReplaceAll(bashCandidates(kind, choices), "mapfile -t COMPREPLY", `mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY`)
		fmt.Fprintf(b, "    %s)%s ;;\n", quote(path), text)
	}
}
