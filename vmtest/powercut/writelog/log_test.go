package writelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const sectorSize = 512

// rawEntry is an entry as a test writes it: every field as it stands in the log.
type rawEntry struct {
	sector, sectors uint64
	flags           Flags
	dataLen         uint64
	note            string // after the header, in its sector
	data            []byte // after the header's sector
}

// rawLog lays out a log by hand, after the comments of dm-log-writes.c.
func rawLog(count uint64, entries ...rawEntry) []byte {
	le := binary.LittleEndian
	super := make([]byte, sectorSize)
	le.PutUint64(super, Magic)
	le.PutUint64(super[8:], Version)
	le.PutUint64(super[16:], count)
	le.PutUint32(super[24:], sectorSize)
	log := super
	for _, e := range entries {
		header := make([]byte, sectorSize)
		le.PutUint64(header, e.sector)
		le.PutUint64(header[8:], e.sectors)
		le.PutUint64(header[16:], uint64(e.flags))
		le.PutUint64(header[24:], e.dataLen)
		copy(header[entrySize:], e.note)
		log = append(append(log, header...), e.data...)
	}
	return log
}

func fill(b byte, sectors int) []byte { return bytes.Repeat([]byte{b}, sectors*sectorSize) }

func TestRead(t *testing.T) {
	raw := rawLog(6,
		rawEntry{sector: 8, sectors: 2, data: fill('a', 2)},
		rawEntry{flags: Flush},
		rawEntry{sector: 128, sectors: 1, flags: FUA | Metadata, data: fill('b', 1)},
		rawEntry{sector: 16, sectors: 1 << 20, flags: Discard},
		rawEntry{flags: Mark, dataLen: 5, note: "ready"},
		rawEntry{sector: 1, sectors: 1, flags: Flush, data: fill('c', 1)},
	)
	log, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatalf("Read = %v", err)
	}
	want := []Entry{
		{Offset: 4096, Length: 1024},
		{Flags: Flush},
		{Offset: 65536, Length: 512, Flags: FUA | Metadata},
		{Offset: 8192, Length: 512 << 20, Flags: Discard},
		{Flags: Mark, Note: "ready"},
		{Offset: 512, Length: 512, Flags: Flush},
	}
	if diff := cmp.Diff(want, log.Entries, cmpopts.IgnoreUnexported(Entry{})); diff != "" {
		t.Errorf("Read: entries (-want +got)\n%s", diff)
	}
	if log.Trailing != 0 || log.SectorSize != sectorSize {
		t.Errorf("Read: trailing %d, sector size %d, want 0 and %d", log.Trailing, log.SectorSize, sectorSize)
	}
	for i, want := range map[int]byte{0: 'a', 2: 'b', 5: 'c'} {
		e := log.Entries[i]
		got := make([]byte, e.Length)
		if err := log.ReadAt(e, got, 0); err != nil {
			t.Errorf("ReadAt(entry %d) = %v", i, err)
		}
		if !bytes.Equal(got, fill(want, int(e.Length/sectorSize))) {
			t.Errorf("ReadAt(entry %d) = %q…, want only %q", i, got[:8], want)
		}
	}
	wantCounts := Counts{Writes: 3, Bytes: 2048, Flushes: 2, FUA: 1, Discards: 1}
	if diff := cmp.Diff(wantCounts, log.Count()); diff != "" {
		t.Errorf("Count (-want +got)\n%s", diff)
	}
}

func TestReadData(t *testing.T) {
	raw := rawLog(2,
		rawEntry{sector: 8, sectors: 2, data: append(fill('x', 1), fill('y', 1)...)},
		rawEntry{sector: 8, sectors: 2, flags: Discard},
	)
	log, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatalf("Read = %v", err)
	}
	b := make([]byte, 2)
	if err := log.ReadAt(log.Entries[0], b, sectorSize-1); err != nil || string(b) != "xy" {
		t.Errorf("ReadAt across sectors = %q, %v, want \"xy\"", b, err)
	}
	for _, c := range []struct {
		entry  int
		length int
		from   int64
	}{{0, 1, 1024}, {0, 1025, 0}, {0, 1, -1}, {1, 1, 0}} {
		if err := log.ReadAt(log.Entries[c.entry], make([]byte, c.length), c.from); !errors.Is(err, ErrLength) {
			t.Errorf("ReadAt(entry %d, %d bytes at %d) = %v, want %v", c.entry, c.length, c.from, err, ErrLength)
		}
	}
}

func TestReadEmpty(t *testing.T) {
	if diff := cmp.Diff(rawLog(0), Empty(sectorSize)); diff != "" {
		t.Errorf("Empty (-want +got)\n%s", diff)
	}
	raw := Empty(4096)
	log, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || len(log.Entries) != 0 || log.Trailing != 0 || log.SectorSize != 4096 {
		t.Errorf("Read(no entries) = %+v, %v, want an empty log with sectors of 4096 bytes", log, err)
	}
}

func TestReadTrailing(t *testing.T) {
	raw := rawLog(1,
		rawEntry{flags: Flush},
		rawEntry{sector: 1, sectors: 1, data: fill('x', 1)},
	)
	log, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil || len(log.Entries) != 1 || log.Trailing != 2*sectorSize {
		t.Errorf("Read(uncounted tail) = %+v, %v, want one entry and %d bytes trailing", log, err, 2*sectorSize)
	}
}

func TestReadErrors(t *testing.T) {
	le := binary.LittleEndian
	change := func(f func(b []byte)) []byte {
		raw := rawLog(1, rawEntry{flags: Flush})
		f(raw)
		return raw
	}
	write := rawEntry{sector: 8, sectors: 2, data: fill('a', 2)}
	entryError := func(n int, at int64, err error) error { return &EntryError{Entry: n, At: at, Err: err} }
	tests := []struct {
		name string
		raw  []byte
		want error // matched by errors.Is; an *EntryError's place is compared too
	}{
		{"nothing", nil, ErrTruncated},
		{"half a superblock", rawLog(0)[:20], ErrTruncated},
		{"superblock without its sector", rawLog(0)[:100], ErrTruncated},
		{"bad magic", change(func(b []byte) { b[0]++ }), ErrMagic},
		{"newer version", change(func(b []byte) { b[8]++ }), ErrVersion},
		{"sector size 0", change(func(b []byte) { le.PutUint32(b[24:], 0) }), ErrSectorSize},
		{"sector size 513", change(func(b []byte) { le.PutUint32(b[24:], 513) }), ErrSectorSize},
		{"sector size 16", change(func(b []byte) { le.PutUint32(b[24:], 16) }), ErrSectorSize},
		{"sector size 16 MiB", change(func(b []byte) { le.PutUint32(b[24:], maxSectorSize) }), ErrSectorSize},
		{"no entry where one is counted", rawLog(1), entryError(0, 512, ErrTruncated)},
		{"endless entries", rawLog(math.MaxUint64, write), entryError(1, 2048, ErrTruncated)},
		{"header cut", rawLog(1, write)[:512+31], entryError(0, 512, ErrTruncated)},
		{"header's sector cut", rawLog(1, rawEntry{flags: Flush})[:512+40], entryError(0, 512, ErrTruncated)},
		{"data cut", rawLog(1, write)[:512*3+511], entryError(0, 512, ErrTruncated)},
		{"second data cut", rawLog(2, write, write)[:512*6], entryError(1, 2048, ErrTruncated)},
		{"unknown flag", rawLog(1, rawEntry{flags: 1 << 5}), entryError(0, 512, ErrFlags)},
		{"discard with FUA", rawLog(1, rawEntry{sectors: 1, flags: Discard | FUA}), entryError(0, 512, ErrFlags)},
		{"mark with flush", rawLog(1, rawEntry{flags: Mark | Flush}), entryError(0, 512, ErrFlags)},
		{"offset overflows", rawLog(1, rawEntry{sector: math.MaxUint64, sectors: 1, flags: Discard}), entryError(0, 512, ErrLength)},
		{"length overflows", rawLog(1, rawEntry{sector: 1, sectors: math.MaxUint64, flags: Discard}), entryError(0, 512, ErrLength)},
		{"end overflows", rawLog(1, rawEntry{sector: math.MaxInt64 / 512, sectors: 1, flags: Discard}), entryError(0, 512, ErrLength)},
		{"write of nothing", rawLog(1, rawEntry{}), entryError(0, 512, ErrLength)},
		{"more data than sectors", rawLog(1, rawEntry{sectors: 1, dataLen: 513, data: fill('a', 1)}), entryError(0, 512, ErrLength)},
		{"discard with data", rawLog(1, rawEntry{sectors: 1, flags: Discard, dataLen: 1}), entryError(0, 512, ErrLength)},
		{"mark too long", rawLog(1, rawEntry{flags: Mark, dataLen: 481}), entryError(0, 512, ErrLength)},
		{"mark with sectors", rawLog(1, rawEntry{flags: Mark, sectors: 1}), entryError(0, 512, ErrLength)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(bytes.NewReader(tt.raw), int64(len(tt.raw)))
			want := tt.want
			if place, ok := errors.AsType[*EntryError](want); ok {
				var got *EntryError
				if !errors.As(err, &got) || got.Entry != place.Entry || got.At != place.At {
					t.Errorf("Read = %v, want an error of entry %d at byte %d", err, place.Entry, place.At)
				}
				want = place.Err
			}
			if !errors.Is(err, want) {
				t.Errorf("Read = %v, want %v", err, want)
			}
		})
	}
}

func TestReadFailure(t *testing.T) {
	if _, err := Read(brokenReader{}, 4096); !errors.Is(err, errBroken) {
		t.Errorf("Read(broken reader) = %v, want %v", err, errBroken)
	}
	// A log that is shorter than its file said.
	if _, err := Read(bytes.NewReader(rawLog(0)[:8]), 4096); !errors.Is(err, ErrTruncated) {
		t.Errorf("Read(short reader) = %v, want %v", err, ErrTruncated)
	}
}

var errBroken = errors.New("broken")

type brokenReader struct{}

func (brokenReader) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

func TestFits(t *testing.T) {
	raw := rawLog(2,
		rawEntry{sector: 0, sectors: 1, data: fill('a', 1)},
		rawEntry{sector: 7, sectors: 2, flags: Discard},
	)
	log, err := Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatalf("Read = %v", err)
	}
	if err := log.Fits(9 * sectorSize); err != nil {
		t.Errorf("Fits(9 sectors) = %v, want nil", err)
	}
	var place *EntryError
	if err := log.Fits(8 * sectorSize); !errors.Is(err, ErrBeyondDisk) || !errors.As(err, &place) || place.Entry != 1 {
		t.Errorf("Fits(8 sectors) = %v, want %v of entry 1", err, ErrBeyondDisk)
	}
}

func TestFlagsString(t *testing.T) {
	for f, want := range map[Flags]string{
		0:                  "",
		Flush:              "flush",
		FUA | Metadata:     "fua|metadata",
		Discard | Mark:     "discard|mark",
		Flush | 1<<5 | 256: "flush|0x120",
	} {
		if got := f.String(); got != want {
			t.Errorf("Flags(%#x).String() = %q, want %q", uint64(f), got, want)
		}
	}
}

// FuzzRead: any bytes give a log or an error; what was accepted can be read,
// lies within the log, and accounts for each of its bytes.
func FuzzRead(f *testing.F) {
	f.Add(rawLog(0))
	f.Add(rawLog(1, rawEntry{flags: Flush}))
	f.Add(rawLog(2, rawEntry{sector: 8, sectors: 2, flags: FUA, data: fill('a', 2)}, rawEntry{sectors: 9, flags: Discard}))
	f.Add(rawLog(1, rawEntry{flags: Mark, dataLen: 5, note: "ready"}))
	f.Add(rawLog(1<<63, rawEntry{sector: 1, sectors: math.MaxUint64}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		log, err := Read(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		used := log.SectorSize + log.Trailing
		for i, e := range log.Entries {
			used += log.SectorSize
			if e.Offset < 0 || e.Length < 0 || e.Offset+e.Length < 0 {
				t.Fatalf("entry %d = %v, negative", i, e)
			}
			if e.Flags&(Discard|Mark) != 0 {
				continue
			}
			used += e.Length
			if err := log.ReadAt(e, make([]byte, e.Length), 0); err != nil {
				t.Fatalf("ReadAt(entry %d of an accepted log) = %v", i, err)
			}
		}
		if used != int64(len(raw)) {
			t.Fatalf("entries and tail account for %d bytes of %d", used, len(raw))
		}
	})
}
