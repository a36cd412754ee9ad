package gpuvfio_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx/fakepci"
	"nixos-go/pkg/ui"
	gpuvfio "nixos-go/tools/gpu_vfio"
)

// What the tool asks at a terminal, and what each answer leads to.
func TestQuestions(t *testing.T) {
	blender := fakepci.North()
	blender.Processes = append(blender.Processes, fakepci.Process{
		PID: 2000, Name: "blender", Cgroup: "/user.slice/user-1000.slice/session-2.scope", Open: []string{"/dev/nvidia0"},
	})
	services := []prompt.Answer{
		{To: "nvidia-persistenced.service holds the card", Say: "yes"},
		{To: "openrgb.service holds the card", Say: "yes"},
	}
	programs := func(say string) []prompt.Answer {
		return append(services[:2:2], prompt.Answer{To: "Programs hold the card", Say: say})
	}
	for _, test := range []struct {
		name    string
		machine fakepci.Machine
		args    []string
		answers []prompt.Answer
		// leaves is a process that goes by itself a moment later.
		leaves int
		status int
		says   string
		state  string // of the card afterwards
	}{
		{name: "services, agreed", machine: fakepci.North(), answers: services, state: "vfio-pci vfio-pci"},
		{
			name: "a service, refused", machine: fakepci.North(), state: "nvidia", status: 1, says: "nothing was changed",
			answers: []prompt.Answer{{To: "nvidia-persistenced", Say: "no"}},
		},
		{name: "end the programs", machine: blender, answers: programs("end them"), state: "vfio-pci vfio-pci"},
		{name: "leave it", machine: blender, answers: programs("leave everything"), state: "nvidia", status: 1, says: "nothing was changed"},
		{name: "wait", machine: blender, answers: programs("wait"), leaves: 2000, state: "vfio-pci vfio-pci"},
		{
			name: "Ctrl-C at a question", machine: blender, state: "nvidia", status: 1, says: "interrupted",
			answers: []prompt.Answer{{To: "nvidia-persistenced", Err: prompt.ErrInterrupted}},
		},
		{
			name: "which of two", machine: fakepci.Twins(), state: "nvidia", says: "0000:02:00.0",
			answers: []prompt.Answer{{To: "Which card?", Say: "0000:02:00.0"}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			kernel, err := fakepci.New(t.TempDir(), test.machine)
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			ask := &prompt.Scripted{Answers: test.answers}
			env := &clikit.Env{
				UI:   ui.New(&out, &errs, ui.Options{}),
				Host: run.Host{Runner: kernel, Files: run.Below(kernel.Dir)},
				Ask:  ask,
			}
			open := func(_ *clikit.Env, limit time.Duration) (vfio.System, error) {
				return fakepci.NewSystem(kernel, &vfio.Watchdog{
					Program: "/proc/self/exe", Name: "gpu-vfio", Args: []string{"watched-child"}, Limit: limit,
				})
			}
			if test.leaves != 0 {
				timer := time.AfterFunc(300*time.Millisecond, func() {
					_ = os.RemoveAll(filepath.Join(kernel.Dir, "proc", "2000"))
				})
				defer timer.Stop()
			}
			args := append([]string{"detach"}, test.args...)
			status := clikit.Run(t.Context(), gpuvfio.New(env, open), args, env.UI)
			if status != test.status || !strings.Contains(errs.String(), test.says) {
				t.Errorf("detach = status %d, want %d and %q in:\n%s", status, test.status, test.says, errs.String())
			}
			if diff := cmp.Diff([]prompt.Answer{}, ask.Answers); diff != "" && test.status == 0 {
				t.Errorf("questions that were not asked (-want +got):\n%s", diff)
			}
			if got := kernel.State()["0000:01:00.0"]; got != test.state {
				t.Errorf("afterwards the card is %q, want %q", got, test.state)
			}
		})
	}
}
