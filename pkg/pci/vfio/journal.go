package vfio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/pci"
	"nixos-go/pkg/run"
)

// Folder is where the journals lie: a kept path, so that attach finds them
// after a reboot, too.
const Folder = "/var/lib/nixos-go/gpu-vfio"

// journalVersion is the version of the journal's form.
const journalVersion = 1

// Phase is how far a card has got.
type Phase string

// The phases. A journal that says detaching or attaching, while nothing works
// on the card, was left by a run that was cut off.
const (
	Detaching Phase = "detaching"
	Detached  Phase = "detached"
	Attaching Phase = "attaching"
)

// Journal is what a card was like before it left the host. It is written
// before the first change, and it alone suffices to put everything back.
type Journal struct {
	Version int         `json:"version"`
	GPU     pci.Address `json:"gpu"`
	Phase   Phase       `json:"phase"`
	Started time.Time   `json:"started"`
	// BootID is the boot in which this happened.
	BootID    string     `json:"bootId"`
	Functions []Original `json:"functions"`
	// Modules are those to be unloaded, in this order.
	Modules []string `json:"modules,omitempty"`
	// Services are those to be stopped.
	Services []string `json:"services,omitempty"`
	// Hung are operations that never came back from the kernel.
	Hung []Hang `json:"hung,omitempty"`
}

// Original is what one function was like.
type Original struct {
	Address  pci.Address `json:"address"`
	Driver   string      `json:"driver,omitempty"`
	Override string      `json:"driverOverride,omitempty"`
	// Unknown says that the function was with vfio-pci when it was first seen:
	// any driver of the host will do.
	Unknown bool `json:"unknown,omitempty"`
}

// Hang is a step whose child hangs in the kernel.
type Hang struct {
	Step  Step   `json:"step"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Alive tells whether it still hangs.
func (h Hang) Alive() bool { return (&HungError{PID: h.PID, Start: h.Start}).Alive() }

// on tells whether the hang blocks a function: the kernel holds the device's
// lock, and every other write to the device would wait for it.
func (h Hang) on(a pci.Address) bool { return h.Step.Address != nil && *h.Step.Address == a }

// stuck is the hang that still blocks a function in this boot.
func (j *Journal) stuck(a pci.Address, bootID string) (Hang, bool) {
	if j.BootID != bootID {
		return Hang{}, false
	}
	i := slices.IndexFunc(j.Hung, func(h Hang) bool { return h.on(a) && h.Alive() })
	if i < 0 {
		return Hang{}, false
	}
	return j.Hung[i], true
}

func (j *Journal) original(a pci.Address) (Original, bool) {
	i := slices.IndexFunc(j.Functions, func(o Original) bool { return o.Address == a })
	if i < 0 {
		return Original{}, false
	}
	return j.Functions[i], true
}

// Store keeps journals, one a card, in the machine's files.
type Store struct {
	Files  run.Files
	Folder string
}

func (s Store) name(gpu pci.Address) string {
	// The slot names the card: its display need not be function 0 for ever.
	slot := gpu
	slot.Function = 0
	return path.Join(s.Folder, slot.String()+".json")
}

// ErrBusy is a card that another run works on.
var ErrBusy = errors.New("another gpu-vfio is at work")

// Lock keeps other runs out until unlock is called or the process ends.
func (s Store) Lock() (unlock func(), err error) {
	if err := s.Files.MkdirAll(s.Folder, 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	dir, err := s.Files.Open(s.Folder)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, &fs.PathError{Op: "lock", Path: dir.Name(), Err: err}
	}
	return func() { _ = dir.Close() }, nil
}

// Load reads the journal of a card; nil where there is none.
func (s Store) Load(gpu pci.Address) (*Journal, error) {
	file, err := s.Files.Open(s.name(gpu))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no journal is an answer, not a failure
	}
	if err != nil {
		return nil, fmt.Errorf("the journal of %s: %w", gpu, err)
	}
	defer file.Close()
	j, err := ParseJournal(file)
	if err != nil {
		return nil, fmt.Errorf("the journal %s: %w", file.Name(), err)
	}
	return j, nil
}

// ParseJournal reads a journal and refuses what it does not know.
func ParseJournal(r io.Reader) (*Journal, error) {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	var j Journal
	if err := decoder.Decode(&j); err != nil {
		return nil, err
	}
	if j.Version != journalVersion {
		return nil, fmt.Errorf("version %d, want %d", j.Version, journalVersion)
	}
	switch j.Phase {
	case Detaching, Detached, Attaching:
		return &j, nil
	default:
		return nil, fmt.Errorf("unknown phase %q", j.Phase)
	}
}

// Save writes a journal so that it survives a power cut.
func (s Store) Save(j *Journal) error {
	j.Version = journalVersion
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(j); err != nil {
		return fmt.Errorf("the journal of %s: %w", j.GPU, err)
	}
	if err := s.Files.MkdirAll(s.Folder, 0o700); err != nil {
		return fmt.Errorf("the journal of %s: %w", j.GPU, err)
	}
	if err := s.Files.WriteFile(s.name(j.GPU), b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("the journal of %s: %w", j.GPU, err)
	}
	return nil
}

// Remove forgets a card's journal; one that is not there is no error.
func (s Store) Remove(gpu pci.Address) error {
	if err := s.Files.Remove(s.name(gpu)); err != nil {
		return fmt.Errorf("the journal of %s: %w", gpu, err)
	}
	return nil
}
