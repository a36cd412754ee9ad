package tpm2

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/google/go-tpm/tpm2"
)

// EventLog is where the kernel shows the firmware's event log.
const EventLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

// EventType is the type of an event (TCG PC Client Platform Firmware Profile,
// 10.4.1).
type EventType uint32

// Types of events that matter here.
const (
	EventNoAction      EventType = 0x00000003
	EventBootDriver    EventType = 0x80000004 // EV_EFI_BOOT_SERVICES_DRIVER
	EventRuntimeDriver EventType = 0x80000005 // EV_EFI_RUNTIME_SERVICES_DRIVER
)

// Event is one measurement of the firmware.
type Event struct {
	PCR     int
	Type    EventType
	Digests map[Bank][]byte
	Data    []byte
}

// What an event log can be wrong in.
var (
	ErrOldLog  = errors.New("the event log is of the old form with SHA-1 alone")
	errTooLong = errors.New("an event longer than the log can be")
)

// The largest event, and the most digests of one, that are believed.
const (
	largestEvent = 1 << 20
	mostDigests  = 16
)

// specID begins the first event of a log of the crypto-agile form.
var specID = []byte("Spec ID Event03\x00")

// ParseEventLog reads a log of the crypto-agile form (TCG PC Client Platform
// Firmware Profile, 10.4). A log that ends in the middle of an event gives the
// events before it and an error.
func ParseEventLog(r io.Reader) ([]Event, error) {
	sizes, err := parseHeader(r)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	var events []Event
	for {
		event, err := parseEvent(r, sizes)
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, fmt.Errorf("event log, event %d: %w", len(events)+1, err)
		}
		// The log's area is padded with zeros or ones where firmware reserved
		// more than it used.
		if event.Type == 0 && len(event.Digests) == 0 {
			return events, nil
		}
		events = append(events, event)
	}
}

// parseHeader reads the first event, which has the old form, and gives the
// sizes of the digests in the others.
func parseHeader(r io.Reader) (map[tpm2.TPMAlgID]int, error) {
	var head struct {
		PCR    uint32
		Type   EventType
		Digest [20]byte
		Size   uint32
	}
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		return nil, err
	}
	if head.Size > largestEvent {
		return nil, errTooLong
	}
	data := make([]byte, head.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	if head.Type != EventNoAction || !bytes.HasPrefix(data, specID) {
		return nil, ErrOldLog
	}
	// Signature, platform class, version, size of UINTN; then the algorithms.
	rest := bytes.NewReader(data)
	if _, err := rest.Seek(int64(len(specID)+8), io.SeekStart); err != nil {
		return nil, err
	}
	var count uint32
	if err := binary.Read(rest, binary.LittleEndian, &count); err != nil {
		return nil, fmt.Errorf("list of hashes: %w", err)
	}
	if count > mostDigests {
		return nil, fmt.Errorf("%d hashes: %w", count, errTooLong)
	}
	sizes := map[tpm2.TPMAlgID]int{}
	for range count {
		var algorithm struct {
			ID   tpm2.TPMAlgID
			Size uint16
		}
		if err := binary.Read(rest, binary.LittleEndian, &algorithm); err != nil {
			return nil, fmt.Errorf("list of hashes: %w", err)
		}
		sizes[algorithm.ID] = int(algorithm.Size)
	}
	return sizes, nil
}

func parseEvent(r io.Reader, sizes map[tpm2.TPMAlgID]int) (Event, error) {
	var head struct {
		PCR   uint32
		Type  EventType
		Count uint32
	}
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		return Event{}, err // io.EOF between two events ends the log
	}
	if head.Count > mostDigests {
		// Unused space filled with ones.
		if head.Count == ^uint32(0) && head.PCR == ^uint32(0) {
			return Event{}, io.EOF
		}
		return Event{}, fmt.Errorf("%d digests: %w", head.Count, errTooLong)
	}
	event := Event{PCR: int(head.PCR), Type: head.Type, Digests: map[Bank][]byte{}}
	for range head.Count {
		var id tpm2.TPMAlgID
		if err := binary.Read(r, binary.LittleEndian, &id); err != nil {
			return event, cut(err)
		}
		size, known := sizes[id]
		if !known {
			return event, fmt.Errorf("a digest of hash %#x, which the log did not announce", uint16(id))
		}
		digest := make([]byte, size)
		if _, err := io.ReadFull(r, digest); err != nil {
			return event, cut(err)
		}
		if bank, known := bankOf(id); known {
			event.Digests[bank] = digest
		}
	}
	var size uint32
	if err := binary.Read(r, binary.LittleEndian, &size); err != nil {
		return event, cut(err)
	}
	if size > largestEvent {
		return event, errTooLong
	}
	event.Data = make([]byte, size)
	_, err := io.ReadFull(r, event.Data)
	return event, cut(err)
}

// cut makes the end of the log inside an event what it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Replay computes what the events make of the PCRs of a bank: each starts at
// zero and becomes the hash of itself and the event's digest.
func Replay(bank Bank, events []Event) (map[int][]byte, error) {
	hash, err := banks[bank].Hash()
	if err != nil {
		return nil, fmt.Errorf("replay bank %q: %w", bank, err)
	}
	values := map[int][]byte{}
	for _, event := range events {
		if event.Type == EventNoAction || event.Digests[bank] == nil {
			continue
		}
		values[event.PCR] = extend(hash, values[event.PCR], event.Digests[bank])
	}
	return values, nil
}

func extend(hash crypto.Hash, old, digest []byte) []byte {
	if old == nil {
		old = make([]byte, hash.Size())
	}
	h := hash.New()
	h.Write(old)
	h.Write(digest)
	return h.Sum(nil)
}
