package full

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// The GUID partition table: UEFI specification, chapter 5.
const (
	sectorSize   = 512
	tableSectors = 32 // 128 entries of 128 bytes
	typeESP      = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	typeLinux    = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
	typeSwap     = "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
)

// partition is one of a disk, in bytes; both are multiples of a sector.
type partition struct {
	label, kind  string
	start, bytes int64
}

// guid is the mixed-endian form of a GUID's text.
func guid(text string) ([16]byte, error) {
	var g [16]byte
	b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(text), []byte("-"), nil)))
	if err != nil || len(b) != 16 {
		return g, fmt.Errorf("%q is no GUID", text)
	}
	for i, from := range []int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
		g[i] = b[from]
	}
	return g, nil
}

func randomGUID() [16]byte {
	var g [16]byte
	_, _ = rand.Read(g[:]) // never fails
	g[7], g[8] = g[7]&0x0f|0x40, g[8]&0x3f|0x80
	return g
}

// writeGPT writes the table at both ends of a disk, and the protective MBR.
func writeGPT(disk io.WriterAt, size int64, partitions []partition) error {
	sectors := uint64(size / sectorSize)
	table := make([]byte, tableSectors*sectorSize)
	for i, p := range partitions {
		kind, err := guid(p.kind)
		if err != nil {
			return err
		}
		entry := table[i*128:]
		unique := randomGUID()
		copy(entry, kind[:])
		copy(entry[16:], unique[:])
		binary.LittleEndian.PutUint64(entry[32:], uint64(p.start/sectorSize))
		binary.LittleEndian.PutUint64(entry[40:], uint64((p.start+p.bytes)/sectorSize)-1)
		for j, unit := range utf16.Encode([]rune(p.label)) {
			binary.LittleEndian.PutUint16(entry[56+2*j:], unit)
		}
	}
	id := randomGUID()
	write := func(at uint64, b []byte) error {
		_, err := disk.WriteAt(b, int64(at)*sectorSize)
		return err
	}
	last := sectors - 1
	for _, part := range []struct {
		at      uint64
		content []byte
	}{
		{0, protectiveMBR(sectors)},
		{1, gptHeader(1, last, 2, sectors, id, table)},
		{2, table},
		{last - tableSectors, table},
		{last, gptHeader(last, 1, last-tableSectors, sectors, id, table)},
	} {
		if err := write(part.at, part.content); err != nil {
			return err
		}
	}
	return nil
}

func protectiveMBR(sectors uint64) []byte {
	b := make([]byte, sectorSize)
	entry := b[446:]
	copy(entry, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], 1)
	binary.LittleEndian.PutUint32(entry[12:], uint32(min(sectors-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

func gptHeader(self, other, table, sectors uint64, id [16]byte, entries []byte) []byte {
	b := make([]byte, sectorSize)
	copy(b, "EFI PART")
	le := binary.LittleEndian
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], 92)
	le.PutUint64(b[24:], self)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], 2+tableSectors)
	le.PutUint64(b[48:], sectors-2-tableSectors)
	copy(b[56:], id[:])
	le.PutUint64(b[72:], table)
	le.PutUint32(b[80:], 128)
	le.PutUint32(b[84:], 128)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92]))
	return b
}
