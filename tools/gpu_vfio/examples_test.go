package gpuvfio_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/examples"
	"nixos-go/pkg/testx/fakepci"
)

// terminal runs the tool at a terminal, on a machine. Each question is answered
// as the script says: a part of it, then what is typed.
func terminal(t *testing.T, kernel *fakepci.Kernel, args []string, script ...string) (*console.Console, int) {
	t.Helper()
	process := exec.Command("gpu-vfio", args...)
	process.Env = append(os.Environ(), "MACHINE="+kernel.Dir, "TERM=xterm", "NO_COLOR=1")
	c := console.Start(t, process)
	for i := 0; i < len(script); i += 2 {
		c.Expect(script[i])
		c.Type(script[i+1])
	}
	return c, c.Wait()
}

// The examples of the documents are what the tool prints at a terminal.
func TestExamples(t *testing.T) {
	documents := examples.In("../GUARDED.md", "../../README.md")
	for _, test := range []struct {
		name, machine, command string
		script                 []string
		status                 int
	}{
		{name: "status", machine: "blender", command: "status --gpu 01:00.0"},
		{name: "detach", machine: "blender", command: "detach", script: []string{
			"nvidia-persistenced.service holds", "y\r", "openrgb.service holds", "y\r", "leave everything", console.Down + "\r",
		}},
		{name: "refused", machine: "shared", command: "detach", status: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			kernel, err := fakepci.New(t.TempDir(), machines()[test.machine]())
			if err != nil {
				t.Fatal(err)
			}
			c, status := terminal(t, kernel, strings.Fields(test.command), test.script...)
			if status != test.status {
				t.Errorf("%s: exit status %d, want %d\n%s", test.command, status, test.status, c.Screen())
			}
			if c.Coloured() {
				t.Errorf("%s: colours under NO_COLOR: %q", test.command, c.Raw())
			}
			documents.Check(t, "gpu-vfio/"+test.name, "# gpu-vfio "+test.command, c.Rendered())
		})
	}
	documents.Complete(t, "gpu-vfio/")
}

// Ctrl-C at each question leaves the card as it was.
func TestInterruptedAtTerminal(t *testing.T) {
	for _, test := range []struct {
		name, machine string
		script        []string
	}{
		{"a service", "blender", []string{"nvidia-persistenced.service holds", console.CtrlC}},
		{"the next service", "blender", []string{"nvidia-persistenced.service holds", "y\r", "openrgb.service holds", console.CtrlC}},
		{"the programs", "blender", []string{
			"nvidia-persistenced.service holds", "y\r", "openrgb.service holds", "y\r", "leave everything", console.CtrlC,
		}},
		{"waiting for the programs", "blender", []string{
			"nvidia-persistenced.service holds", "y\r", "openrgb.service holds", "y\r", "leave everything", "\r", "Ctrl-C gives up", console.CtrlC,
		}},
		{"which card", "twins", []string{"0000:02:00.0", console.CtrlC}},
	} {
		t.Run(test.name, func(t *testing.T) {
			kernel, err := fakepci.New(t.TempDir(), machines()[test.machine]())
			if err != nil {
				t.Fatal(err)
			}
			before := kernel.State()
			c, status := terminal(t, kernel, []string{"detach"}, test.script...)
			if status != 1 || !strings.Contains(c.Screen(), "error: interrupted; nothing was changed\n") {
				t.Errorf("Ctrl-C: exit status %d, want 1 and that nothing was changed in:\n%s", status, c.Screen())
			}
			if diff := cmp.Diff(before, kernel.State()); diff != "" {
				t.Errorf("Ctrl-C changed (-want +got):\n%s", diff)
			}
		})
	}
}

// Ctrl-C while the kernel does not answer: the card goes back to the host all
// the same, and nothing is left half way.
func TestInterruptedInTheMiddle(t *testing.T) {
	kernel, err := fakepci.New(t.TempDir(), machines()["quiet"]())
	if err != nil {
		t.Fatal(err)
	}
	before := kernel.State()
	kernel.HangUnbind("snd_hda_intel")
	c, status := terminal(t, kernel, []string{"detach", "--timeout", "1s"}, "0000:01:00.1: unbind from snd_hda_intel", console.CtrlC)
	if status != 1 || !strings.Contains(c.Screen(), "everything is as it was before") {
		t.Errorf("Ctrl-C: exit status %d, want 1 and that all is as before in:\n%s", status, c.Screen())
	}
	if diff := cmp.Diff(before, kernel.State()); diff != "" {
		t.Errorf("Ctrl-C in the middle left (-want +got):\n%s", diff)
	}
}
