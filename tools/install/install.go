// Package install is nixos-install-go: it installs a host of the flake on a disk
// of this machine, from a live system.
//
// Everything that has to be asked is asked first; then the steps run, each of
// which can be repeated, with a state file that says how far they came. A plan,
// the list of steps, is made by a pure function, shown by a dry run and carried
// out by a session.
package install

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/flake"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/settings"
)

// App is the tool.
func App() *cli.App { return newApp(clikit.System(), takeClean) }

const description = "Installs a host of the flake on a disk of this machine, from a live system: " +
	"partitions and formats the disk by the flake's own disko, installs NixOS, puts the password's hash " +
	"where it persists, gives the configuration to the admin, and last takes CLEAN, the state that every " +
	"boot goes back to.\n\n" +
	"The disk is wiped only after its name was typed, or given by --yes and --disk together. It has to be " +
	"the one in the host's settings.disk.device. A mounted disk, the one this system runs from, one that " +
	"is too small, and a machine without EFI are refused.\n\n" +
	"A run that failed is taken up where it stopped: run the command again, or name a step with --from."

func newApp(env *clikit.Env, clean cleaner) *cli.App {
	t := tool{env, clean}
	names := make([]string, 0, len(allSteps))
	for _, name := range allSteps {
		names = append(names, string(name))
	}
	return clikit.New(&cli.App{
		Name:        "nixos-install-go",
		Usage:       "install a host of the flake on a disk of this machine",
		Description: description,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "host", Usage: "install the host `HOST`"},
			&cli.StringFlag{Name: "disk", Usage: "the disk `DISK` that is wiped; with --yes nothing is asked"},
			&cli.StringFlag{Name: "password-file", Usage: "read the admin's password from `FILE`"},
			&cli.StringFlag{Name: "disk-password-file", Usage: "read the disk's passphrase from `FILE` (default: that of --password-file)"},
			&cli.StringFlag{Name: "from", Usage: "begin with `STEP`: " + strings.Join(names, ", ")},
			&cli.BoolFlag{Name: "mount-only", Usage: "only mount an installed disk, to repair it"},
			&cli.StringFlag{Name: "remote", Usage: "install the machine `USER@HOST` by nixos-anywhere"},
			&cli.StringFlag{Name: "root", Value: defaultRoot, Usage: "the target is mounted at `DIR`"},
			&cli.BoolFlag{Name: "unmount", Usage: "unmount the target at the end, also after a failure"},
			&cli.BoolFlag{Name: "reboot", Usage: "reboot at the end, when everything went well"},
			&cli.StringFlag{
				Name: "flake", EnvVars: []string{"NIXOS_GO_ROOT"},
				Usage: "the configuration is in `DIR` (default: this folder if it holds a flake, else /etc/nixos)",
			},
			clikit.DryRunFlag(), clikit.JSONFlag(), clikit.YesFlag(),
		},
		Action: t.run,
	}, clikit.Doc{
		Examples: []clikit.Example{
			{Command: "sudo nixos-install-go", Does: "choose the host, name the disk, type the passwords, wait"},
			{Command: "sudo nixos-install-go --host FRACTAL-NORTH --dry-run", Does: "what it would do, and whether the disk is fit for it"},
			{Command: "sudo nixos-install-go --from install", Does: "go on after a failure, from the step install"},
			{Command: "sudo nixos-install-go --host VM-TEST --yes --disk /dev/vda --password-file pw", Does: "unattended; wipes /dev/vda"},
			{Command: "sudo nixos-install-go --host FRACTAL-NORTH --mount-only", Does: "mount the installed machine at /mnt and look into it"},
			{Command: "nixos-install-go --host SERVER --remote root@server", Does: "install another machine over SSH"},
		},
		Files: []clikit.File{
			{Path: "/run/nixos-go/install.json", Does: "how far an unfinished installation came"},
			{Path: "/run/nixos-go/luks-passphrase", Does: "the disk's passphrase, only while disko needs it"},
		},
		Choices: map[string][]string{"STEP": names},
		SeeAlso: []string{"nixos-update(8)", "nixos-snapshot(8)", "nixos-tpm2(8)", "nixos-secure-boot(8)", "nixos-install(8)", "nixos-enter(8)"},
	})
}

type tool struct {
	env   *clikit.Env
	clean cleaner
}

func (t tool) run(c *cli.Context) error {
	r, err := newRequest(c)
	if err != nil {
		return err
	}
	r.root = t.env.Host.Files.Path(r.root)
	if !r.options.DryRun && r.remote == "" {
		if err := t.env.RequireRoot("nixos-install-go"); err != nil {
			return err
		}
	}
	if !r.installedOnly() {
		if r, err = t.locate(c.Context, r); err != nil {
			return err
		}
	}
	if r.remote != "" {
		return t.installRemote(c.Context, r)
	}
	s := newSession(t, r)
	defer s.wipe()
	return s.run(c.Context)
}

// locate finds the flake, the host in it, and its settings. What an unfinished
// installation says of them holds where the command line says nothing.
func (t tool) locate(ctx context.Context, r request) (request, error) {
	unfinished, err := readState(t.env.Host.Files)
	if err != nil {
		return r, err
	}
	if unfinished != nil && r.hostName == "" && r.remote == "" {
		r.hostName = unfinished.Host
		if r.dir == "" {
			r.dir = unfinished.Flake
		}
	}
	dir, err := flake.Dir(cmp.Or(r.dir, t.flakeHere()))
	if err != nil {
		return r, err
	}
	hosts, err := settings.Hosts(dir)
	if err != nil {
		return r, clikit.WithHint(err, "name the folder of the configuration with --flake DIR")
	}
	if r.host, err = t.choose(ctx, hosts, r.hostName); err != nil {
		return r, err
	}
	if r.flake, err = flake.Open(ctx, t.env, r.options, dir); err != nil {
		return r, err
	}
	if !r.mountOnly {
		if err := checkCopyable(r.flake); err != nil {
			return r, err
		}
	}
	// The disk's own configuration is the smallest that has the settings.
	r.settings, err = settings.Evaluate(ctx, t.env.Host, r.flake, settings.Configuration(r.host.Name, settings.DiskOperation))
	return r, err
}

// flakeHere is the folder of the flake where none is named.
func (tool) flakeHere() string {
	if _, err := os.Stat("flake.nix"); err == nil {
		return "."
	}
	return "/etc/nixos"
}

// choose finds the host, or asks for it among those for this processor.
func (t tool) choose(ctx context.Context, hosts []settings.HostFile, name string) (settings.HostFile, error) {
	if name != "" {
		host, err := settings.FindHost(hosts, name)
		if err != nil {
			return host, clikit.Usagef("--host: %v", err)
		}
		return host, nil
	}
	fit := slices.DeleteFunc(slices.Clone(hosts), func(h settings.HostFile) bool { return h.System != processor() })
	if len(fit) == 0 {
		return settings.HostFile{}, fmt.Errorf("the flake has no host for this processor (hosts/%s/*.nix)", processor())
	}
	names := make([]string, 0, len(fit))
	for _, host := range fit {
		names = append(names, host.Name)
	}
	chosen, err := t.env.Ask.Select(ctx, prompt.Question{Text: "Which host is this machine?", Flag: "--host HOST"}, names, 0)
	if err != nil {
		return settings.HostFile{}, err
	}
	return fit[chosen], nil
}

// processor is the folder of the hosts that this machine can be.
func processor() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}
