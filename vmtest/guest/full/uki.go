package full

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"nixos-go/pkg/run"
)

// Section is one that a unified kernel image adds to its stub.
type Section struct {
	Name    string
	Content []byte
}

// Offsets in the headers of a PE file (Microsoft, "PE Format"): from the
// signature "PE\0\0", and of a 64-bit optional header.
const (
	peSections        = 6  // NumberOfSections
	peOptionalSize    = 20 // SizeOfOptionalHeader
	peOptional        = 24
	optInitializedLen = 8  // SizeOfInitializedData
	optImageSize      = 56 // SizeOfImage
	sectionHeader     = 40

	// IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
	initializedData = 0x40000040
)

// AddSections is an EFI program with sections added: that, with those of
// [UKI.Sections], is all that a unified kernel image is (UAPI.5). Each is mapped
// behind what is there.
func AddSections(program []byte, sections []Section) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("no 64-bit EFI program")
	}
	le := binary.LittleEndian
	start := int(le.Uint32(program[0x3c:]))
	table := start + peOptional + int(le.Uint16(program[start+peOptionalSize:]))
	used := table + len(f.Sections)*sectionHeader
	if used+len(sections)*sectionHeader > int(header.SizeOfHeaders) {
		return nil, fmt.Errorf("no room for %d more sections in the headers", len(sections))
	}
	out := bytes.Clone(program)
	address := uint32(0)
	for _, s := range f.Sections {
		address = max(address, s.VirtualAddress+s.VirtualSize)
	}
	initialized := header.SizeOfInitializedData
	for i, s := range sections {
		if len(s.Name) > 8 {
			return nil, fmt.Errorf("section name %q is longer than 8 bytes", s.Name)
		}
		address = alignUp(address, header.SectionAlignment)
		out = append(out, make([]byte, alignUp(uint32(len(out)), header.FileAlignment)-uint32(len(out)))...)
		entry := out[used+i*sectionHeader:]
		raw := alignUp(uint32(len(s.Content)), header.FileAlignment)
		copy(entry[:8], s.Name)
		le.PutUint32(entry[8:], uint32(len(s.Content)))
		le.PutUint32(entry[12:], address)
		le.PutUint32(entry[16:], raw)
		le.PutUint32(entry[20:], uint32(len(out)))
		le.PutUint32(entry[36:], initializedData)
		out = append(append(out, s.Content...), make([]byte, int(raw)-len(s.Content))...)
		address += uint32(len(s.Content))
		initialized += raw
	}
	le.PutUint16(out[start+peSections:], uint16(len(f.Sections)+len(sections)))
	le.PutUint32(out[start+peOptional+optInitializedLen:], initialized)
	le.PutUint32(out[start+peOptional+optImageSize:], alignUp(address, header.SectionAlignment))
	return out, nil
}

func alignUp(n, to uint32) uint32 { return (n + to - 1) / to * to }

// UKI is a unified kernel image in the making.
type UKI struct {
	// Initrd is a file of the host.
	Initrd string
	// Cmdline is the kernel's command line.
	Cmdline []string
	// More are further sections, before the initrd and the kernel.
	More []Section
	// Stub changes the stub; nil takes systemd's as it is.
	Stub func([]byte) ([]byte, error)
}

// BuildUKI writes the image, unsigned.
func (g Guest) BuildUKI(ctx context.Context, u UKI, out string) error {
	stub, err := os.ReadFile(filepath.Join(g.Root, "usr/lib/systemd/boot/efi/linuxx64.efi.stub"))
	if err != nil {
		return err
	}
	if u.Stub != nil {
		if stub, err = u.Stub(stub); err != nil {
			return err
		}
	}
	release, err := os.ReadFile(filepath.Join(g.Root, "usr/lib/os-release"))
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile(g.Kernel)
	if err != nil {
		return err
	}
	initrd, err := Compress(ctx, u.Initrd)
	if err != nil {
		return err
	}
	sections := append([]Section{
		{".osrel", release}, {".cmdline", []byte(strings.Join(u.Cmdline, " "))}, {".uname", []byte(g.Release)},
	}, u.More...)
	// The kernel unpacks itself over what follows it, so it comes last.
	image, err := AddSections(stub, append(sections, Section{".initrd", initrd}, Section{".linux", kernel}))
	if err != nil {
		return err
	}
	return os.WriteFile(out, image, 0o600)
}

// Compress is the content of an initrd, packed: firmware reads slowly.
func Compress(ctx context.Context, initrd string) ([]byte, error) {
	result, err := (&run.Local{}).Run(ctx, run.New("zstd", "-q", "-3", "-c", initrd))
	return result.Stdout, err
}

// RenameStub replaces the name by which systemd's stub tells the system what it
// is (the variable StubInfo). The name is text in UTF-16; the new one must not be
// longer.
func RenameStub(to string) func([]byte) ([]byte, error) {
	return func(stub []byte) ([]byte, error) {
		from, name := wide("systemd-stub "), wide(to)
		at := bytes.Index(stub, from)
		if at < 0 || len(name) > len(from) {
			return nil, fmt.Errorf("the stub cannot be named %q", to)
		}
		out := bytes.Clone(stub)
		copy(out[at:], from) // the rest stays: the version
		for i := len(name); i < len(from); i += 2 {
			out[at+i], out[at+i+1] = ' ', 0
		}
		copy(out[at:], name)
		return out, nil
	}
}

func wide(text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}
