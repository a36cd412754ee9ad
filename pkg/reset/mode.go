package reset

import (
	"errors"
	"fmt"
	"strings"
)

// Mode says what a boot does with the volumes.
type Mode string

// The modes, as the plan file and the kernel command line spell them.
const (
	ModeReset              Mode = "reset"
	ModeSnapshotOnly       Mode = "snapshot-only"
	ModeRestorePrevious    Mode = "restore-previous"
	ModeRestorePenultimate Mode = "restore-penultimate"
	ModeDisabled           Mode = "disabled"
)

// Modes lists every mode.
func Modes() []Mode {
	return []Mode{ModeReset, ModeSnapshotOnly, ModeRestorePrevious, ModeRestorePenultimate, ModeDisabled}
}

// ErrMode says that a word names no mode.
var ErrMode = errors.New("unknown mode")

// ParseMode checks a mode by name.
func ParseMode(text string) (Mode, error) {
	var names []string
	for _, m := range Modes() {
		if text == string(m) {
			return m, nil
		}
		names = append(names, string(m))
	}
	return "", fmt.Errorf("%w %q: use one of %s", ErrMode, text, strings.Join(names, ", "))
}

// restores reports whether the mode puts a snapshot back in place of live.
func (m Mode) restores() bool { return m == ModeRestorePrevious || m == ModeRestorePenultimate }

// restoreSource is the snapshot that a restoring mode puts back.
func (m Mode) restoreSource() string {
	if m == ModeRestorePenultimate {
		return NamePenultimate
	}
	return NamePrevious
}
