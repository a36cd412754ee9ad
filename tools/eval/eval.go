// Package eval is nixos-eval: it shows attributes of the machine's
// configuration, however many, in one evaluation.
package eval

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/nix"
)

// App is the tool.
func App() *cli.App { return newApp(clikit.System()) }

func newApp(env *clikit.Env) *cli.App {
	t := tool{env}
	return clikit.New(&cli.App{
		Name:      "nixos-eval",
		Usage:     "show attributes of the machine's configuration",
		ArgsUsage: "ATTRIBUTE…",
		Description: "Evaluates attributes of the configuration in the flake, all of them in one " +
			"evaluation. A name such as networking.hostName is looked up below config; one that " +
			"begins with config, options or pkgs is taken from the top. Names that hold a dot " +
			"stand in double quotes.\n\n" +
			"One attribute gives its bare value; several give one line each, NAME = VALUE. A " +
			"value that is a string shows without quotes.\n\n" +
			"What is shown is the flake as it lies there, not the running system.",
		Flags: []cli.Flag{
			clikit.JSONFlag(),
			&cli.BoolFlag{Name: "raw", Usage: "write the one value, a string, as it is, without a newline"},
			&cli.BoolFlag{Name: "names", Usage: "list the names of the attributes below instead of values"},
			flake.HostFlag(), flake.TargetFlag(), clikit.FlakeFlag(),
			clikit.DryRunFlag(), clikit.YesFlag(),
		},
		Action: t.run,
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "nixos-eval networking.hostName", Does: "the machine's name"},
			{Command: "nixos-eval --json settings.disk boot.kernelParams", Does: "two attributes as one JSON object"},
			{Command: "nixos-eval --names settings", Does: "what settings there are"},
			{Command: "nixos-eval --host VM-TEST --target Secure-Boot settings.boot", Does: "of another configuration of the flake"},
		},
		Files: []clikit.File{
			{Path: "/etc/nixos/config.json", Does: "which configuration of the flake the machine is"},
		},
		SeeAlso: []string{"nixos-update(8)", "nix3-eval(1)"},
	})
}

type tool struct{ env *clikit.Env }

// query is what was asked for.
type query struct {
	asked []string
	paths []nix.AttributePath
}

func newQuery(args []string) (query, error) {
	q := query{asked: args}
	for _, text := range args {
		p, err := nix.ParseAttributePath(text)
		if err != nil {
			return q, clikit.Usagef("%v", err)
		}
		switch p[0] {
		case "config", "options", "pkgs":
		default:
			p = append(nix.AttributePath{"config"}, p...)
		}
		q.paths = append(q.paths, p)
	}
	return q, nil
}

func (t tool) run(c *cli.Context) error {
	q, err := newQuery(c.Args().Slice())
	switch {
	case err != nil:
		return err
	case len(q.paths) == 0:
		return clikit.Usagef("which attribute?")
	case len(q.paths) > 1 && (c.Bool("raw") || c.Bool("names")):
		return clikit.Usagef("--raw and --names take one attribute")
	case c.Bool("raw") && (c.Bool("json") || c.Bool("names")):
		return clikit.Usagef("--raw goes with neither --json nor --names")
	}
	options := clikit.OptionsOf(c)
	dir, err := flake.Dir(c.String("flake"))
	if err != nil {
		return err
	}
	selected, err := flake.Select(dir, c.String("host"), c.String("target"))
	if err != nil {
		return err
	}
	f, err := flake.Open(c.Context, t.env, options, dir)
	if err != nil {
		return err
	}
	command := f.EvalMany(selected.Configuration(), q.paths)
	if c.Bool("names") {
		command = f.EvalNames(selected.Configuration(), q.paths[0])
	}
	if options.DryRun {
		return t.env.UI.Print(command.String())
	}
	result, err := t.env.Host.Run(c.Context, command)
	if err != nil {
		return err
	}
	if c.Bool("names") {
		return t.names(result.Stdout, options.JSON)
	}
	return t.values(q, result.Stdout, options.JSON, c.Bool("raw"))
}

// names shows a list of names.
func (t tool) names(output []byte, asJSON bool) error {
	var names []string
	if err := json.Unmarshal(output, &names); err != nil {
		return fmt.Errorf("nix eval: %w", err)
	}
	if asJSON {
		return t.env.UI.JSON(names)
	}
	for i, name := range names {
		names[i] = nix.AttributePath{name}.String()
	}
	return t.env.UI.Print(strings.Join(names, "\n"))
}

// values shows what the attributes are.
func (t tool) values(q query, output []byte, asJSON, raw bool) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(output, &object); err != nil {
		return fmt.Errorf("nix eval: %w", err)
	}
	values := make([]json.RawMessage, len(q.paths))
	for i, p := range q.paths {
		value, ok := object[p.String()]
		if !ok {
			return fmt.Errorf("nix eval gave no value for %s", q.asked[i])
		}
		values[i] = value
	}
	switch {
	case raw:
		var text string
		if err := json.Unmarshal(values[0], &text); err != nil {
			return fmt.Errorf("%s is no string, which --raw needs: %s", q.asked[0], short(values[0]))
		}
		return t.env.UI.Raw(text)
	case asJSON && len(values) == 1:
		return t.env.UI.JSON(values[0])
	case asJSON:
		byName := map[string]json.RawMessage{}
		for i, value := range values {
			byName[q.asked[i]] = value
		}
		return t.env.UI.JSON(byName)
	case len(values) == 1:
		return t.env.UI.Print(pretty(values[0]))
	}
	var b strings.Builder
	for i, value := range values {
		fmt.Fprintf(&b, "%s = %s\n", q.asked[i], pretty(value))
	}
	return t.env.UI.Print(b.String())
}

// pretty is a value for people: a string bare, anything else as JSON.
func pretty(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	var b bytes.Buffer
	if json.Indent(&b, value, "", "  ") != nil {
		return string(value)
	}
	return b.String()
}

// short is the beginning of a value.
func short(value json.RawMessage) string {
	const longest = 60
	if len(value) > longest {
		return string(value[:longest]) + "…"
	}
	return string(value)
}
