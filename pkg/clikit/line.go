package clikit

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// line is a command line in the order that urfave/cli reads: the flags of each
// command directly after its name, arguments last.
type line struct {
	args     []string
	commands []*cli.Command // the chain of subcommands, outermost first
	dashes   int            // how many arguments stand before "--"; -1 without it
	help     bool
	version  bool
}

// level is one command of the chain while a line is sorted.
type level struct {
	name  string
	flags []cli.Flag
	given []string
}

// parse sorts a command line. A flag belongs to the innermost command of the
// chain that defines it, wherever it stands.
func parse(app *cli.App, args []string) (line, error) {
	p := parser{
		levels: []*level{{name: app.Name, flags: app.Flags}},
		next:   app.Commands,
		dashes: -1,
	}
	if err := p.read(args); err != nil {
		return line{commands: p.commands}, err
	}
	return p.sorted()
}

type parser struct {
	levels   []*level
	next     []*cli.Command // the subcommands that may come
	commands []*cli.Command
	flags    [][]string // each with its value, in order
	args     []string
	dashes   int // how many arguments stand before "--"; -1 without it
}

func (p *parser) read(args []string) error {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			p.dashes = len(p.args)
			p.args = append(p.args, args[i+1:]...)
			return nil
		case len(arg) < 2 || arg[0] != '-':
			p.positional(arg)
			continue
		}
		flag := p.known(flagName(arg))
		if flag == nil {
			return p.unknown(arg)
		}
		given := []string{arg}
		if takesValue(flag) && !strings.Contains(arg, "=") {
			if i+1 == len(args) {
				return Usagef("%s needs a value", arg)
			}
			i++
			given = append(given, args[i])
		}
		p.flags = append(p.flags, given)
	}
	return nil
}

// positional takes an argument, or descends into a subcommand.
func (p *parser) positional(arg string) {
	if len(p.args) == 0 {
		for _, command := range p.next {
			if command.HasName(arg) {
				p.commands = append(p.commands, command)
				p.levels = append(p.levels, &level{name: arg, flags: command.Flags})
				p.next = command.Subcommands
				return
			}
		}
	}
	p.args = append(p.args, arg)
}

// known finds a flag in the chain so far, or else in what may follow.
func (p *parser) known(name string) cli.Flag {
	for _, l := range slices.Backward(p.levels) {
		if flag := find(l.flags, name); flag != nil {
			return flag
		}
	}
	return findBelow(p.next, name)
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, flag := range flags {
		if slices.Contains(flag.Names(), name) {
			return flag
		}
	}
	return nil
}

func findBelow(commands []*cli.Command, name string) cli.Flag {
	for _, command := range commands {
		if flag := find(command.Flags, name); flag != nil {
			return flag
		}
		if flag := findBelow(command.Subcommands, name); flag != nil {
			return flag
		}
	}
	return nil
}

// sorted gives each flag to its command.
func (p *parser) sorted() (line, error) {
	result := line{commands: p.commands, dashes: p.dashes}
	for _, given := range p.flags {
		name := flagName(given[0])
		owner := p.owner(name)
		switch {
		case owner == nil:
			return line{}, p.unknown(given[0])
		case name == "help" || name == "h":
			result.help = true
		case name == "version":
			result.version = true
		default:
			owner.given = append(owner.given, given...)
		}
	}
	for i, l := range p.levels {
		if i > 0 {
			result.args = append(result.args, l.name)
		}
		result.args = append(result.args, l.given...)
	}
	if p.dashes >= 0 || slices.ContainsFunc(p.args, func(a string) bool { return strings.HasPrefix(a, "-") }) {
		result.args = append(result.args, "--")
	}
	result.args = append(result.args, p.args...)
	return result, nil
}

func (p *parser) owner(name string) *level {
	for _, l := range slices.Backward(p.levels) {
		if find(l.flags, name) != nil {
			return l
		}
	}
	return nil
}

// unknown is the error of a flag that nobody defines, with the nearest one
// that somebody does.
func (p *parser) unknown(arg string) error {
	name := flagName(arg)
	best, distance := "", len(name)/2+1
	for _, l := range p.levels {
		for _, flag := range l.flags {
			for _, candidate := range flag.Names() {
				if d := editDistance(name, candidate); len(candidate) > 1 && d < distance {
					best, distance = candidate, d
				}
			}
		}
	}
	shown, _, _ := strings.Cut(arg, "=")
	if best != "" {
		return Usagef("unknown flag %s: did you mean --%s?", shown, best)
	}
	return Usagef("unknown flag %s", shown)
}

// editDistance is Levenshtein's distance in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// flagName is the name in -name, --name and --name=value.
func flagName(arg string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	name, _, _ = strings.Cut(name, "=")
	return name
}

func takesValue(flag cli.Flag) bool {
	documented, ok := flag.(cli.DocGenerationFlag)
	return ok && documented.TakesValue()
}
