package vfio_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/pci"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/testx/fakepci"
	"nixos-go/pkg/testx/kill"
)

// detached is the state of a machine with its first card at vfio-pci.
func detached(before map[string]string, at string, services ...string) map[string]string {
	want := map[string]string{}
	for name, state := range before {
		switch {
		case strings.HasPrefix(name, strings.TrimSuffix(at, "0")):
			want[name] = "vfio-pci vfio-pci"
		case strings.HasPrefix(name, "nvidia") && !strings.HasSuffix(name, ".service"):
		case slices.Contains(services, name):
			want[name] = "inactive"
		default:
			want[name] = state
		}
	}
	return want
}

func expect(t *testing.T, m *machine, what string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, m.kernel.State()); diff != "" {
		t.Errorf("%s: state (-want +got):\n%s", what, diff)
	}
}

func noJournal(t *testing.T, m *machine) {
	t.Helper()
	if _, _, journal, err := m.card("01:00.0"); journal != nil || err != nil {
		t.Errorf("journal = %+v, %v, want none", journal, err)
	}
}

func TestDetachAndAttach(t *testing.T) {
	m := newMachine(t, fakepci.North())
	before := m.kernel.State()
	if err := m.detach(t.Context(), "", allServices); err != nil {
		t.Fatalf("Detach = %v", err)
	}
	expect(t, m, "after Detach", detached(before, "0000:01:00.0", allServices.Services...))
	wantLog := []string{ //nolint:prealloc // what Attach does comes on top
		"systemctl stop nvidia-persistenced.service",
		"systemctl stop openrgb.service",
		"modprobe vfio-pci",
		"write sys/bus/pci/devices/0000:01:00.0/driver_override vfio-pci",
		"write sys/bus/pci/devices/0000:01:00.1/driver_override vfio-pci",
		"unload nvidia_uvm",
		"unload nvidia_drm",
		"unload nvidia_modeset",
		"unload nvidia",
		"write sys/bus/pci/drivers_probe 0000:01:00.0",
		"write sys/bus/pci/drivers/snd_hda_intel/unbind 0000:01:00.1",
		"write sys/bus/pci/drivers_probe 0000:01:00.1",
	}
	if diff := cmp.Diff(wantLog, m.kernel.Log()); diff != "" {
		t.Errorf("Detach: operations (-want +got):\n%s", diff)
	}
	_, _, journal, err := m.card("")
	if err != nil || journal == nil || journal.Phase != vfio.Detached {
		t.Fatalf("journal after Detach = %+v, %v, want phase detached", journal, err)
	}

	// Once more changes nothing.
	if err := m.detach(t.Context(), "", allServices); err != nil {
		t.Errorf("Detach again = %v", err)
	}
	if got := len(m.kernel.Log()); got != len(wantLog) {
		t.Errorf("Detach again did %q", m.kernel.Log()[len(wantLog):])
	}

	if err := m.attach(""); err != nil {
		t.Fatalf("Attach = %v", err)
	}
	expect(t, m, "after Attach", before)
	noJournal(t, m)
	wantLog = append(wantLog,
		"write sys/bus/pci/devices/0000:01:00.0/driver_override ",
		"write sys/bus/pci/devices/0000:01:00.1/driver_override ",
		"write sys/bus/pci/drivers/vfio-pci/unbind 0000:01:00.1",
		"write sys/bus/pci/drivers/vfio-pci/unbind 0000:01:00.0",
		"modprobe nvidia",
		"modprobe nvidia_modeset",
		"modprobe nvidia_drm",
		"modprobe nvidia_uvm",
		"write sys/bus/pci/drivers_probe 0000:01:00.0",
		"write sys/bus/pci/drivers_probe 0000:01:00.1",
		"systemctl start openrgb.service",
		"systemctl start nvidia-persistenced.service",
	)
	if diff := cmp.Diff(wantLog, m.kernel.Log()); diff != "" {
		t.Errorf("Attach: operations (-want +got):\n%s", diff)
	}
	if err := m.attach(""); err != nil {
		t.Errorf("Attach again = %v, want nothing to do", err)
	}
}

// Two cards of one model: only the one that was named leaves, and since the
// driver serves the other, it stays loaded.
func TestTwins(t *testing.T) {
	m := newMachine(t, fakepci.Twins())
	before := m.kernel.State()
	if err := m.detach(t.Context(), "02:00.0", vfio.Choices{}); err != nil {
		t.Fatalf("Detach(02:00.0) = %v", err)
	}
	want := m.kernel.State()
	for name, state := range before {
		if strings.HasPrefix(name, "0000:02:") {
			state = "vfio-pci vfio-pci"
		}
		if want[name] != state {
			t.Errorf("after Detach(02:00.0): %s is %q, want %q", name, want[name], state)
		}
	}
	if err := m.attach("02:00.0"); err != nil {
		t.Fatalf("Attach(02:00.0) = %v", err)
	}
	expect(t, m, "after Attach", before)

	// Both may leave, the second takes the driver with it; and both come back.
	for _, at := range []string{"02:00.0", "01:00.0"} {
		if err := m.detach(t.Context(), at, vfio.Choices{}); err != nil {
			t.Fatalf("Detach(%s) = %v", at, err)
		}
	}
	if state := m.kernel.State()["nvidia"]; state != "" {
		t.Errorf("with both cards gone the module nvidia is %q, want unloaded", state)
	}
	for _, at := range []string{"01:00.0", "02:00.0"} {
		if err := m.attach(at); err != nil {
			t.Fatalf("Attach(%s) = %v", at, err)
		}
	}
	expect(t, m, "after both Attach", before)
}

func TestModuleThatStays(t *testing.T) {
	spec := fakepci.North()
	for i := range spec.Modules {
		if spec.Modules[i].Name == "nvidia_drm" {
			spec.Modules[i].Stuck = true
		}
	}
	m := newMachine(t, spec)
	before := m.kernel.State()
	err := m.detach(t.Context(), "", allServices)
	var undone *vfio.UndoneError
	if !errors.As(err, &undone) || !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("Detach = %v, want an UndoneError around EAGAIN", err)
	}
	if len(undone.Left) != 0 || !strings.Contains(err.Error(), "nvidia-drm.fbdev=0") {
		t.Errorf("Detach = %q, want everything put back and the console named", err)
	}
	expect(t, m, "after the failed Detach", before)
	noJournal(t, m)
}

// A module from elsewhere is seen before anything is touched.
func TestModuleNeededElsewhere(t *testing.T) {
	spec := fakepci.North()
	spec.Modules = append(spec.Modules, fakepci.Module{Name: "nvidia_peermem", Needs: []string{"nvidia"}, Loaded: true})
	m := newMachine(t, spec)
	err := m.detach(t.Context(), "", allServices)
	if !errors.Is(err, vfio.ErrModuleHeld) || !strings.Contains(err.Error(), "nvidia_peermem") {
		t.Errorf("Detach = %v, want ErrModuleHeld naming nvidia_peermem", err)
	}
	if log := m.kernel.Log(); len(log) != 0 {
		t.Errorf("Detach did %q, want nothing", log)
	}
}

func TestHolders(t *testing.T) {
	spec := fakepci.North()
	spec.Processes = append(spec.Processes, fakepci.Process{
		PID: 2000, Name: "blender", Cgroup: "/user.slice/user-1000.slice/session-2.scope", Open: []string{"/dev/nvidiactl"},
	})
	m := newMachine(t, spec)
	before := m.kernel.State()
	err := m.detach(t.Context(), "", allServices)
	var held *vfio.HeldError
	if !errors.As(err, &held) || len(held.Holders) != 1 || held.Holders[0].Name != "blender" {
		t.Fatalf("Detach = %v, want it held by blender alone", err)
	}
	expect(t, m, "after the failed Detach", before)

	// What was ended stays so, and is named.
	choices := allServices
	choices.Processes = []pci.Holder{{PID: 2001, Name: "victim"}}
	if err := m.detach(t.Context(), "", choices); err == nil || !strings.Contains(err.Error(), "ended meanwhile: victim (2001)") {
		t.Errorf("Detach that fails after it has ended a process = %v, want the process named", err)
	}
	choices.Processes = held.Holders
	if err := m.detach(t.Context(), "", choices); err != nil {
		t.Fatalf("Detach, blender ended = %v", err)
	}
	if !slices.Contains(m.kernel.Log(), "end 2000") {
		t.Errorf("Detach did %q, want it to end process 2000", m.kernel.Log())
	}
}

// A monitor plugged in and lit between plan and apply stops the work.
func TestLitMeanwhile(t *testing.T) {
	m := newMachine(t, fakepci.Quiet(fakepci.North()))
	before := m.kernel.State()
	seen, g, _, err := m.card("")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := vfio.PlanDetach(seen, g, nil, vfio.Choices{}, now)
	if err != nil {
		t.Fatal(err)
	}
	connector := filepath.Join(m.kernel.Dir, "sys/devices/pci0000:00/0000:01:00.0/drm/card1/card1-DP-1")
	for name, text := range map[string]string{"status": "connected\n", "enabled": "enabled\n"} {
		if err := os.WriteFile(filepath.Join(connector, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.engine.Detach(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "DP-1") {
		t.Errorf("Detach = %v, want a refusal that names DP-1", err)
	}
	expect(t, m, "after the refused Detach", before)
}

// A hanging unbind that a signal ends: everything is put back.
func TestHangingUnbind(t *testing.T) {
	m := newMachine(t, fakepci.Quiet(fakepci.North()))
	before := m.kernel.State()
	m.Hanging.Limit = 200 * time.Millisecond
	m.kernel.HangUnbind("snd_hda_intel")
	err := m.detach(t.Context(), "", vfio.Choices{})
	var hung *vfio.HungError
	if !errors.As(err, &hung) || hung.PID != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Detach = %v, want a HungError of a child that was ended", err)
	}
	if !strings.Contains(err.Error(), "everything is as it was before") {
		t.Errorf("Detach = %q, want it to say that everything is put back", err)
	}
	expect(t, m, "after the hang", before)
	noJournal(t, m)
}

// A hanging unbind that not even SIGKILL ends: the function stays, the rest is
// put back, nothing waits for the kernel a second time, and once the kernel
// lets go (here, in life mostly by a reboot) attach finishes.
func TestUnkillableUnbind(t *testing.T) {
	m := newMachine(t, fakepci.Quiet(fakepci.North()))
	before := m.kernel.State()
	m.Hanging.Limit = 200 * time.Millisecond
	m.Hanging.Kill = func(*os.Process) error { return nil }
	release := m.kernel.HangUnbind("snd_hda_intel")
	err := m.detach(t.Context(), "", vfio.Choices{})
	var undone *vfio.UndoneError
	var hung *vfio.HungError
	if !errors.As(err, &undone) || !errors.As(err, &hung) || hung.PID == 0 || !hung.Alive() {
		t.Fatalf("Detach = %v, want a HungError of a child that is still there", err)
	}
	if len(undone.Left) != 1 || !strings.Contains(undone.Left[0], "0000:01:00.1") || !strings.Contains(undone.Left[0], "reboot") {
		t.Errorf("Detach left %q, want 0000:01:00.1 and the word reboot", undone.Left)
	}
	want := maps.Clone(before)
	want["0000:01:00.1"] = "snd_hda_intel vfio-pci" // its override cannot be cleared either
	expect(t, m, "after the hang", want)

	operations := len(m.kernel.Log())
	if err := m.detach(t.Context(), "", vfio.Choices{}); !errors.Is(err, vfio.ErrStuck) {
		t.Errorf("Detach while it hangs = %v, want ErrStuck", err)
	}
	if err := m.attach(""); err == nil || !strings.Contains(err.Error(), "0000:01:00.1") {
		t.Errorf("Attach while it hangs = %v, want an error that names 0000:01:00.1", err)
	}
	if log := m.kernel.Log()[operations:]; len(log) != 0 {
		t.Errorf("while it hangs, the tool did %q, want nothing", log)
	}
	if _, _, journal, err := m.card("01:00.0"); journal == nil || err != nil {
		t.Errorf("while it hangs, journal = %v, %v, want it kept", journal, err)
	}

	release()
	waitFor(t, func() bool { return !hung.Alive() })
	if err := m.attach(""); err != nil {
		t.Errorf("Attach after the hang = %v", err)
	}
	expect(t, m, "after Attach", before)
	noJournal(t, m)
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited in vain")
}

// The driver that does not take its card back leaves a journal and says so.
func TestAttachFails(t *testing.T) {
	m := newMachine(t, fakepci.Quiet(fakepci.North()))
	before := m.kernel.State()
	if err := m.detach(t.Context(), "", vfio.Choices{}); err != nil {
		t.Fatal(err)
	}
	drivers := filepath.Join(m.kernel.Dir, "sys/bus/pci/drivers")
	if err := os.Rename(filepath.Join(drivers, "snd_hda_intel"), filepath.Join(drivers, "gone")); err != nil {
		t.Fatal(err)
	}
	err := m.attach("")
	if err == nil || !strings.Contains(err.Error(), "0000:01:00.1") {
		t.Fatalf("Attach = %v, want an error that names 0000:01:00.1", err)
	}
	if state := m.kernel.State()["0000:01:00.0"]; state != "nvidia" {
		t.Errorf("after the failed Attach the card is %q, want nvidia: one function must not stop the other", state)
	}
	if err := os.Rename(filepath.Join(drivers, "gone"), filepath.Join(drivers, "snd_hda_intel")); err != nil {
		t.Fatal(err)
	}
	if err := m.attach(""); err != nil {
		t.Errorf("Attach again = %v", err)
	}
	expect(t, m, "after Attach", before)
}

// A virtual machine that runs keeps its card.
func TestAttachWhileInUse(t *testing.T) {
	spec := fakepci.Quiet(fakepci.North())
	spec.Processes = []fakepci.Process{{PID: 3000, Name: "qemu-system-x86", Cgroup: "/machine.slice/m.scope", Open: []string{"/dev/vfio/10"}}}
	m := newMachine(t, spec)
	if err := m.detach(t.Context(), "", vfio.Choices{}); err != nil {
		t.Fatal(err)
	}
	operations := len(m.kernel.Log())
	err := m.attach("")
	var held *vfio.HeldError
	if !errors.As(err, &held) || held.Holders[0].PID != 3000 {
		t.Errorf("Attach = %v, want it held by process 3000", err)
	}
	if log := m.kernel.Log()[operations:]; len(log) != 0 {
		t.Errorf("Attach did %q, want nothing", log)
	}
}

func TestReboot(t *testing.T) {
	t.Run("the kernel has forgotten", func(t *testing.T) {
		m := newMachine(t, fakepci.North())
		before := m.kernel.State()
		if err := m.detach(t.Context(), "", allServices); err != nil {
			t.Fatal(err)
		}
		m.kernel.Reboot("boot-2")
		operations := len(m.kernel.Log())
		if err := m.attach(""); err != nil {
			t.Errorf("Attach after a reboot = %v", err)
		}
		if log := m.kernel.Log()[operations:]; len(log) != 0 {
			t.Errorf("Attach after a reboot did %q, want nothing", log)
		}
		expect(t, m, "after the reboot", before)
		noJournal(t, m)
	})
	t.Run("reserved again at boot", func(t *testing.T) {
		spec := fakepci.Quiet(fakepci.North())
		m := newMachine(t, spec)
		before := m.kernel.State()
		if err := m.detach(t.Context(), "", vfio.Choices{}); err != nil {
			t.Fatal(err)
		}
		// The kernel's command line has vfio-pci.ids now, and no module of
		// NVIDIA's was loaded.
		spec.BootID = "boot-2"
		spec.Devices[1].Driver, spec.Devices[2].Driver = "vfio-pci", "vfio-pci"
		for i := range spec.Modules {
			if strings.HasPrefix(spec.Modules[i].Name, "nvidia") {
				spec.Modules[i].Loaded = false
			}
			if spec.Modules[i].Name == "vfio_pci" {
				spec.Modules[i].Loaded = true
			}
		}
		for _, name := range []string{"sys", "proc", "services"} {
			os.RemoveAll(filepath.Join(m.kernel.Dir, name))
		}
		if _, err := fakepci.New(m.kernel.Dir, spec); err != nil {
			t.Fatal(err)
		}
		if err := m.attach(""); err != nil {
			t.Errorf("Attach after a reboot = %v", err)
		}
		expect(t, m, "after Attach", before)
	})
	t.Run("reserved at boot, no journal", func(t *testing.T) {
		spec := fakepci.Quiet(fakepci.North())
		m := newMachine(t, spec)
		want := m.kernel.State()
		spec.Devices[1].Driver, spec.Devices[2].Driver = "vfio-pci", "vfio-pci"
		spec.Modules[0].Loaded, spec.Modules[1].Loaded, spec.Modules[2].Loaded, spec.Modules[3].Loaded = false, false, false, false
		spec.Modules[len(spec.Modules)-1].Loaded = true
		m = newMachine(t, spec)
		if err := m.attach(""); err != nil {
			t.Fatalf("Attach without a journal = %v", err)
		}
		got := m.kernel.State()
		for _, name := range []string{"0000:01:00.0", "0000:01:00.1", "nvidia"} {
			if got[name] != want[name] {
				t.Errorf("after Attach %s is %q, want %q", name, got[name], want[name])
			}
		}
	})
}

// The end of the context between two steps puts everything back.
func TestInterrupted(t *testing.T) {
	m := newMachine(t, fakepci.North())
	before := m.kernel.State()
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	m.engine.Tell = func(e vfio.Event) {
		if e.Step.Kind == vfio.UnloadModule && e.Step.Module == "nvidia_modeset" && e.Done {
			cancel(stop)
		}
	}
	if err := m.detach(ctx, "", allServices); !errors.Is(err, stop) {
		t.Errorf("Detach = %v, want the cause of the interruption", err)
	}
	expect(t, m, "after the interruption", before)
	noJournal(t, m)
}

// A kill before and after every step of detaching, then of attaching: the next
// attach puts everything back, and so does a detach that finishes followed by
// an attach.
func TestKilled(t *testing.T) {
	steps := planLength(t, "detach")
	back := planLength(t, "attach")
	if steps < 12 || back < 10 {
		t.Fatalf("the plans have %d and %d steps: too few to be the real ones", steps, back)
	}
	for _, test := range []struct {
		work  string
		steps int
	}{{"detach", steps}, {"attach", back}} {
		for n := range test.steps {
			for _, side := range []string{"-", "+"} {
				point := strings.TrimSpace(itoa(n) + side)
				t.Run(test.work+" "+point, func(t *testing.T) {
					t.Run("then attach", func(t *testing.T) {
						m, before := killAt(t, test.work, point)
						if err := m.attach(""); err != nil {
							t.Errorf("Attach after the kill = %v", err)
						}
						expect(t, m, "after the kill and Attach", before)
						noJournal(t, m)
					})
					t.Run("then detach and attach", func(t *testing.T) {
						m, before := killAt(t, test.work, point)
						if err := m.detach(t.Context(), "", allServices); err != nil {
							t.Fatalf("Detach after the kill = %v", err)
						}
						expect(t, m, "after the kill and Detach", detached(before, "0000:01:00.0", allServices.Services...))
						if err := m.attach(""); err != nil {
							t.Errorf("Attach = %v", err)
						}
						expect(t, m, "after Attach", before)
						noJournal(t, m)
					})
				})
			}
		}
	}
}

func itoa(n int) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func planLength(t *testing.T, work string) int {
	t.Helper()
	m := newMachine(t, fakepci.North())
	if err := m.detach(t.Context(), "", allServices); err != nil {
		t.Fatal(err)
	}
	if work == "attach" {
		m.events = nil
		if err := m.attach(""); err != nil {
			t.Fatal(err)
		}
	}
	return len(m.events)
}

// killAt runs the work in a process of its own, which dies at the point.
func killAt(t *testing.T, work, point string) (*machine, map[string]string) {
	t.Helper()
	m := newMachine(t, fakepci.North())
	before := m.kernel.State()
	if work == "attach" {
		if err := m.detach(t.Context(), "", allServices); err != nil {
			t.Fatal(err)
		}
	}
	kill.Run(t, exec.Command("/proc/self/exe", killArg, m.kernel.Dir, work, point))
	return m, before
}

func TestPlanIsPure(t *testing.T) {
	m := newMachine(t, fakepci.North())
	seen, g, _, err := m.card("")
	if err != nil {
		t.Fatal(err)
	}
	first, err := vfio.PlanDetach(seen, g, nil, allServices, now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := vfio.PlanDetach(seen, g, nil, allServices, now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("PlanDetach twice (-first +second):\n%s", diff)
	}
	if log := m.kernel.Log(); len(log) != 0 {
		t.Errorf("PlanDetach did %q, want nothing", log)
	}
}

func TestEndProcess(t *testing.T) {
	m := newMachine(t, fakepci.Quiet(fakepci.North()))
	start := func(script string) (*exec.Cmd, pci.Holder) {
		process := exec.Command("sh", "-c", script)
		out, err := process.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
		text, err := os.ReadFile("/proc/" + itoa(process.Process.Pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		stat, err := pci.ParseStat(text)
		if err != nil {
			t.Fatal(err)
		}
		return process, pci.Holder{PID: process.Process.Pid, Start: stat.Start, Name: "sh"}
	}

	_, meek := start("echo x; read -r y </dev/zero; exec sleep 1000")
	other := meek
	other.Start++
	if err := m.Live.EndProcess(t.Context(), other); err != nil {
		t.Errorf("EndProcess of one that has ended long ago = %v, want nil", err)
	}
	if _, err := os.Stat("/proc/" + itoa(meek.PID)); err != nil {
		t.Errorf("EndProcess ended a process of another start time")
	}
	m.Patience = time.Minute
	if err := m.Live.EndProcess(t.Context(), meek); err != nil {
		t.Errorf("EndProcess = %v", err)
	}
	m.Patience = 300 * time.Millisecond
	stubborn, holder := start("trap '' TERM; echo x; while :; do sleep 1; done")
	if err := m.Live.EndProcess(t.Context(), holder); err == nil || !strings.Contains(err.Error(), "still there") {
		t.Errorf("EndProcess of one that ignores SIGTERM = %v, want an error", err)
	}
	if err := stubborn.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("EndProcess killed a process that ignored SIGTERM: %v", err)
	}
}

// Errors of the child keep their errno.
func TestWatchdogErrors(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]error{"missing/file": syscall.ENOENT, ".": syscall.EISDIR} {
		err := watchdog().Write(dir, name, "x")
		if !errors.Is(err, want) {
			t.Errorf("Write(%s) = %v, want %v", name, err, want)
		}
		if _, ok := errors.AsType[*os.PathError](err); !ok {
			t.Errorf("Write(%s) = %T, want an *os.PathError", name, err)
		}
	}
	if err := (&vfio.Watchdog{Program: "/bin/false"}).Write(dir, "x", "y"); err == nil {
		t.Error("Write by a child that fails = nil, want an error")
	} else if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Error("Write by a child that fails lets an *exec.ExitError escape")
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := watchdog().Write(dir, "out/hostname", "x"); err == nil {
		t.Error("Write through a link out of the root = nil, want an error")
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add(`{"version":1,"gpu":"0000:01:00.0","phase":"detached","started":"2026-11-24T12:00:00Z","bootId":"b","functions":[]}`)
	f.Add(`{"version":2}`)
	f.Fuzz(func(t *testing.T, text string) {
		j, err := vfio.ParseJournal(strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vfio.ParseJournal(strings.NewReader(string(again))); err != nil {
			t.Errorf("ParseJournal(%s) = %v after a round trip", again, err)
		}
	})
}
