// Package luks reads LUKS2 headers and builds the cryptsetup commands that
// change them.
//
// Reading is done here, from the two copies of the header on the disk, and
// never asks for a secret; what it cannot make sense of is an error. Changing
// is cryptsetup's: a command is a value ([run.Command]) whose secrets travel by
// standard input and by a file in memory. Every passphrase test is done with
// external tokens disabled, since a TPM that unlocks the volume would make any
// passphrase look right.
//
// The form is that of the LUKS2 On-Disk Format Specification, version 1.1.
package luks

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strconv"
)

// What a header can be wrong in.
var (
	ErrNotLUKS = errors.New("not a LUKS volume")
	ErrDamaged = errors.New("both copies of the LUKS2 header are damaged")
)

// VersionError is a LUKS volume of another version than 2.
type VersionError int

// Error names the version.
func (e VersionError) Error() string { return fmt.Sprintf("LUKS version %d, want 2", int(e)) }

// Header is what a LUKS2 header says.
type Header struct {
	UUID  string `json:"uuid"`
	Label string `json:"label,omitempty"`
	// Sequence counts the changes.
	Sequence uint64 `json:"sequence"`
	// OneCopy says that one of the two copies of the header is damaged.
	OneCopy bool          `json:"oneCopy,omitempty"`
	Slots   map[int]Slot  `json:"slots"`
	Tokens  map[int]Token `json:"tokens"`
}

// Slot is one key slot.
type Slot struct {
	// KDF is how a passphrase becomes a key: argon2id, argon2i, pbkdf2.
	KDF string `json:"kdf"`
	// Ignored slots are tried only when they are asked for by number.
	Ignored bool `json:"ignored,omitempty"`
}

// Token is one token: what a program other than cryptsetup keeps for slots.
type Token struct {
	Type  string `json:"type"`
	Slots []int  `json:"slots"`
	// Raw is the whole JSON object.
	Raw json.RawMessage `json:"-"`
}

// Token types of systemd (systemd-cryptenroll(1)) that are told apart here.
const (
	TokenTPM2     = "systemd-tpm2" //nolint:gosec // a name, no secret
	TokenRecovery = "systemd-recovery"
)

// The binary header. Numbers are big-endian.
const (
	binarySize = 4096
	magicSize  = 6
	// largest is the largest header of the specification, JSON area included.
	largest = 4 << 20

	offVersion  = 6
	offSize     = 8
	offSequence = 16
	offLabel    = 24
	offAlgo     = 72
	offUUID     = 168
	offOffset   = 256
	offChecksum = 448
	labelSize   = 48
	algoSize    = 32
	uuidSize    = 40
	checkSize   = 64
)

var (
	magicFirst  = []byte("LUKS\xba\xbe")
	magicSecond = []byte("SKUL\xba\xbe")
)

// secondOffsets are where the second copy can be, by the size of the first.
var secondOffsets = []int64{0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000}

// Read reads the newest sound copy of the header at the start of a volume.
func Read(volume io.ReaderAt) (*Header, error) {
	first, firstErr := readCopy(volume, 0, magicFirst)
	if _, old := errors.AsType[VersionError](firstErr); old {
		return nil, firstErr
	}
	var second *Header
	for _, offset := range secondOffsets {
		h, err := readCopy(volume, offset, magicSecond)
		if err == nil {
			second = h
			break
		}
	}
	switch {
	case first != nil && second != nil:
		if second.Sequence > first.Sequence {
			first = second
		}
		return first, nil
	case first != nil:
		first.OneCopy = true
		return first, nil
	case second != nil:
		second.OneCopy = true
		return second, nil
	case errors.Is(firstErr, ErrNotLUKS):
		return nil, ErrNotLUKS
	default:
		return nil, fmt.Errorf("%w: %w", ErrDamaged, firstErr)
	}
}

// readCopy reads one copy of the header.
func readCopy(volume io.ReaderAt, offset int64, magic []byte) (*Header, error) {
	binaryPart := make([]byte, binarySize)
	if _, err := volume.ReadAt(binaryPart, offset); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, ErrNotLUKS
		}
		return nil, err
	}
	if !bytes.Equal(binaryPart[:magicSize], magic) {
		return nil, ErrNotLUKS
	}
	if version := binary.BigEndian.Uint16(binaryPart[offVersion:]); version != 2 {
		return nil, VersionError(version)
	}
	size := binary.BigEndian.Uint64(binaryPart[offSize:])
	if size <= binarySize || size > largest || binary.BigEndian.Uint64(binaryPart[offOffset:]) != uint64(offset) {
		return nil, fmt.Errorf("header at %d: impossible size or place", offset)
	}
	area := make([]byte, size-binarySize)
	if _, err := volume.ReadAt(area, offset+binarySize); err != nil {
		return nil, fmt.Errorf("header at %d: JSON area: %w", offset, err)
	}
	if err := verify(binaryPart, area); err != nil {
		return nil, fmt.Errorf("header at %d: %w", offset, err)
	}
	h := &Header{
		UUID:     text(binaryPart[offUUID:][:uuidSize]),
		Label:    text(binaryPart[offLabel:][:labelSize]),
		Sequence: binary.BigEndian.Uint64(binaryPart[offSequence:]),
	}
	if err := h.fill(bytes.TrimRight(area, "\x00")); err != nil {
		return nil, fmt.Errorf("header at %d: %w", offset, err)
	}
	return h, nil
}

// verify checks the checksum, which covers the whole header with the checksum
// itself as zeros.
func verify(binaryPart, area []byte) error {
	var sum hash.Hash
	switch name := text(binaryPart[offAlgo:][:algoSize]); name {
	case "sha256":
		sum = sha256.New()
	case "sha512":
		sum = sha512.New()
	default:
		return fmt.Errorf("unknown checksum %q", name)
	}
	want := slices.Clone(binaryPart[offChecksum:][:sum.Size()])
	zeroed := slices.Clone(binaryPart)
	clear(zeroed[offChecksum:][:checkSize])
	sum.Write(zeroed)
	sum.Write(area)
	if !bytes.Equal(sum.Sum(nil), want) {
		return errors.New("wrong checksum")
	}
	return nil
}

// text is a field's content up to its first zero.
func text(field []byte) string {
	content, _, _ := bytes.Cut(field, []byte{0})
	return string(content)
}

// metadata is the part of the JSON area that matters here.
type metadata struct {
	Keyslots map[string]struct {
		Priority *int `json:"priority"`
		KDF      struct {
			Type string `json:"type"`
		} `json:"kdf"`
	} `json:"keyslots"`
	Tokens map[string]json.RawMessage `json:"tokens"`
}

func (h *Header) fill(area []byte) error {
	var m metadata
	if err := json.Unmarshal(area, &m); err != nil {
		return fmt.Errorf("JSON area: %w", err)
	}
	h.Slots, h.Tokens = map[int]Slot{}, map[int]Token{}
	for name, slot := range m.Keyslots {
		number, err := strconv.Atoi(name)
		if err != nil {
			return fmt.Errorf("key slot %q: %w", name, err)
		}
		h.Slots[number] = Slot{KDF: slot.KDF.Type, Ignored: slot.Priority != nil && *slot.Priority == 0}
	}
	for name, raw := range m.Tokens {
		number, err := strconv.Atoi(name)
		if err != nil {
			return fmt.Errorf("token %q: %w", name, err)
		}
		if h.Tokens[number], err = parseToken(raw); err != nil {
			return fmt.Errorf("token %d: %w", number, err)
		}
	}
	return nil
}

func parseToken(raw json.RawMessage) (Token, error) {
	var common struct {
		Type     string   `json:"type"`
		Keyslots []string `json:"keyslots"`
	}
	if err := json.Unmarshal(raw, &common); err != nil {
		return Token{}, err
	}
	token := Token{Type: common.Type, Raw: slices.Clone(raw), Slots: []int{}}
	for _, name := range common.Keyslots {
		slot, err := strconv.Atoi(name)
		if err != nil {
			return Token{}, fmt.Errorf("key slot %q: %w", name, err)
		}
		token.Slots = append(token.Slots, slot)
	}
	slices.Sort(token.Slots)
	return token, nil
}

// SlotNumbers are the slots in use, in order.
func (h *Header) SlotNumbers() []int { return slices.Sorted(maps.Keys(h.Slots)) }

// TokensOf are the numbers of the tokens of a type, in order.
func (h *Header) TokensOf(kind string) []int {
	var numbers []int
	for number, token := range h.Tokens {
		if token.Type == kind {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers
}

// SlotsOf are the slots that tokens of a type stand for, in order.
func (h *Header) SlotsOf(kind string) []int {
	var slots []int
	for _, token := range h.Tokens {
		if token.Type == kind {
			slots = append(slots, token.Slots...)
		}
	}
	slices.Sort(slots)
	return slices.Compact(slots)
}

// Kind is what opens a slot.
type Kind string

// The kinds of slots.
const (
	Passphrase Kind = "passphrase"
	Recovery   Kind = "recovery-key"
	TPM2       Kind = "tpm2"
	OtherToken Kind = "other-token"
)

// KindOf tells what opens a slot: the token that stands for it, or what a
// person types.
func (h *Header) KindOf(slot int) Kind {
	kind := Passphrase
	for _, token := range h.Tokens {
		if !slices.Contains(token.Slots, slot) {
			continue
		}
		switch token.Type {
		case TokenRecovery:
			kind = Recovery
		case TokenTPM2:
			return TPM2
		default:
			return OtherToken
		}
	}
	return kind
}

// Typed are the slots that a person can open by typing: passphrases and
// recovery keys.
func (h *Header) Typed() []int {
	var slots []int
	for _, slot := range h.SlotNumbers() {
		if kind := h.KindOf(slot); kind == Passphrase || kind == Recovery {
			slots = append(slots, slot)
		}
	}
	return slots
}

// slotLimit is the number of key slots of LUKS2 (LUKS2_KEYSLOTS_MAX).
const slotLimit = 32

// ErrNoFreeSlot is a header with all key slots in use.
var ErrNoFreeSlot = fmt.Errorf("all %d key slots are in use", slotLimit)

// FreeSlot is the lowest slot that is not in use.
func (h *Header) FreeSlot() (int, error) {
	for slot := range slotLimit {
		if _, used := h.Slots[slot]; !used {
			return slot, nil
		}
	}
	return 0, ErrNoFreeSlot
}
