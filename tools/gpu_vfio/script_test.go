package gpuvfio_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakepci"
	gpuvfio "nixos-go/tools/gpu_vfio"
)

// The scripts run the whole tool, as a process, on a fake machine in the
// folder $MACHINE that the command `fake` makes and changes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gpu-vfio": func() { os.Exit(clikit.Main(gpuvfio.New(world(), openFake))) },
		"fake": func() {
			if err := fake(os.Args[1:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("MACHINE", e.WorkDir+"/machine")
			return os.Mkdir(e.WorkDir+"/machine", 0o755)
		},
	})
}

func world() *clikit.Env {
	env := clikit.System()
	env.UID = 0 // on a machine of the test's own
	env.Host.Files = run.Below(os.Getenv("MACHINE"))
	if os.Getenv("USER_IS") == "nobody" {
		env.UID = 65534
	}
	return env
}

func openFake(_ *clikit.Env, limit time.Duration) (vfio.System, error) {
	kernel, err := fakepci.Open(os.Getenv("MACHINE"))
	if err != nil {
		return nil, err
	}
	return fakepci.NewSystem(kernel, &vfio.Watchdog{
		Program: "/proc/self/exe", Name: "gpu-vfio", Args: []string{"watched-child"}, Limit: limit,
	})
}

// machines are the machines of the tests, by name.
func machines() map[string]func() fakepci.Machine {
	return map[string]func() fakepci.Machine{
		"north": fakepci.North, "laptop": fakepci.Laptop, "twins": fakepci.Twins, "shared": fakepci.Shared,
		"quiet": func() fakepci.Machine { return fakepci.Quiet(fakepci.North()) },
		"stuck": func() fakepci.Machine {
			m := fakepci.North()
			i := slices.IndexFunc(m.Modules, func(m fakepci.Module) bool { return m.Name == "nvidia_drm" })
			m.Modules[i].Stuck = true
			return m
		},
		"blender": func() fakepci.Machine {
			m := fakepci.North()
			m.Processes = append(m.Processes, fakepci.Process{
				PID: 2000, Name: "blender", Cgroup: "/user.slice/user-1000.slice/session-2.scope", Open: []string{"/dev/nvidia0"},
			})
			return m
		},
		"ollama": func() fakepci.Machine {
			m := fakepci.North()
			m.Services = append(m.Services, "ollama.service")
			m.Processes = append(m.Processes, fakepci.Process{
				PID: 2100, Name: "ollama", Cgroup: "/system.slice/ollama.service", Open: []string{"/dev/nvidia-uvm"}, Service: "ollama.service",
			})
			return m
		},
		"guest": func() fakepci.Machine {
			m := fakepci.North()
			m.Processes = append(m.Processes, fakepci.Process{
				PID: 3000, Name: "qemu-system-x86", Cgroup: "/machine.slice/q.scope", Open: []string{"/dev/vfio/10"},
			})
			return m
		},
		"server": func() fakepci.Machine {
			m := fakepci.North()
			m.Devices = m.Devices[:1]
			return m
		},
	}
}

// fake makes a machine, changes it, or shows its state.
func fake(args []string) error {
	dir := os.Getenv("MACHINE")
	if len(args) == 2 && args[0] == "new" && machines()[args[1]] != nil {
		_, err := fakepci.New(dir, machines()[args[1]]())
		return err
	}
	kernel, err := fakepci.Open(dir)
	if err != nil {
		return err
	}
	switch strings.Join(args, " ") {
	case "state":
		state := kernel.State()
		names := make([]string, 0, len(state))
		for name := range state {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Printf("%s: %s\n", name, state[name])
		}
	case "log":
		fmt.Println(strings.Join(kernel.Log(), "\n"))
	case "hang":
		kernel.HangUnbind("snd_hda_intel")
	case "reboot":
		kernel.Reboot("boot-2")
	default:
		return fmt.Errorf("fake: what is %q?", args)
	}
	return nil
}
