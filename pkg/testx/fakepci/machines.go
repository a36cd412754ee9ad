package fakepci

// The machines that the tests are about.

// North is a desktop with an RTX 4090 (VGA and audio) whose monitor hangs on
// the processor's own graphics:
//
//	00:01.0 bridge         group 10, with the card below it
//	01:00.0 RTX 4090, VGA  group 10  nvidia
//	01:00.1 its audio      group 10  snd_hda_intel
//	0e:00.0 AMD iGPU       group 20  amdgpu, boot display, monitor
//	0e:00.1 its audio      group 21  snd_hda_intel
//	05:00.0 network        group 15  igc
func North() Machine {
	return Machine{
		CPU: "AuthenticAMD", CommandLine: "init=/nix/store/x/init loglevel=4", BootID: "boot-1",
		Devices: []Device{
			{Address: "0000:00:01.0", Class: "060400", ID: "1022:14db", Native: "pcieport", Group: 10},
			{
				Address: "0000:01:00.0", Class: "030000", ID: "10de:2684", Native: "nvidia", Group: 10,
				Nodes: []string{"drm/card1", "drm/card1/card1-DP-1", "drm/card1/card1-HDMI-A-1", "drm/renderD129", "i2c-4"},
				Model: "NVIDIA GeForce RTX 4090",
			},
			{
				Address: "0000:01:00.1", Class: "040300", ID: "10de:22ba", Native: "snd_hda_intel", Group: 10,
				Nodes: []string{"sound/card1/controlC1", "sound/card1/pcmC1D3p", "sound/card1/hwC1D0"},
			},
			{Address: "0000:05:00.0", Class: "020000", ID: "8086:125c", Native: "igc", Group: 15},
			{
				Address: "0000:0e:00.0", Class: "030000", ID: "1002:164e", Native: "amdgpu", Group: 20, BootVGA: true,
				Nodes: []string{"drm/card0", "drm/card0/card0-DP-3", "drm/renderD128"}, Lit: []string{"DP-3"},
			},
			{
				Address: "0000:0e:00.1", Class: "040300", ID: "1002:1640", Native: "snd_hda_intel", Group: 21,
				Nodes: []string{"sound/card0/controlC0", "sound/card0/pcmC0D3p"},
			},
		},
		Modules: []Module{
			{Name: "nvidia", Driver: "nvidia", Loaded: true},
			{Name: "nvidia_modeset", Needs: []string{"nvidia"}, Loaded: true},
			{Name: "nvidia_drm", Needs: []string{"nvidia_modeset"}, Loaded: true},
			{Name: "nvidia_uvm", Needs: []string{"nvidia"}, Loaded: true},
			{Name: "snd_hda_intel", Driver: "snd_hda_intel", Loaded: true},
			{Name: "amdgpu", Driver: "amdgpu", Loaded: true},
			{Name: "igc", Driver: "igc", Loaded: true},
			{Name: "pcieport", Driver: "pcieport", Loaded: true},
			{Name: "vfio_pci", Driver: "vfio-pci"},
		},
		Services: []string{"nvidia-persistenced.service", "openrgb.service"},
		Processes: []Process{
			{
				PID: 900, Name: "nvidia-persiste", Cgroup: "/system.slice/nvidia-persistenced.service",
				Open: []string{"/dev/null", "/dev/nvidia0", "/dev/nvidiactl"}, Service: "nvidia-persistenced.service",
			},
			{
				PID: 950, Name: "openrgb", Cgroup: "/system.slice/openrgb.service",
				Open: []string{"/dev/i2c-4"}, Service: "openrgb.service",
			},
			{
				PID: 1700, Name: "wireplumber", Cgroup: "/user.slice/user-1000.slice/user@1000.service/session.slice/wireplumber.service",
				Open: []string{"/dev/snd/controlC0", "/dev/snd/controlC1"},
			},
			{PID: 1800, Name: "kwin_wayland", Cgroup: "/user.slice/user-1000.slice/session-2.scope", Open: []string{"/dev/dri/card0"}},
		},
	}
}

// Laptop has nothing but the processor's graphics, and its IOMMU is off.
func Laptop() Machine {
	return Machine{
		CPU: "GenuineIntel", CommandLine: "init=/nix/store/x/init", BootID: "boot-1",
		Devices: []Device{
			{
				Address: "0000:00:02.0", Class: "030000", ID: "8086:46a6", Native: "i915", BootVGA: true,
				Nodes: []string{"drm/card0", "drm/card0/card0-eDP-1", "drm/renderD128"}, Lit: []string{"eDP-1"},
			},
			{Address: "0000:00:1f.3", Class: "040300", ID: "8086:51c8", Native: "snd_hda_intel", Nodes: []string{"sound/card0/controlC0"}},
		},
		Modules: []Module{
			{Name: "i915", Driver: "i915", Loaded: true},
			{Name: "snd_hda_intel", Driver: "snd_hda_intel", Loaded: true},
			{Name: "vfio_pci", Driver: "vfio-pci"},
		},
	}
}

// Twins has two cards of one model, both beside a boot display.
func Twins() Machine {
	m := North()
	second := Device{
		Address: "0000:02:00.0", Class: "030000", ID: "10de:2684", Native: "nvidia", Group: 11,
		Nodes: []string{"drm/card2", "drm/card2/card2-DP-1", "drm/renderD130"}, Minor: 1, Model: "NVIDIA GeForce RTX 4090",
	}
	audio := Device{
		Address: "0000:02:00.1", Class: "040300", ID: "10de:22ba", Native: "snd_hda_intel", Group: 11,
		Nodes: []string{"sound/card2/controlC2", "sound/card2/pcmC2D3p"},
	}
	m.Devices = append(m.Devices, second, audio)
	m.Services, m.Processes = nil, nil
	return m
}

// Shared has the network card in the group of the graphics card.
func Shared() Machine {
	m := North()
	for i := range m.Devices {
		if m.Devices[i].Address == "0000:05:00.0" {
			m.Devices[i].Group = 10
		}
	}
	return m
}

// Quiet is a machine whose card nobody holds.
func Quiet(m Machine) Machine {
	m.Services, m.Processes = nil, nil
	return m
}
