package fakeesp

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"unicode/utf16"
)

// Namespaces of variables.
const (
	Global   = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	Security = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
	Loader   = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
)

// Firmware are the variables of a machine's firmware.
type Firmware struct {
	SetupMode, SecureBoot bool
	PK, KEK, DB           []Key
	Loader, Stub, Entry   string
}

// Write writes the variables below a machine's root, as efivarfs shows them.
func (f Firmware) Write(root string) error {
	folder := filepath.Join(root, "sys/firmware/efi/efivars")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	flag := map[bool]byte{true: 1}
	variables := map[string][]byte{
		"SetupMode-" + Global: {flag[f.SetupMode]}, "SecureBoot-" + Global: {flag[f.SecureBoot]},
		"PK-" + Global: signatureList(f.PK), "KEK-" + Global: signatureList(f.KEK), "db-" + Security: signatureList(f.DB),
		"LoaderInfo-" + Loader: utf16Text(f.Loader), "StubInfo-" + Loader: utf16Text(f.Stub), "LoaderEntrySelected-" + Loader: utf16Text(f.Entry),
	}
	for name, content := range variables {
		if len(content) == 0 {
			continue
		}
		if err := WriteVariable(root, name, content); err != nil {
			return err
		}
	}
	return nil
}

// WriteVariable writes one variable, NAME-NAMESPACE, with attributes in front.
func WriteVariable(root, name string, content []byte) error {
	file := filepath.Join(root, "sys/firmware/efi/efivars", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append([]byte{7, 0, 0, 0}, content...), 0o644)
}

// signatureList is a database of certificates (EFI_SIGNATURE_LIST, one for
// each, as firmware has them).
func signatureList(keys []Key) []byte {
	var b bytes.Buffer
	for _, k := range keys {
		b.Write([]byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72})
		each := uint32(16 + len(k.Certificate.Raw))
		for _, n := range []uint32{28 + each, 0, each} {
			_ = binary.Write(&b, binary.LittleEndian, n)
		}
		b.Write(make([]byte, 16)) // the owner
		b.Write(k.Certificate.Raw)
	}
	return b.Bytes()
}

func utf16Text(text string) []byte {
	if text == "" {
		return nil
	}
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, append(utf16.Encode([]rune(text)), 0))
	return b.Bytes()
}

// Sizes in a variable store of OVMF (MdeModulePkg, VariableFormat.h).
const (
	volumeSignature = 0x28 // "_FVH"
	volumeHeader    = 0x30 // length of the volume's header, 16 bits
	storeHead       = 28
	variableHead    = 60
	variableStart   = 0x55aa
	stateAdded      = 0x3f
)

// ReadOVMF reads the variables of an OVMF variable file, NAME-NAMESPACE to
// content.
func ReadOVMF(store []byte) map[string][]byte {
	variables := map[string][]byte{}
	if len(store) < volumeHeader+2 || string(store[volumeSignature:volumeSignature+4]) != "_FVH" {
		return variables
	}
	at := int(binary.LittleEndian.Uint16(store[volumeHeader:])) + storeHead
	for at+variableHead <= len(store) && binary.LittleEndian.Uint16(store[at:]) == variableStart {
		head := store[at:]
		nameSize := int(binary.LittleEndian.Uint32(head[36:]))
		dataSize := int(binary.LittleEndian.Uint32(head[40:]))
		body := head[variableHead:]
		if head[2] == stateAdded {
			units := make([]uint16, nameSize/2-1)
			_ = binary.Read(bytes.NewReader(body), binary.LittleEndian, units)
			variables[string(utf16.Decode(units))+"-"+guid(head[44:60])] = body[nameSize : nameSize+dataSize]
		}
		at = (at + variableHead + nameSize + dataSize + 3) &^ 3
	}
	return variables
}

// guid is a GUID of the firmware's as text.
func guid(b []byte) string {
	const digits = "0123456789abcdef"
	var text []byte
	for i, at := range []int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = append(text, digits[b[at]>>4], digits[b[at]&0xf])
	}
	return string(text)
}
