// Package tpm2 reads a TPM 2.0 and what systemd-cryptenroll has bound to it:
// PCR values, the firmware's event log, systemd's own log of measurements, and
// the policies in LUKS2 tokens. It answers whether a token would unlock now,
// and why not.
//
// It never changes the TPM. Enrolling is systemd-cryptenroll's work; the
// package builds its command lines, whose secrets travel in files in memory.
package tpm2

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"nixos-go/pkg/run"
)

// Node is the device through which several programs can use the TPM at once.
const Node = "/dev/tpmrm0"

// What can be wrong with a machine's TPM.
var (
	ErrNoTPM  = errors.New("this machine has no TPM, or it is switched off in the firmware's setup")
	ErrOldTPM = errors.New("this machine's TPM is of version 1.2; version 2.0 is needed")
)

// Present checks that the kernel has found a TPM 2.0.
func Present(files run.Files) error {
	const class = "/sys/class/tpm/tpm0"
	text, err := files.ReadFile(path.Join(class, "tpm_version_major"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNoTPM
	case err != nil:
		return err
	case strings.TrimSpace(string(text)) != "2":
		return ErrOldTPM
	}
	return nil
}

// Device is an open TPM.
type Device struct {
	transport.TPMCloser
}

// Open opens the machine's TPM.
func Open(files run.Files) (*Device, error) {
	if err := Present(files); err != nil {
		return nil, err
	}
	t, err := linuxtpm.Open(files.Path(Node))
	if err != nil {
		return nil, fmt.Errorf("open the TPM: %w", err)
	}
	return &Device{t}, nil
}

// Bank is a set of PCRs, named by its hash: sha1, sha256, sha384, sha512.
type Bank string

// SHA256 is the bank that every TPM 2.0 has and that policies use.
const SHA256 Bank = "sha256"

// banks are the TPM's numbers of the hashes, TCG Algorithm Registry.
var banks = map[Bank]tpm2.TPMAlgID{
	"sha1": tpm2.TPMAlgSHA1, SHA256: tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384, "sha512": tpm2.TPMAlgSHA512,
}

func bankOf(alg tpm2.TPMAlgID) (Bank, bool) {
	for name, id := range banks {
		if id == alg {
			return name, true
		}
	}
	return "", false
}

// Info is what a TPM tells about itself.
type Info struct {
	// Manufacturer is its four letters: AMD, INTC, IFX, STM …
	Manufacturer string `json:"manufacturer"`
	// Firmware is its firmware version, two numbers.
	Firmware string `json:"firmware"`
	// Banks are the PCR banks that are switched on.
	Banks []Bank `json:"banks"`
}

// Describe asks the TPM about itself.
func (d *Device) Describe() (Info, error) {
	var info Info
	manufacturer, err := d.property(tpm2.TPMPTManufacturer)
	if err != nil {
		return info, err
	}
	letters := []byte{byte(manufacturer >> 24), byte(manufacturer >> 16), byte(manufacturer >> 8), byte(manufacturer)}
	info.Manufacturer = strings.TrimRight(string(letters), "\x00 ")
	firmware, err := d.property(tpm2.TPMPTFirmwareVersion1)
	if err != nil {
		return info, err
	}
	info.Firmware = fmt.Sprintf("%d.%d", firmware>>16, firmware&0xffff)
	info.Banks, err = d.banks()
	return info, err
}

func (d *Device) property(which tpm2.TPMPT) (uint32, error) {
	answer, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapTPMProperties, Property: uint32(which), PropertyCount: 1,
	}.Execute(d)
	if err != nil {
		return 0, fmt.Errorf("ask the TPM for property %#x: %w", uint32(which), err)
	}
	properties, err := answer.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, fmt.Errorf("the TPM's property %#x: %w", uint32(which), err)
	}
	for _, p := range properties.TPMProperty {
		if p.Property == which {
			return p.Value, nil
		}
	}
	return 0, fmt.Errorf("the TPM has no property %#x", uint32(which))
}

func (d *Device) banks() ([]Bank, error) {
	answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(d)
	if err != nil {
		return nil, fmt.Errorf("ask the TPM for its PCR banks: %w", err)
	}
	selections, err := answer.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, fmt.Errorf("the TPM's PCR banks: %w", err)
	}
	var active []Bank
	for _, s := range selections.PCRSelections {
		name, known := bankOf(s.Hash)
		if known && strings.Trim(string(s.PCRSelect), "\x00") != "" {
			active = append(active, name)
		}
	}
	return active, nil
}

// perRead is how many PCRs a TPM gives in one answer.
const perRead = 8

// ReadPCRs reads PCRs of a bank.
func (d *Device) ReadPCRs(bank Bank, pcrs ...int) (map[int][]byte, error) {
	alg, known := banks[bank]
	if !known {
		return nil, fmt.Errorf("unknown PCR bank %q", bank)
	}
	values := map[int][]byte{}
	for len(pcrs) > 0 {
		some := pcrs[:min(perRead, len(pcrs))]
		pcrs = pcrs[len(some):]
		if err := d.readSome(alg, some, values); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// readSome reads up to eight PCRs. The TPM may answer fewer than it was asked
// for, and says which.
func (d *Device) readSome(alg tpm2.TPMAlgID, pcrs []int, values map[int][]byte) error {
	answer, err := tpm2.PCRRead{PCRSelectionIn: selection(alg, pcrs)}.Execute(d)
	if err != nil {
		return fmt.Errorf("read PCRs %v: %w", pcrs, err)
	}
	digests := answer.PCRValues.Digests
	for _, s := range answer.PCRSelectionOut.PCRSelections {
		for _, pcr := range selected(s.PCRSelect) {
			if len(digests) == 0 {
				return fmt.Errorf("read PCRs %v: fewer values than selected", pcrs)
			}
			values[pcr] = digests[0].Buffer
			digests = digests[1:]
		}
	}
	for _, pcr := range pcrs {
		if values[pcr] == nil {
			return fmt.Errorf("the TPM has no PCR %d in this bank", pcr)
		}
	}
	return nil
}

// pcrCount is how many PCRs a PC's TPM has.
const pcrCount = 24

// selection is a list of PCRs as the TPM takes it.
func selection(alg tpm2.TPMAlgID, pcrs []int) tpm2.TPMLPCRSelection {
	bits := make([]byte, pcrCount/8)
	for _, pcr := range pcrs {
		bits[pcr/8] |= 1 << (pcr % 8)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: alg, PCRSelect: bits}}}
}

func selected(bits []byte) []int {
	var pcrs []int
	for pcr := range len(bits) * 8 {
		if bits[pcr/8]&(1<<(pcr%8)) != 0 {
			pcrs = append(pcrs, pcr)
		}
	}
	return pcrs
}
