package secureboot

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/foxboron/go-uefi/authenticode"
)

// What an EFI program can be wrong in.
var (
	ErrNotPE    = errors.New("not an EFI program")
	ErrUnsigned = errors.New("not signed")
	ErrForeign  = errors.New("signed, but by no certificate that counts here")
)

// largestImage bounds what is read of one EFI program, in bytes. A unified
// image with its initrd stays below.
const largestImage = 1 << 30

// Image is an EFI program.
type Image struct {
	content []byte
}

// OpenImage reads an EFI program.
func OpenImage(name string) (*Image, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, largestImage+1))
	if err != nil {
		return nil, err
	}
	image, err := ParseImage(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return image, nil
}

// ParseImage checks that the content is an EFI program.
func ParseImage(content []byte) (*Image, error) {
	if len(content) > largestImage {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrNotPE, largestImage)
	}
	file, err := pe.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotPE, err)
	}
	if file.OptionalHeader == nil {
		return nil, fmt.Errorf("%w: an object without a header", ErrNotPE)
	}
	return &Image{content: content}, nil
}

// SignedBy finds the certificate that the image is signed by: [ErrUnsigned]
// without a signature, [ErrForeign] with one by somebody else, or one that the
// content does not match.
func (i *Image) SignedBy(certificates []Certificate) (signer Certificate, err error) {
	// The library takes the sizes in the file's own tables on trust.
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%w: its tables contradict each other (%v)", ErrNotPE, broken)
		}
	}()
	parsed, err := authenticode.Parse(bytes.NewReader(i.content))
	if err != nil {
		return Certificate{}, fmt.Errorf("%w: %w", ErrNotPE, err)
	}
	signatures, err := parsed.Signatures()
	if err != nil {
		return Certificate{}, fmt.Errorf("%w: its signatures: %w", ErrNotPE, err)
	}
	if len(signatures) == 0 {
		return Certificate{}, ErrUnsigned
	}
	for _, c := range certificates {
		if c.X509 == nil {
			continue
		}
		if ok, err := parsed.Verify(c.X509); ok && err == nil {
			return c, nil
		}
	}
	return Certificate{}, ErrForeign
}

// section is the content of a section, nil where there is none of the name.
func (i *Image) section(names ...string) []byte {
	file, err := pe.NewFile(bytes.NewReader(i.content))
	if err != nil {
		return nil
	}
	for _, s := range file.Sections {
		for _, name := range names {
			if s.Name != name {
				continue
			}
			data, err := s.Data()
			if err != nil {
				return nil
			}
			// What the file holds is rounded up; the virtual size is the truth.
			return data[:min(len(data), int(s.VirtualSize))]
		}
	}
	return nil
}

// Stub is what one of lanzaboote's stubs points at: a kernel and an initrd
// beside it on the ESP, which are not signed, and their hashes, which are.
type Stub struct {
	Kernel, Initrd         string // relative to the ESP, with slashes
	KernelHash, InitrdHash [sha256.Size]byte
}

var errStub = errors.New("a stub of lanzaboote without what one has")

// Stub reads the sections of lanzaboote's stub; ok is false for any other
// image. Stubs of versions before 0.4 have other names for the sections.
func (i *Image) Stub() (stub Stub, ok bool, err error) {
	kernelHash, initrdHash := i.section(".linuxh", ".kernelh"), i.section(".initrdh")
	if kernelHash == nil && initrdHash == nil {
		return Stub{}, false, nil
	}
	if len(kernelHash) != sha256.Size || len(initrdHash) != sha256.Size {
		return Stub{}, true, errStub
	}
	copy(stub.KernelHash[:], kernelHash)
	copy(stub.InitrdHash[:], initrdHash)
	if kernelHash = i.section(".linuxh"); kernelHash != nil {
		stub.Kernel, stub.Initrd = espPath(i.section(".linux")), espPath(i.section(".initrd"))
	} else {
		stub.Kernel, stub.Initrd = espPath(i.section(".kernelp")), espPath(i.section(".initrdp"))
	}
	if stub.Kernel == "" || stub.Initrd == "" {
		return Stub{}, true, errStub
	}
	return stub, true, nil
}

// espPath turns \EFI\nixos\kernel.efi into EFI/nixos/kernel.efi. A path that
// leads out of the ESP is none.
func espPath(data []byte) string {
	name := strings.Trim(strings.ReplaceAll(strings.TrimRight(string(data), "\x00"), `\`, "/"), "/")
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || part == "." || part == "" {
			return ""
		}
	}
	return name
}

// LoadCertificate reads a certificate in PEM, as sbctl keeps it.
func LoadCertificate(content []byte) (Certificate, error) {
	block := pemBlock(content)
	if block == nil {
		return Certificate{}, errors.New("no certificate in PEM")
	}
	c, err := x509.ParseCertificate(block)
	if err != nil {
		return Certificate{}, err
	}
	return newCertificate(c), nil
}
