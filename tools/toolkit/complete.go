package toolkit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/settings"
	"nixos-go/tools/toolkit/docs"
)

// complete lists what the shells offer for a kind of value, one a line. What
// cannot be found out is an empty list: nobody wants an error in the middle of
// a command line.
func (k toolkit) complete(c *cli.Context) error {
	var list []string
	switch docs.Kind(c.Args().First()) {
	case docs.Hosts:
		dir := k.env.Getenv("NIXOS_GO_ROOT")
		if dir == "" {
			dir = "/etc/nixos"
		}
		hosts, err := settings.Hosts(dir)
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		for _, host := range hosts {
			list = append(list, host.Name)
		}
	case docs.Disks:
		list = disks(k.env.Host.Files.Path("/sys/block"))
	case docs.Tools:
		list = names("")
	case docs.Nothing, docs.Files, docs.Folders, docs.Choices:
		fallthrough // the shells list those themselves
	default:
		return clikit.Usagef("complete %s, %s or %s", docs.Hosts, docs.Disks, docs.Tools)
	}
	return k.env.UI.Print(strings.Join(list, "\n"))
}

// disks are the whole disks that sysfs knows, without those that are only
// memory, files or layers.
func disks(sysBlock string) []string {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		virtual := slices.ContainsFunc([]string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"},
			func(prefix string) bool { return strings.HasPrefix(entry.Name(), prefix) })
		if !virtual {
			names = append(names, filepath.Join("/dev", entry.Name()))
		}
	}
	return names
}
