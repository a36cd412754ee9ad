// Package fakeesp makes EFI partitions, EFI programs, keys and firmware
// variables for tests: folders that look like what lanzaboote and systemd-boot
// leave on a disk, signed for real.
package fakeesp

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// T is the part of a test that reports what went wrong. A helper process of a
// test has [Panic].
type T interface {
	Helper()
	Fatal(args ...any)
}

// Panic is a [T] outside of a test.
type Panic struct{}

// Helper implements [T].
func (Panic) Helper() {}

// Fatal implements [T].
func (Panic) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Section is a section of an EFI program.
type Section struct {
	Name    string // at most 8 bytes
	Content []byte
}

// Layout of the programs that Image makes.
const (
	fileAlignment    = 512
	sectionAlignment = 4096
	peOffset         = 64
	optionalSize     = 240
	sectionSize      = 40
)

// Image is an EFI program (PE32+, x86-64) that has these sections and would do
// nothing. The form is that of Microsoft's PE Format specification.
func Image(sections ...Section) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	headers := align(peOffset+4+20+optionalSize+sectionSize*len(sections), fileAlignment)
	put([]byte("MZ"), make([]byte, 58), uint32(peOffset))
	put([]byte("PE\x00\x00"))
	// COFF header: machine, sections, time, symbols (2), size of the optional
	// header, characteristics.
	put(uint16(0x8664), uint16(len(sections)), uint32(0), uint32(0), uint32(0), uint16(optionalSize), uint16(0x0206))
	virtual := sectionAlignment
	for _, s := range sections {
		virtual += align(len(s.Content), sectionAlignment)
	}
	put(uint16(0x20b), uint16(0), uint32(0), uint32(0), uint32(0), uint32(sectionAlignment), uint32(sectionAlignment))
	put(uint64(0x140000000), uint32(sectionAlignment), uint32(fileAlignment), make([]byte, 16))
	put(uint32(virtual), uint32(headers), uint32(0), uint16(10), uint16(0), make([]byte, 32), uint32(0), uint32(16))
	put(make([]byte, 16*8))
	raw, address := headers, sectionAlignment
	for _, s := range sections {
		name := make([]byte, 8)
		copy(name, s.Name)
		size := align(len(s.Content), fileAlignment)
		put(name, uint32(len(s.Content)), uint32(address), uint32(size), uint32(raw), uint32(0), uint32(0), uint32(0), uint32(0x40000040))
		raw += size
		address += align(len(s.Content), sectionAlignment)
	}
	b.Write(make([]byte, headers-b.Len()))
	for _, s := range sections {
		b.Write(s.Content)
		b.Write(make([]byte, align(len(s.Content), fileAlignment)-len(s.Content)))
	}
	return b.Bytes()
}

func align(n, to int) int { return (n + to - 1) / to * to }
