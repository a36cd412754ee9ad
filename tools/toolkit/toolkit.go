// Package toolkit is nixos-go: every tool in one program.
//
// Called through a symlink with a tool's name it is that tool; called as
// "nixos-go NAME …" it is NAME as well; called bare it lists them. One program
// of this kind weighs about as much as a single tool, since all share the same
// runtime and libraries.
package toolkit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	changepassword "nixos-go/tools/change_password"
	"nixos-go/tools/diff"
	"nixos-go/tools/eval"
	fixpermissions "nixos-go/tools/fix_permissions"
	gpuvfio "nixos-go/tools/gpu_vfio"
	"nixos-go/tools/install"
	secureboottool "nixos-go/tools/secure_boot"
	"nixos-go/tools/snapshot"
	"nixos-go/tools/toolkit/docs"
	tpm2tool "nixos-go/tools/tpm2"
	"nixos-go/tools/update"
)

// tool is a tool by its name; building its app is left until it is needed.
type tool struct {
	name string
	app  func() *cli.App
}

func tools() []tool {
	return []tool{
		{"gpu-vfio", gpuvfio.App},
		{"nixos-change-password", changepassword.App},
		{"nixos-diff", diff.App},
		{"nixos-eval", eval.App},
		{"nixos-fix-permissions", fixpermissions.App},
		{"nixos-install-go", install.App},
		{"nixos-secure-boot", secureboottool.App},
		{"nixos-snapshot", snapshot.App},
		{"nixos-tpm2", tpm2tool.App},
		{"nixos-update", update.App},
	}
}

// Main runs the tool that the program's name or first argument asks for.
func Main(args []string) int {
	called := filepath.Base(args[0])
	if t, ok := find(called); ok {
		return clikit.MainArgs(t.app(), args[1:])
	}
	if len(args) > 1 {
		if t, ok := find(args[1]); ok {
			return clikit.MainArgs(t.app(), args[2:])
		}
	}
	return clikit.MainArgs(App(), args[1:])
}

// find looks a tool up by its name, or by its name without "nixos-".
func find(name string) (tool, bool) {
	for _, t := range tools() {
		if t.name == name || strings.TrimPrefix(t.name, "nixos-") == name {
			return t, true
		}
	}
	return tool{}, false
}

// App is nixos-go itself.
func App() *cli.App { return newApp(clikit.System()) }

func newApp(env *clikit.Env) *cli.App {
	k := toolkit{env}
	return clikit.New(&cli.App{
		Name:  "nixos-go",
		Usage: "manage a NixOS machine that is reset at every boot",
		Description: "All tools in one program. nixos-go NAME runs the tool NAME, with or without " +
			"the nixos- before it; so does a symlink called NAME. Without a name the tools are listed.",
		ArgsUsage: "[NAME [ARGUMENT…]]",
		Flags:     []cli.Flag{clikit.JSONFlag()},
		Action:    k.list,
		Commands: []*cli.Command{
			{
				Name: "install-links", Usage: "make a symlink for each tool",
				ArgsUsage: "DIR",
				Description: "The links lead to the nixos-go that lies in DIR itself, or, where there " +
					"is none, to this program by its absolute path. A file that is no symlink is " +
					"not replaced.",
				Flags:  []cli.Flag{clikit.DryRunFlag()},
				Action: k.installLinks,
			},
			{
				Name: "docs", Usage: "write man pages and completions", Hidden: true,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "man", Usage: "write NAME.8 into `DIR`"},
					&cli.StringFlag{Name: "completions", Usage: "write NAME.bash, NAME.fish and _NAME into `DIR`"},
				},
				Action: k.docs,
			},
			{
				Name: "complete", Usage: "list what can stand for a placeholder", Hidden: true,
				ArgsUsage: "KIND",
				Action:    k.complete,
			},
		},
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "nixos-go", Does: "what tools there are"},
			{Command: "nixos-go eval networking.hostName", Does: "the same as nixos-eval networking.hostName"},
			{Command: "nixos-go install-links ~/bin", Does: "call the tools by their own names"},
		},
		Choices: map[string][]string{"NAME": names("")},
		SeeAlso: names("(8)"),
	})
}

// names are the names of the tools, each with an ending.
func names(ending string) []string {
	list := make([]string, 0, len(tools()))
	for _, t := range tools() {
		list = append(list, t.name+ending)
	}
	return list
}

type toolkit struct{ env *clikit.Env }

type listed struct {
	Name  string `json:"name"`
	Usage string `json:"usage"`
}

// list shows the tools.
func (k toolkit) list(c *cli.Context) error {
	if c.Args().Present() {
		return clikit.Usagef("no tool is named %q; nixos-go alone lists them", c.Args().First())
	}
	var list []listed
	width := 0
	for _, t := range tools() {
		list = append(list, listed{t.name, t.app().Usage})
		width = max(width, len(t.name))
	}
	if c.Bool("json") {
		return k.env.UI.JSON(list)
	}
	var b strings.Builder
	for _, t := range list {
		fmt.Fprintf(&b, "%-*s  %s\n", width, t.Name, t.Usage)
	}
	if err := k.env.UI.Print(b.String()); err != nil {
		return err
	}
	k.env.UI.Hintf("NAME --help shows how a tool is used")
	return nil
}

// installLinks makes the symlinks.
func (k toolkit) installLinks(c *cli.Context) error {
	if c.NArg() != 1 {
		return clikit.Usagef("install-links takes one folder")
	}
	dir, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("where this program lies: %w", err)
	}
	to := self
	if _, err := os.Stat(filepath.Join(dir, "nixos-go")); err == nil {
		to = "nixos-go"
	}
	result := links{Target: to, Links: []string{}, Applied: !c.Bool("dry-run")}
	for _, t := range tools() {
		link := filepath.Join(dir, t.name)
		result.Links = append(result.Links, link)
		if result.Applied {
			err = symlink(to, link)
		} else if !c.Bool("json") {
			err = k.env.UI.Printf("%s → %s", link, to)
		}
		if err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return k.env.UI.JSON(result)
	}
	if result.Applied {
		k.env.UI.Donef("%d links in %s lead to %s", len(result.Links), dir, to)
	}
	return nil
}

// links is the result of install-links.
type links struct {
	Applied bool     `json:"applied"`
	Target  string   `json:"target"`
	Links   []string `json:"links"`
}

// symlink makes a symlink, or replaces one.
func symlink(to, link string) error {
	info, err := os.Lstat(link)
	if err == nil {
		if info.Mode()&os.ModeSymlink == 0 {
			return fmt.Errorf("%s is there and no symlink: move it away", link)
		}
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	return os.Symlink(to, link)
}

// docs writes man pages and completions.
func (k toolkit) docs(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	man, completions := c.String("man"), c.String("completions")
	if man == "" && completions == "" {
		return clikit.Usagef("docs needs --man DIR or --completions DIR")
	}
	apps := []*cli.App{newApp(k.env)}
	for _, t := range tools() {
		apps = append(apps, t.app())
	}
	for _, app := range apps {
		if err := docs.Write(app, man, completions); err != nil {
			return err
		}
	}
	return nil
}
