// Package gpuvfio is the command gpu-vfio: it moves a graphics card between
// the host and a virtual machine, and says early why it will not.
package gpuvfio

import (
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/pci"
	"nixos-go/pkg/pci/vfio"
)

// name is how the tool is called, and by which the binary of all tools finds it.
const name = "gpu-vfio"

// childCommand is the hidden command of the watched child.
const childCommand = "watched-child"

// App is the command line on this machine.
func App() *cli.App { return New(clikit.System(), open) }

// open is the real machine.
func open(env *clikit.Env, limit time.Duration) (vfio.System, error) {
	root, err := os.OpenRoot(env.Host.Files.Root())
	if err != nil {
		return nil, err
	}
	return &vfio.Live{
		Root:   root,
		Runner: env.Host,
		Watchdog: &vfio.Watchdog{
			Program: "/proc/self/exe", Name: name, Args: []string{childCommand}, Limit: limit,
		},
	}, nil
}

// Opener opens the machine that the tool works on; limit bounds one operation
// of the kernel.
type Opener func(env *clikit.Env, limit time.Duration) (vfio.System, error)

// tool is what every command works with.
type tool struct {
	env  *clikit.Env
	open Opener
}

// New is the command line in a given world.
func New(env *clikit.Env, open Opener) *cli.App {
	t := &tool{env: env, open: open}
	return clikit.New(&cli.App{
		Name:  name,
		Usage: "hand a graphics card to a virtual machine, and take it back",
		Description: "A card leaves the host with all its functions (picture, sound, USB). " +
			"The tool refuses while the host needs the card: the boot display, a lit monitor, " +
			"an IOMMU group shared with another device.\n\n" +
			"Detaching is a transaction: whatever fails, what was is put back. " +
			"A journal lies in " + vfio.Folder + ", so that attach also works after a crash or a reboot.",
		Commands: []*cli.Command{
			{
				Name:   "status",
				Usage:  "show the graphics cards, who holds them, and what may happen to them",
				Flags:  []cli.Flag{gpuFlag(), clikit.JSONFlag()},
				Action: t.status,
			},
			{
				Name:  "detach",
				Usage: "take a card from the host, for a virtual machine",
				Flags: append([]cli.Flag{
					gpuFlag(),
					&cli.StringSliceFlag{Name: "stop-service", Usage: "stop the service `UNIT` if it holds the card; may be given again"},
					&cli.BoolFlag{Name: "stop-processes", Usage: "end the programs that hold the card (SIGTERM; unsaved work in them is lost)"},
					&cli.DurationFlag{Name: "wait", Usage: "wait up to `TIME` (like 5m) until the programs have let the card go"},
				}, common()...),
				Action: t.detach,
			},
			{
				Name:   "attach",
				Usage:  "give a card back to the host",
				Flags:  append([]cli.Flag{gpuFlag()}, common()...),
				Action: t.attach,
			},
			{
				Name:  "hook",
				Usage: "print a libvirt hook that calls detach and attach",
				Flags: []cli.Flag{
					gpuFlag(),
					&cli.StringFlag{Name: "vm", Usage: "the `NAME` of the virtual machine"},
				},
				Action: t.hook,
			},
			{
				Name:   childCommand,
				Hidden: true,
				Action: func(*cli.Context) error { return vfio.Child(os.Stdin, os.Stdout) },
			},
		},
	}, doc())
}

func gpuFlag() cli.Flag {
	return &cli.StringFlag{Name: "gpu", Usage: "the card at `ADDRESS`, such as 0000:01:00.0 (default: the one that is not the boot display)"}
}

func common() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "timeout", Value: 30 * time.Second, Usage: "how long one operation of the kernel may take, as `TIME`"},
		clikit.DryRunFlag(), clikit.YesFlag(), clikit.JSONFlag(),
	}
}

func doc() clikit.Doc {
	return clikit.Doc{
		Examples: []clikit.Example{
			{Command: "gpu-vfio status", Does: "which cards there are, and what is in the way"},
			{Command: "sudo gpu-vfio detach --dry-run", Does: "what would happen, step by step"},
			{Command: "sudo gpu-vfio detach", Does: "free the card for a virtual machine; asks before it stops anything"},
			{Command: "sudo gpu-vfio attach", Does: "give it back to the host, also after a crash"},
			{Command: "gpu-vfio hook --vm win11 --gpu 0000:01:00.0", Does: "a libvirt hook that does both with the virtual machine"},
		},
		Files: []clikit.File{
			{Path: vfio.Folder, Does: "the journals: what each card was like before it left"},
		},
	}
}

// cardOf is the address that --gpu names, nil for none.
func cardOf(c *cli.Context) (*pci.Address, error) {
	text := c.String("gpu")
	if text == "" {
		return nil, nil //nolint:nilnil // no address is an answer
	}
	a, err := pci.ParseAddress(text)
	if err != nil {
		return nil, clikit.Usagef("--gpu: %v", err)
	}
	return &a, nil
}

func (t *tool) store() vfio.Store {
	return vfio.Store{Files: t.env.Host.Files, Folder: vfio.Folder}
}
