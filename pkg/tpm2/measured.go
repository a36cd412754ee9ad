package tpm2

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// MeasureLog is where systemd writes down what it measures itself, as a
// sequence of JSON texts (RFC 7464).
const MeasureLog = "/run/log/systemd/tpm2-measure.log"

// Measured is one measurement of systemd's.
type Measured struct {
	PCR     int
	Digests map[Bank][]byte
	// What was measured; "cryptsetup:root:UUID" for the key of a volume.
	What string
}

// largestMeasureLog bounds what is read, in bytes.
const largestMeasureLog = 16 << 20

// ParseMeasureLog reads systemd's log (tpm2_userspace_log in systemd's
// tpm2-util.c). A record that was cut off at the end is left out.
func ParseMeasureLog(r io.Reader) ([]Measured, error) {
	text, err := io.ReadAll(io.LimitReader(r, largestMeasureLog))
	if err != nil {
		return nil, err
	}
	var all []Measured
	records := bytes.Split(text, []byte{0x1e}) // RS begins each record
	for i, record := range records {
		if len(bytes.TrimSpace(record)) == 0 {
			continue
		}
		m, err := parseMeasured(record)
		if err != nil {
			if i == len(records)-1 && !bytes.HasSuffix(record, []byte("\n")) {
				break
			}
			return all, fmt.Errorf("systemd's log of measurements, record %d: %w", i, err)
		}
		all = append(all, m)
	}
	return all, nil
}

func parseMeasured(record []byte) (Measured, error) {
	var m struct {
		PCR     int `json:"pcr"`
		Digests []struct {
			Hash   Bank   `json:"hashAlg"`
			Digest string `json:"digest"`
		} `json:"digests"`
		Content struct {
			String string `json:"string"`
		} `json:"content"`
	}
	if err := json.Unmarshal(record, &m); err != nil {
		return Measured{}, err
	}
	result := Measured{PCR: m.PCR, What: m.Content.String, Digests: map[Bank][]byte{}}
	for _, d := range m.Digests {
		digest, err := hex.DecodeString(d.Digest)
		if err != nil {
			return Measured{}, err
		}
		result.Digests[d.Hash] = digest
	}
	return result, nil
}

// VolumeKey tells what is known of the measuring of a volume's key.
type VolumeKey string

// What can be known.
const (
	// KeyMeasured is a key that was measured, by a log that PCR 15 confirms.
	KeyMeasured VolumeKey = "measured"
	// KeyUnmeasured is a key that was not measured: PCR 15 is zero, or its
	// log has no such entry.
	KeyUnmeasured VolumeKey = "not-measured"
	// KeyUnconfirmed is a log that does not explain the PCR, or none.
	KeyUnconfirmed VolumeKey = "unconfirmed"
)

// JudgeVolumeKey tells whether the key of a mapped volume was measured in this
// boot. The log alone proves nothing; it counts where replaying it gives the
// value that PCR 15 has.
func JudgeVolumeKey(pcr []byte, log []Measured, mapper string) VolumeKey {
	if len(bytes.Trim(pcr, "\x00")) == 0 {
		return KeyUnmeasured
	}
	events := make([]Event, 0, len(log))
	found := false
	for _, m := range log {
		if m.PCR != PCRVolumeKey {
			continue
		}
		events = append(events, Event{PCR: m.PCR, Type: EventType(^uint32(0)), Digests: m.Digests})
		found = found || strings.HasPrefix(m.What, "cryptsetup:"+mapper+":")
	}
	values, err := Replay(SHA256, events)
	switch {
	case err != nil || !slices.Equal(values[PCRVolumeKey], pcr):
		return KeyUnconfirmed
	case found:
		return KeyMeasured
	default:
		return KeyUnmeasured
	}
}
