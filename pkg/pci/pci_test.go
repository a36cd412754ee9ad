package pci_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/pci"
	"nixos-go/pkg/testx/fakepci"
)

func read(t *testing.T, m fakepci.Machine) (pci.Machine, *os.Root) {
	t.Helper()
	kernel, err := fakepci.New(t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(kernel.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	machine, err := pci.Read(root, "nvidia", "vfio_pci", "nvidia_modeset")
	if err != nil {
		t.Fatal(err)
	}
	return machine, root
}

func address(t *testing.T, text string) *pci.Address {
	t.Helper()
	a, err := pci.ParseAddress(text)
	if err != nil {
		t.Fatal(err)
	}
	return &a
}

func TestRead(t *testing.T) {
	m, _ := read(t, fakepci.North())
	group := 10
	want := pci.Function{
		Address: *address(t, "0000:01:00.0"), Class: 0x030000, Kind: "VGA", Vendor: pci.NVIDIA, Device: 0x2684,
		Name: "NVIDIA GeForce RTX 4090", Modalias: "pci:v000010DEd00002684", Driver: "nvidia", Group: &group,
		Nodes:      []string{"/dev/dri/card1", "/dev/dri/renderD129", "/dev/i2c-4", "/dev/nvidia0"},
		Connectors: []pci.Connector{{Name: "DP-1"}, {Name: "HDMI-A-1"}},
	}
	got, found := m.Function(*address(t, "01:00.0"))
	if !found {
		t.Fatal("Function(01:00.0) found nothing")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Function(01:00.0) (-want +got):\n%s", diff)
	}
	wantModules := map[string]pci.Module{
		"nvidia":         {Holders: []string{"nvidia_modeset", "nvidia_uvm"}},
		"nvidia_modeset": {Holders: []string{"nvidia_drm"}},
	}
	if diff := cmp.Diff(wantModules, m.Modules); diff != "" {
		t.Errorf("Modules (-want +got):\n%s", diff)
	}
	if m.CPU != "AuthenticAMD" || m.BootID != "boot-1" {
		t.Errorf("Read: CPU %q, boot %q, want AuthenticAMD, boot-1", m.CPU, m.BootID)
	}
}

// The real machine's tree has to be understood, whatever it is.
func TestReadHere(t *testing.T) {
	root, err := os.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := root.Stat(pci.Devices); err != nil {
		t.Skip("this machine has no PCI bus")
	}
	m, err := pci.Read(root)
	if err != nil {
		t.Fatalf("Read(/) = %v", err)
	}
	entries, err := os.ReadDir("/" + pci.Devices)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Functions) != len(entries) {
		t.Errorf("Read(/) found %d functions, want %d", len(m.Functions), len(entries))
	}
}

func TestGPUs(t *testing.T) {
	m, _ := read(t, fakepci.North())
	gpus := m.GPUs()
	got := make([]string, 0, len(gpus))
	for _, g := range gpus {
		line := g.Display.Address.String() + ":"
		for _, f := range g.Functions {
			line += " " + f.Kind
		}
		for _, f := range g.Bridges {
			line += ", bridge " + f.Address.String()
		}
		for _, f := range g.Foreign {
			line += ", foreign " + f.Address.String()
		}
		got = append(got, line)
	}
	want := []string{
		"0000:01:00.0: VGA audio, bridge 0000:00:01.0",
		"0000:0e:00.0: VGA audio",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
}

func TestChoose(t *testing.T) {
	none := fakepci.North()
	none.Devices = none.Devices[3:4]
	for _, test := range []struct {
		name    string
		machine fakepci.Machine
		address string
		want    string
		err     error
		says    string
	}{
		{name: "the one that is not the boot display", machine: fakepci.North(), want: "0000:01:00.0"},
		{name: "by its audio function", machine: fakepci.North(), address: "01:00.1", want: "0000:01:00.0"},
		{name: "the boot display, asked for", machine: fakepci.North(), address: "0e:00.0", want: "0000:0e:00.0"},
		{name: "a network card", machine: fakepci.North(), address: "05:00.0", err: pci.ErrNotGPU, says: "network"},
		{name: "nothing there", machine: fakepci.North(), address: "07:00.0", err: pci.ErrNotGPU, says: "no PCI device there"},
		{name: "only a boot display", machine: fakepci.Laptop(), err: pci.ErrNoGPU, says: "0000:00:02.0"},
		{name: "no card at all", machine: none, err: pci.ErrNoGPU, says: "no graphics card"},
		{name: "two cards", machine: fakepci.Twins(), err: pci.ErrAmbiguousGPU, says: "0000:02:00.0"},
		{name: "one of two", machine: fakepci.Twins(), address: "0000:02:00.0", want: "0000:02:00.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, _ := read(t, test.machine)
			var asked *pci.Address
			if test.address != "" {
				asked = address(t, test.address)
			}
			g, err := m.Choose(asked)
			if !errors.Is(err, test.err) {
				t.Fatalf("Choose(%s) = %v, want %v", test.address, err, test.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), test.says) {
					t.Errorf("Choose(%s) = %q, want it to name %q", test.address, err, test.says)
				}
				return
			}
			if got := g.Display.Address.String(); got != test.want {
				t.Errorf("Choose(%s) = %s, want %s", test.address, got, test.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	lit := fakepci.North()
	lit.Devices[1].Lit = []string{"HDMI-A-1"}
	dark := fakepci.North()
	dark.Devices[1].Dark = []string{"HDMI-A-1"}
	intelOff := fakepci.Laptop()
	intelOff.CommandLine += " intel_iommu=off"
	intelOn := fakepci.Laptop()
	intelOn.CommandLine += " intel_iommu=on"
	amd := fakepci.North()
	for i := range amd.Devices {
		amd.Devices[i].Group = 0
	}
	type refusal struct {
		Code pci.RefusalCode
		Says string
	}
	for _, test := range []struct {
		name    string
		machine fakepci.Machine
		address string
		want    []refusal
	}{
		{name: "free to go", machine: fakepci.North(), address: "01:00.0"},
		{name: "a display that is plugged in and dark", machine: dark, address: "01:00.0"},
		{name: "a display that is lit", machine: lit, address: "01:00.0", want: []refusal{{pci.ActiveConnector, "HDMI-A-1"}}},
		{name: "boot display", machine: fakepci.North(), address: "0e:00.0", want: []refusal{{pci.BootDisplay, "firmware"}, {pci.ActiveConnector, "DP-3"}}},
		{name: "laptop", machine: fakepci.Laptop(), address: "00:02.0", want: []refusal{{pci.BootDisplay, "0000:00:02.0"}, {pci.ActiveConnector, "eDP-1"}, {pci.NoIOMMU, `"intel_iommu=on"`}}},
		{name: "laptop, switched off", machine: intelOff, address: "00:02.0", want: []refusal{{pci.BootDisplay, ""}, {pci.ActiveConnector, ""}, {pci.NoIOMMU, `remove "intel_iommu=off"`}}},
		{name: "laptop, switched on", machine: intelOn, address: "00:02.0", want: []refusal{{pci.BootDisplay, ""}, {pci.ActiveConnector, ""}, {pci.NoIOMMU, "VT-d in the firmware"}}},
		{name: "AMD without IOMMU", machine: amd, address: "01:00.0", want: []refusal{{pci.NoIOMMU, `"iommu=pt"`}}},
		{name: "shared with the network", machine: fakepci.Shared(), address: "01:00.0", want: []refusal{{pci.SharedGroup, "0000:05:00.0"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, _ := read(t, test.machine)
			g, err := m.Choose(address(t, test.address))
			if err != nil {
				t.Fatal(err)
			}
			got := m.Refusals(g)
			if len(got) != len(test.want) {
				t.Fatalf("Refusals = %v, want %v", got, test.want)
			}
			for i, want := range test.want {
				if got[i].Code != want.Code || !strings.Contains(got[i].Reason+" "+got[i].Cure, want.Says) {
					t.Errorf("Refusals[%d] = %v, want %s naming %q", i, got[i], want.Code, want.Says)
				}
			}
		})
	}
}

func TestHolders(t *testing.T) {
	spec := fakepci.North()
	spec.Processes = append(spec.Processes,
		fakepci.Process{PID: 2000, Name: "a) S (b", Cgroup: "/user.slice/user-1000.slice/session-2.scope", Mapped: []string{"/dev/nvidia0"}},
		fakepci.Process{PID: 2001, Name: "unrelated", Cgroup: "/init.scope", Open: []string{"/dev/nvidia01", "/tmp/dev/nvidia0"}},
	)
	m, root := read(t, spec)
	g, err := m.Choose(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, hidden, err := pci.Holders(root, g.Nodes())
	if err != nil || hidden != 0 {
		t.Fatalf("Holders = hidden %d, %v, want 0, nil", hidden, err)
	}
	want := []pci.Holder{
		{PID: 900, Start: 90000, Name: "nvidia-persiste", Unit: "nvidia-persistenced.service", Nodes: []string{"/dev/nvidia0"}},
		{PID: 950, Start: 95000, Name: "openrgb", Unit: "openrgb.service", Nodes: []string{"/dev/i2c-4"}},
		{PID: 1700, Start: 170000, Name: "wireplumber", Nodes: []string{"/dev/snd/controlC1"}},
		{PID: 2000, Start: 200000, Name: "a) S (b", Nodes: []string{"/dev/nvidia0"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Holders (-want +got):\n%s", diff)
	}
	letsGo := make([]bool, len(got))
	for i, h := range got {
		letsGo[i] = h.LetsGo()
	}
	if diff := cmp.Diff([]bool{false, false, true, false}, letsGo); diff != "" {
		t.Errorf("LetsGo (-want +got):\n%s", diff)
	}
}

// A process of our own, found through the real /proc.
func TestHoldersHere(t *testing.T) {
	name := filepath.Join(t.TempDir(), "node")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	root, err := os.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	holders, _, err := pci.Holders(root, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	if len(holders) != 1 || holders[0].PID != os.Getpid() {
		t.Errorf("Holders(%s) = %v, want this process, %d", name, holders, os.Getpid())
	}
}

func TestParseUnit(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/system.slice/openrgb.service\n":                                   "openrgb.service",
		"0::/system.slice/system-getty.slice/getty@tty1.service\n":             "getty@tty1.service",
		"0::/system.slice/docker-abc.scope\n":                                  "",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service": "",
		"0::/system.slice/foo.service/payload\n":                               "foo.service",
		"9:name=systemd:/system.slice/old.service\n0::/init.scope\n":           "",
		"": "",
	} {
		if got := pci.ParseUnit([]byte(cgroup)); got != want {
			t.Errorf("ParseUnit(%q) = %q, want %q", cgroup, got, want)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"0000:01:00.0":  "0000:01:00.0",
		"01:00.1":       "0000:01:00.1",
		"10000:E1:1f.7": "10000:e1:1f.7",
	} {
		a, err := pci.ParseAddress(text)
		if err != nil || a.String() != want {
			t.Errorf("ParseAddress(%q) = %v, %v, want %s", text, a, err, want)
		}
	}
	for _, text := range []string{"", "1:0.0", "0000:01:20.0", "0000:01:00.8", "0000:01:00.0\n", "01:00", "../x"} {
		if a, err := pci.ParseAddress(text); err == nil {
			t.Errorf("ParseAddress(%q) = %v, want an error", text, a)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("0000:01:00.0")
	f.Add("01:1f.7")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := pci.ParseAddress(text)
		if err != nil {
			return
		}
		again, err := pci.ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("ParseAddress(%q) = %v, %v after a round trip, want %v", a.String(), again, err, a)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("900 (nvidia-persiste) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 90000 0 0"))
	f.Add([]byte("1 (a) b) R"))
	f.Fuzz(func(t *testing.T, text []byte) {
		stat, err := pci.ParseStat(text)
		if err == nil && !strings.Contains(string(text), "("+stat.Name+")") {
			t.Errorf("ParseStat(%q) = name %q, which is not in it", text, stat.Name)
		}
	})
}
