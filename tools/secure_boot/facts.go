package secureboottool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/flake"
	"nixos-go/pkg/keep"
	"nixos-go/pkg/pci"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/secureboot"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/tpm2"
)

// Facts are what was seen of the machine; plans and status follow from them.
type Facts struct {
	Settings *settings.Settings
	Config   *settings.Config
	// Flake is the folder of the configuration.
	Flake string
	// Firmware is nil where the machine was not booted by UEFI.
	Firmware *secureboot.State
	// Keys are the owner's, nil before they are made.
	Keys *secureboot.Keys
	// NotKept are the folders of keys and journal that a reset would wipe.
	NotKept []string
	// ESP is where the EFI partition is mounted, as this process sees it.
	ESP string
	// Report is of the ESP as Secure Boot would find it, Standard as
	// systemd-boot would; nil where the ESP could not be read.
	Report, Standard *secureboot.Report
	ESPError         error
	// Generation is the default generation.
	Generation int
	// Journal is of a run that was cut off, nil for none.
	Journal *Journal
	// OptionROMs are the drivers that the firmware loaded from cards.
	OptionROMs    []OptionROM
	EventLogError error
}

// OptionROM is an option ROM and the card that it is on.
type OptionROM struct {
	DevicePath string `json:"devicePath"`
	// Card is the card's address and name, "" where it cannot be found.
	Card string `json:"card,omitempty"`
}

// String names the card, or else the place.
func (r OptionROM) String() string {
	if r.Card == "" {
		return r.DevicePath
	}
	return r.Card + " (" + r.DevicePath + ")"
}

func (t *tool) look(c *cli.Context) (Facts, error) {
	var f Facts
	files := t.env.Host.Files
	var err error
	// Absolute, since the journal outlives the folder that one is in.
	if f.Flake, err = flake.Dir(c.String("flake")); err != nil {
		return f, err
	}
	if f.Settings, err = flake.Settings(c.Context, t.env, f.Flake); err != nil {
		return f, err
	}
	if f.Settings.Boot.PKIBundle == "" {
		f.Settings.Boot.PKIBundle = "/var/lib/sbctl"
	}
	if f.Config, err = settings.ReadConfig(f.Flake); err != nil {
		return f, fmt.Errorf("which configuration this machine is: %w", err)
	}
	firmware, err := secureboot.ReadState(files)
	switch {
	case err == nil:
		f.Firmware = &firmware
	case !errors.Is(err, secureboot.ErrNoUEFI):
		return f, err
	}
	keys, err := secureboot.ReadKeys(files, f.Settings.Boot.PKIBundle)
	switch {
	case err == nil:
		f.Keys = &keys
	case !errors.Is(err, secureboot.ErrNoKeys):
		return f, err
	}
	for _, folder := range []string{f.Settings.Boot.PKIBundle, Folder} {
		survives, err := kept(files, f.Settings, folder)
		if err != nil {
			return f, err
		}
		if !survives {
			f.NotKept = append(f.NotKept, folder)
		}
	}
	if f.Journal, err = store(files).Load(); err != nil {
		return f, err
	}
	if f.Generation, err = defaultGeneration(files); err != nil {
		return f, err
	}
	t.lookAtESP(&f, c.String("esp"))
	t.lookAtROMs(&f)
	return f, nil
}

// lookAtESP inspects the ESP both ways. An ESP that is not mounted is a fact,
// not an error.
func (t *tool) lookAtESP(f *Facts, esp string) {
	f.ESP = t.env.Host.Files.Path(esp)
	own, trusted := f.certificates()
	report, err := secureboot.Inspect(f.ESP, own, trusted)
	if err != nil {
		f.ESPError = err
		return
	}
	standard, err := secureboot.InspectStandard(f.ESP)
	if err != nil {
		f.ESPError = err
		return
	}
	f.Report, f.Standard = &report, &standard
}

// certificates are the owner's own, and all that count beside it.
func (f *Facts) certificates() (own secureboot.Certificate, trusted []secureboot.Certificate) {
	if f.Keys != nil {
		own = f.Keys.DB
		trusted = append(trusted, own)
	}
	if f.Firmware != nil {
		trusted = append(trusted, f.Firmware.DB...)
	}
	return own, trusted
}

// lookAtROMs finds the option ROMs in the firmware's event log, and their
// cards.
func (t *tool) lookAtROMs(f *Facts) {
	log, err := t.env.Host.Files.Open(tpm2.EventLog)
	if err != nil {
		f.EventLogError = err
		return
	}
	defer log.Close()
	events, err := tpm2.ParseEventLog(log)
	f.EventLogError = err
	for _, rom := range tpm2.OptionROMs(events) {
		f.OptionROMs = append(f.OptionROMs, OptionROM{DevicePath: rom.DevicePath, Card: cardOf(t.env.Host.Files, rom)})
	}
}

// cardOf finds the PCI function that a device path of the firmware's leads to,
// "" for none.
func cardOf(files run.Files, rom tpm2.OptionROM) string {
	root, err := os.OpenRoot(files.Root())
	if err != nil {
		return ""
	}
	defer root.Close()
	hops := make([]pci.Hop, len(rom.Hops))
	for i, hop := range rom.Hops {
		hops[i] = pci.Hop{Device: hop.Device, Function: hop.Function}
	}
	function, found, err := pci.Follow(root, rom.Root, hops)
	if err != nil || !found {
		return ""
	}
	return function.Title()
}

// profile is the default generation, whose link's name tells its number.
const profile = settings.SystemProfile

var generationLink = regexp.MustCompile(`^system-(\d+)-link$`)

func defaultGeneration(files run.Files) (int, error) {
	// The profile's own target matters, not what that leads to.
	target, err := os.Readlink(files.Path(profile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	match := generationLink.FindStringSubmatch(target)
	if match == nil {
		return 0, fmt.Errorf("%s leads to %q, which is no generation", profile, target)
	}
	return strconv.Atoi(match[1])
}

// kept tells whether a path survives a reset: by the rules of the default
// generation, which the next boot follows.
func kept(files run.Files, s *settings.Settings, name string) (bool, error) {
	if !s.Disk.Immutability.Enable {
		return true, nil
	}
	volume, relative := volumeOf(s, name)
	if !volume.ResetOnBoot {
		return true, nil
	}
	plan, err := readPlan(files)
	if err != nil {
		return false, err
	}
	for i := range plan.Volumes {
		if plan.Volumes[i].Name != volume.Name {
			continue
		}
		rules, err := plan.Volumes[i].Rules()
		if err != nil {
			return false, err
		}
		return keep.NewMatcher(rules).Kept(relative), nil
	}
	return true, nil
}

// volumeOf is the volume that a path is on, by the longest mount point, and the
// path below it.
func volumeOf(s *settings.Settings, name string) (settings.Subvolume, string) {
	var best settings.Subvolume
	for _, volume := range s.Disk.Volumes() {
		if below(name, volume.MountPoint) && len(volume.MountPoint) > len(best.MountPoint) {
			best = volume
		}
	}
	if best.MountPoint == "/" || best.MountPoint == "" {
		return best, name
	}
	return best, name[len(best.MountPoint):]
}

func below(name, folder string) bool {
	return folder == "/" || name == folder || (len(name) > len(folder) && name[:len(folder)] == folder && name[len(folder)] == '/')
}

func readPlan(files run.Files) (*reset.PlanFile, error) {
	for _, name := range []string{settings.SystemProfile + settings.PlanFile, settings.PlanFile} {
		file, err := files.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		plan, err := reset.ParsePlanFile(file)
		return plan, errors.Join(err, file.Close())
	}
	return nil, fmt.Errorf("%s: %w", settings.PlanFile, fs.ErrNotExist)
}

// Enrolled tells whether the firmware has the owner's keys.
func (f *Facts) Enrolled() bool {
	return f.Keys != nil && f.Firmware != nil && f.Keys.Enrolled(*f.Firmware)
}

// Active tells whether this boot was checked with the owner's keys, by
// lanzaboote.
func (f *Facts) Active() bool {
	return f.Enrolled() && f.Firmware.SecureBoot && f.Firmware.Lanzaboote()
}
