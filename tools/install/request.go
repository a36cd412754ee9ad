package install

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/settings"
)

// defaultRoot is where disko mounts the target.
const defaultRoot = "/mnt"

// request is what the command line asks for, and what was found by it.
type request struct {
	options      clikit.Options
	hostName     string
	disk         string
	passwordFile string
	diskPassword string
	from         stepName
	mountOnly    bool
	remote       string
	// root is where the target is mounted, as this process sees it; inPlace says
	// that this system is the target.
	root    string
	inPlace bool
	unmount bool
	reboot  bool
	dir     string

	flake    nix.Flake
	host     settings.HostFile
	settings *settings.Settings
	// targetOwner owns the configuration of the target: root, until the
	// permissions are set.
	targetOwner int
}

func newRequest(c *cli.Context) (request, error) {
	r := request{
		options:      clikit.OptionsOf(c),
		hostName:     c.String("host"),
		disk:         c.String("disk"),
		passwordFile: c.String("password-file"), diskPassword: c.String("disk-password-file"),
		from:      stepName(c.String("from")),
		mountOnly: c.Bool("mount-only"),
		remote:    c.String("remote"),
		root:      filepath.Clean(c.String("root")),
		inPlace:   filepath.Clean(c.String("root")) == "/",
		unmount:   c.Bool("unmount"), reboot: c.Bool("reboot"),
		dir: c.String("flake"),
	}
	if r.diskPassword == "" {
		r.diskPassword = r.passwordFile
	}
	if err := clikit.NoArgs(c); err != nil {
		return r, err
	}
	return r, r.check()
}

// check refuses what contradicts itself.
func (r request) check() error {
	switch {
	case r.from != "" && !slices.Contains(allSteps, r.from):
		return clikit.Usagef("--from %q: no step has that name", r.from)
	case r.mountOnly && r.from != "":
		return clikit.Usagef("--mount-only and --from exclude each other")
	case r.mountOnly && (r.reboot || r.unmount):
		return clikit.Usagef("--mount-only leaves the target mounted: it excludes --unmount and --reboot")
	case r.remote != "" && (r.mountOnly || r.from != ""):
		return clikit.Usagef("--remote installs all of a machine: it excludes --mount-only and --from")
	case r.remote != "" && (strings.HasPrefix(r.remote, "-") || strings.ContainsAny(r.remote, " \t/")):
		return clikit.Usagef("--remote %q: use USER@HOST", r.remote)
	case r.remote != "" && r.root != defaultRoot:
		return clikit.Usagef("--remote and --root exclude each other")
	case !filepath.IsAbs(r.root):
		return clikit.Usagef("--root %q is no absolute path", r.root)
	case r.root != defaultRoot && !r.installedOnly():
		return clikit.Usagef("--root goes with the steps that need no disk: --from permissions, --from clean")
	}
	return nil
}

// installedOnly tells whether the steps need nothing but an installed system:
// no flake, no host, no disk.
func (r request) installedOnly() bool {
	return r.from == stepPermissions || r.from == stepClean || r.from == stepFinish
}
