package secureboottool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/run"
	"nixos-go/pkg/secureboot"
	"nixos-go/pkg/settings"
)

// Folder holds the journal and the copy of the boot files. It has to persist.
const Folder = "/var/lib/nixos-go/secure-boot"

// journalVersion is the version of the journal's form.
const journalVersion = 1

// Journal is what the machine was like before a change. It is on disk before
// the first change, together with a copy of the boot files, and goes when the
// change is complete.
type Journal struct {
	Version int       `json:"version"`
	Action  Action    `json:"action"`
	Started time.Time `json:"started"`
	// Flake, Target and Generation are what was configured and booted.
	Flake      string          `json:"flake"`
	Target     settings.Target `json:"target"`
	Generation int             `json:"generation"`
	// Enrolled tells whether the firmware had the owner's keys already.
	Enrolled bool `json:"enrolled"`
	// ESP is where the EFI partition was mounted, Files what was on it.
	ESP   string              `json:"esp"`
	Files secureboot.Manifest `json:"files"`
}

// Action is a change.
type Action string

// The changes.
const (
	Enable  Action = "enable"
	Disable Action = "disable"
)

// Store keeps the journal.
type Store struct {
	Files run.Files
}

func store(files run.Files) Store { return Store{Files: files} }

const journalFile = Folder + "/journal.json"

// copyFolder is where the copy of the boot files lies, as this process sees it.
func (s Store) copyFolder() string { return s.Files.Path(path.Join(Folder, "esp")) }

// ErrBusy is a machine that another run works on.
var ErrBusy = errors.New("another nixos-secure-boot is at work")

// Lock keeps other runs out until unlock is called or the process ends.
func (s Store) Lock() (unlock func(), err error) {
	if err := s.Files.MkdirAll(Folder, 0o700); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	dir, err := s.Files.Open(Folder)
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

// Load reads the journal, nil where there is none.
func (s Store) Load() (*Journal, error) {
	file, err := s.Files.Open(journalFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no journal is an answer, not a failure
	}
	if err != nil {
		return nil, err
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
	if j.Version != journalVersion || (j.Action != Enable && j.Action != Disable) {
		return nil, fmt.Errorf("version %d, action %q: not understood", j.Version, j.Action)
	}
	if _, err := settings.ParseTarget(string(j.Target)); err != nil {
		return nil, err
	}
	return &j, nil
}

// Begin copies the boot files and writes the journal. What an earlier run left
// of a copy that it never finished is removed first.
func (s Store) Begin(j Journal) error {
	if err := os.RemoveAll(s.copyFolder()); err != nil {
		return err
	}
	var err error
	if j.Files, err = secureboot.Snapshot(j.ESP, s.copyFolder()); err != nil {
		return errors.Join(err, os.RemoveAll(s.copyFolder()))
	}
	j.Version = journalVersion
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(j); err != nil {
		return err
	}
	return s.Files.WriteFile(journalFile, b.Bytes(), 0o600)
}

// End forgets the journal, then the copy.
func (s Store) End() error {
	if err := s.Files.Remove(journalFile); err != nil {
		return err
	}
	return os.RemoveAll(s.copyFolder())
}
