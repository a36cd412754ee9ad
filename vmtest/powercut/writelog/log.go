// Package writelog reads the log of block writes that the kernel's
// dm-log-writes target and QEMU's blklogwrites driver produce.
//
// A log is a superblock, one sector long, followed by entries: one sector of
// header, then the data that was written. Discards carry no data, marks carry
// theirs inside the header's sector. All numbers are little-endian, and every
// length is in sectors of the size that the superblock names.
//
// The reader is strict. What does not follow the format is an error that says
// which entry and which byte of the log; nothing is guessed or skipped.
//
// Sources: drivers/md/dm-log-writes.c (format and order of completion),
// Documentation/admin-guide/device-mapper/log-writes.rst, and QEMU's
// block/blklogwrites.c.
package writelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Format constants, from drivers/md/dm-log-writes.c.
const (
	Magic   = 0x6a736677736872 // WRITE_LOG_MAGIC
	Version = 1                // WRITE_LOG_VERSION
)

// Sizes of struct log_write_super and struct log_write_entry.
const (
	superSize = 28
	entrySize = 32
)

// maxSectorSize is what blklogwrites accepts at most, exclusive.
const maxSectorSize = 1 << 24

// Flags of an entry, the LOG_*_FLAG values of drivers/md/dm-log-writes.c.
type Flags uint64

// The flags that the format knows.
const (
	Flush    Flags = 1 << iota // the device's cache was flushed before this entry's data
	FUA                        // the data was on stable storage when the write completed
	Discard                    // the sectors were discarded; no data follows
	Mark                       // a note of the user's, no write
	Metadata                   // the submitter called the data metadata

	known = Flush | FUA | Discard | Mark | Metadata
)

func (f Flags) String() string {
	names := []string{"flush", "fua", "discard", "mark", "metadata"}
	var set []string
	for i, name := range names {
		if f&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	if rest := f &^ known; rest != 0 {
		set = append(set, fmt.Sprintf("%#x", uint64(rest)))
	}
	return strings.Join(set, "|")
}

// What can be wrong with a log.
var (
	ErrMagic      = errors.New("not a log of block writes (bad magic)")
	ErrVersion    = errors.New("unsupported version of the log format")
	ErrSectorSize = errors.New("impossible sector size")
	ErrTruncated  = errors.New("the log is truncated")
	ErrFlags      = errors.New("impossible flags")
	ErrLength     = errors.New("impossible length")
	ErrBeyondDisk = errors.New("the write reaches beyond the end of the disk")
)

// An EntryError says which entry of a log is wrong.
type EntryError struct {
	Entry int   // index of the entry, from 0
	At    int64 // where its header begins in the log, in bytes
	Err   error
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("entry %d at byte %d: %v", e.Entry, e.At, e.Err)
}

func (e *EntryError) Unwrap() error { return e.Err }

// An Entry is one write, flush, discard or mark.
type Entry struct {
	Offset int64 // where on the disk, in bytes
	Length int64 // how much was written or discarded, in bytes; 0 for a bare flush
	Flags  Flags
	Note   string // text of a mark

	header int64 // where the header begins in the log
	data   int64 // where the data begins in the log
}

// IsWrite reports whether the entry changes the disk: a write that has data,
// or a discard.
func (e Entry) IsWrite() bool { return e.Length > 0 && e.Flags&Mark == 0 }

func (e Entry) String() string {
	s := fmt.Sprintf("%d+%d", e.Offset, e.Length)
	if e.Flags != 0 {
		s += " " + e.Flags.String()
	}
	if e.Note != "" {
		s += fmt.Sprintf(" %q", e.Note)
	}
	return s
}

// A Log is a parsed log. Its data stays where it is and is read on demand.
type Log struct {
	SectorSize int64 // bytes
	Entries    []Entry
	// Trailing is what the log holds beyond the last entry that the superblock
	// counts, in bytes. The superblock is written only now and then, so the tail
	// of a recording that was cut off is there.
	Trailing int64

	r io.ReaderAt
}

// Read parses the log in the first size bytes of r, which must stay readable
// for as long as data of the log is read.
func Read(r io.ReaderAt, size int64) (*Log, error) {
	super := make([]byte, superSize)
	if err := readFull(r, super, 0, size); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	le := binary.LittleEndian
	if got := le.Uint64(super); got != Magic {
		return nil, fmt.Errorf("superblock: %w: %#x", ErrMagic, got)
	}
	if got := le.Uint64(super[8:]); got != Version {
		return nil, fmt.Errorf("superblock: %w: %d", ErrVersion, got)
	}
	count := le.Uint64(super[16:])
	sector := int64(le.Uint32(super[24:]))
	if sector < entrySize || sector >= maxSectorSize || sector&(sector-1) != 0 {
		return nil, fmt.Errorf("superblock: %w: %d", ErrSectorSize, sector)
	}
	log := &Log{SectorSize: sector, r: r}
	pos := sector
	for i := range count {
		e, next, err := log.readEntry(pos, size)
		if err != nil {
			return nil, &EntryError{Entry: int(i), At: pos, Err: err}
		}
		log.Entries = append(log.Entries, e)
		pos = next
	}
	if size < pos {
		return nil, fmt.Errorf("superblock: %w", ErrTruncated)
	}
	log.Trailing = size - pos
	return log, nil
}

// Empty is the superblock of a log without entries. A recorder that starts from
// it has a valid log even if nothing is ever written.
func Empty(sectorSize int) []byte {
	super := make([]byte, sectorSize)
	le := binary.LittleEndian
	le.PutUint64(super, Magic)
	le.PutUint64(super[8:], Version)
	le.PutUint32(super[24:], uint32(sectorSize))
	return super
}

// readEntry parses the entry whose header is at pos, and says where the next
// one begins.
func (l *Log) readEntry(pos, size int64) (Entry, int64, error) {
	raw := make([]byte, entrySize)
	if err := readFull(l.r, raw, pos, size); err != nil {
		return Entry{}, 0, err
	}
	if pos+l.SectorSize > size {
		return Entry{}, 0, ErrTruncated
	}
	le := binary.LittleEndian
	sector, sectors := le.Uint64(raw), le.Uint64(raw[8:])
	flags, dataLen := Flags(le.Uint64(raw[16:])), le.Uint64(raw[24:])

	switch {
	case flags&^known != 0:
		return Entry{}, 0, fmt.Errorf("%w: %v", ErrFlags, flags)
	case flags&Mark != 0 && flags != Mark, flags&Discard != 0 && flags&(FUA|Flush) != 0:
		return Entry{}, 0, fmt.Errorf("%w: %v together", ErrFlags, flags)
	}
	// A disk ends long before the 8 EiB that an int64 counts.
	limit := uint64(math.MaxInt64 / l.SectorSize)
	if sector > limit || sectors > limit-sector {
		return Entry{}, 0, fmt.Errorf("%w: %d sectors at %d", ErrLength, sectors, sector)
	}
	e := Entry{
		Offset: int64(sector) * l.SectorSize,
		Length: int64(sectors) * l.SectorSize,
		Flags:  flags,
		header: pos,
		data:   pos + l.SectorSize,
	}
	if flags&Mark != 0 {
		return l.readMark(e, dataLen, size)
	}
	if flags&Discard != 0 {
		if dataLen != 0 {
			return Entry{}, 0, fmt.Errorf("%w: a discard with %d bytes of data", ErrLength, dataLen)
		}
		return e, e.data, nil
	}
	if dataLen > uint64(e.Length) {
		return Entry{}, 0, fmt.Errorf("%w: %d bytes of data in a write of %d", ErrLength, dataLen, e.Length)
	}
	if sectors == 0 && flags&Flush == 0 {
		return Entry{}, 0, fmt.Errorf("%w: a write of nothing", ErrLength)
	}
	if e.Length > size-e.data {
		return Entry{}, 0, ErrTruncated
	}
	return e, e.data + e.Length, nil
}

// readMark reads the text of a mark, which follows the header in its sector.
func (l *Log) readMark(e Entry, length uint64, size int64) (Entry, int64, error) {
	if e.Length != 0 || length > uint64(l.SectorSize-entrySize) {
		return Entry{}, 0, fmt.Errorf("%w: a mark of %d bytes and %d on disk", ErrLength, length, e.Length)
	}
	note := make([]byte, length)
	if err := readFull(l.r, note, e.header+entrySize, size); err != nil {
		return Entry{}, 0, err
	}
	e.Note = string(note)
	return e, e.data, nil
}

// readFull reads all of b at offset, within the first size bytes of r.
func readFull(r io.ReaderAt, b []byte, offset, size int64) error {
	if offset > size || int64(len(b)) > size-offset {
		return ErrTruncated
	}
	n, err := r.ReadAt(b, offset)
	switch {
	case n == len(b):
		return nil
	case err == nil, errors.Is(err, io.EOF):
		return ErrTruncated
	}
	return fmt.Errorf("read log at byte %d: %w", offset, err)
}

// ReadAt fills b with what entry e wrote, from the given byte of its data on.
// A discard has no data.
func (l *Log) ReadAt(e Entry, b []byte, from int64) error {
	if e.Flags&(Discard|Mark) != 0 || from < 0 || from > e.Length || int64(len(b)) > e.Length-from {
		return fmt.Errorf("read %d bytes at %d of entry %v: %w", len(b), from, e, ErrLength)
	}
	return readFull(l.r, b, e.data+from, e.data+e.Length)
}

// Fits checks that no entry reaches beyond a disk of size bytes.
func (l *Log) Fits(size int64) error {
	for i, e := range l.Entries {
		if e.Offset+e.Length > size {
			return &EntryError{Entry: i, At: e.header, Err: fmt.Errorf("%w: %v, disk of %d bytes", ErrBeyondDisk, e, size)}
		}
	}
	return nil
}

// Counts says how many entries of each sort a log has.
type Counts struct {
	Writes   int   `json:"writes"`
	Bytes    int64 `json:"bytes"` // written, discards not counted
	Flushes  int   `json:"flushes"`
	FUA      int   `json:"fua"`
	Discards int   `json:"discards"`
}

// Count counts the entries.
func (l *Log) Count() Counts {
	var c Counts
	for _, e := range l.Entries {
		switch {
		case e.Flags&Discard != 0:
			c.Discards++
		case e.IsWrite():
			c.Writes++
			c.Bytes += e.Length
		}
		if e.Flags&Flush != 0 {
			c.Flushes++
		}
		if e.Flags&FUA != 0 {
			c.FUA++
		}
	}
	return c
}
