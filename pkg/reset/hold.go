package reset

import (
	"encoding/json"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// heldDir is a directory in which something changes that must leave no trace: its
// time and flags are put back afterwards.
type heldDir struct {
	New         bool   `json:"new"`             // it is in the new state, not in the old one
	Moves       bool   `json:"moves,omitempty"` // it is what moves: in the old or in the new
	Path        []byte `json:"path"`            // below the root of that
	Seconds     int64  `json:"seconds"`
	Nanoseconds int64  `json:"nanoseconds"`
	Flags       uint32 `json:"flags"`

	dir *os.File
}

// look notes the time and the flags.
func (h *heldDir) look() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(h.dir.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: h.dir.Name(), Err: err}
	}
	h.Seconds, h.Nanoseconds = st.Mtim.Sec, st.Mtim.Nsec
	var err error
	h.Flags, err = btrfs.Flags(h.dir)
	return err
}

// unlock lifts the flags that forbid a change.
func (h *heldDir) unlock() error {
	if h.Flags&lockFlags == 0 {
		return nil
	}
	return btrfs.SetFlags(h.dir, h.Flags&^lockFlags)
}

// putBack makes the directory as it was noted.
func (h *heldDir) putBack() error {
	if err := setMTime(h.dir, unix.Timespec{Sec: h.Seconds, Nsec: h.Nanoseconds}); err != nil {
		return err
	}
	if h.Flags&lockFlags == 0 {
		return nil
	}
	return btrfs.SetFlags(h.dir, h.Flags)
}

// holdDirs notes the times and the flags of directories, lifts flags that forbid a
// change, and gives a function that puts everything back.
func holdDirs(dirs ...*os.File) (func() error, error) {
	held := make([]heldDir, len(dirs))
	for i, dir := range dirs {
		held[i].dir = dir
		if err := held[i].look(); err != nil {
			return nil, err
		}
	}
	return lift(held)
}

func lift(held []heldDir) (putBack func() error, err error) {
	for i := range held {
		if err := held[i].unlock(); err != nil {
			return nil, err
		}
	}
	return func() error {
		for i := range held {
			if err := held[i].putBack(); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// noteName is the attribute of the record that holds what a move has yet to put
// back. Only root sees attributes of this class (xattr(7)).
const noteName = "trusted.nixos-go.held"

// hold is holdDirs for a move between the old state and the new one. What is to be
// put back is noted in the record first, since the kernel may commit right after the
// move: then the next run finds it there. Noting it, and clearing the note, makes
// the record the last thing that changed in the new state, as untouched wants it.
func (m *mover) hold(held ...heldDir) (release func() error, err error) {
	for i := range held {
		if err := held[i].look(); err != nil {
			return nil, err
		}
	}
	if err := m.note(held); err != nil {
		return nil, err
	}
	putBack, err := lift(held)
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := putBack(); err != nil {
			return err
		}
		return m.clearNote()
	}, nil
}

func (m *mover) note(held []heldDir) error {
	text, err := json.Marshal(held)
	if err != nil {
		return err
	}
	return m.withRecord(func(record *os.File) error {
		err := unix.Fsetxattr(int(record.Fd()), noteName, text, 0)
		if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) {
			return nil // paths too long to be noted: a cut costs a time or a flag
		}
		return pathError("note in", ReadyName, err)
	})
}

func (m *mover) clearNote() error {
	return m.withRecord(func(record *os.File) error {
		err := unix.Fremovexattr(int(record.Fd()), noteName)
		if errors.Is(err, unix.ENODATA) { // it was too long: the record is the last change all the same
			return pathError("touch", ReadyName, unix.Futimes(int(record.Fd()), nil))
		}
		return pathError("clear note in", ReadyName, err)
	})
}

// withRecord works on the record of the new state. Where there is none, nothing can
// be noted, and a cut costs a time or a flag.
func (m *mover) withRecord(work func(record *os.File) error) error {
	record, err := openRegular(m.new, ReadyName)
	if err != nil {
		return nil // no record, no note
	}
	defer record.Close()
	return work(record)
}

// finishNoted puts back what a move that was cut off has noted.
func (m *mover) finishNoted() error {
	var text []byte
	err := m.withRecord(func(record *os.File) error {
		text = make([]byte, unix.PathMax*8)
		n, err := unix.Fgetxattr(int(record.Fd()), noteName, text)
		text = text[:max(n, 0)]
		if errors.Is(err, unix.ENODATA) {
			return nil
		}
		return pathError("read note in", ReadyName, err)
	})
	if err != nil || len(text) == 0 {
		return err
	}
	var held []heldDir
	if err := json.Unmarshal(text, &held); err != nil {
		return m.clearNote() // not of our making
	}
	for i := range held {
		if err := m.finishHeld(&held[i]); err != nil {
			return err
		}
	}
	return m.clearNote()
}

func (m *mover) finishHeld(h *heldDir) error {
	roots := []*os.File{m.old}
	switch {
	case h.Moves:
		roots = append(roots, m.new)
	case h.New:
		roots[0] = m.new
	}
	for _, root := range roots {
		if err := h.putBackIn(root); err != nil {
			return err
		}
	}
	return nil
}

// putBackIn puts back what was noted, if the directory is there.
func (h *heldDir) putBackIn(root *os.File) error {
	dir, err := openDir(root, string(h.Path))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // no longer there to be put back
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if h.Moves {
		// In its place there is a stub, or what a boot in between made.
		if is, err := btrfs.IsSubvolume(dir); err != nil || !is {
			return err
		}
	}
	// The cut may have come before the flags were lifted, or after they were back.
	if err := liftFlags(dir); err != nil {
		return err
	}
	h.dir = dir
	return h.putBack()
}
