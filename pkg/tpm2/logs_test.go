package tpm2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/testx/swtpm"
	"nixos-go/pkg/tpm2"
)

// logged is an event for a log of the test's own making.
type logged struct {
	pcr   uint32
	kind  tpm2.EventType
	event []byte
	data  []byte
}

// eventLog writes a log of the crypto-agile form with SHA-1 and SHA-256.
func eventLog(events ...logged) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	spec := []byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02")
	spec = append(spec, 2, 0, 0, 0, 0x04, 0x00, 20, 0, 0x0b, 0x00, 32, 0, 0)
	put(uint32(0), uint32(3), [20]byte{}, uint32(len(spec)), spec)
	for _, e := range events {
		put(e.pcr, uint32(e.kind), uint32(2), uint16(0x04), make([]byte, 20), uint16(0x0b), digest(string(e.event)), uint32(len(e.data)), e.data)
	}
	return b.Bytes()
}

// node is a node of a device path.
func node(kind, subkind byte, body ...byte) []byte {
	return append([]byte{kind, subkind, byte(len(body) + 4), 0}, body...)
}

// imageLoad is a UEFI_IMAGE_LOAD_EVENT with a device path.
func imageLoad(nodes ...[]byte) []byte {
	path := append(bytes.Join(nodes, nil), 0x7f, 0xff, 4, 0)
	b := make([]byte, 32+len(path))
	binary.LittleEndian.PutUint64(b[24:], uint64(len(path)))
	copy(b[32:], path)
	return b
}

func pciRoot(number byte) []byte          { return node(2, 1, 0xd0, 0x41, 0x03, 0x0a, number, 0, 0, 0) }
func pciHop(device, function byte) []byte { return node(1, 1, function, device) }

var theLog = []logged{
	{0, tpm2.EventNoAction, nil, []byte("StartupLocality\x00\x03")},
	{7, 0x80000001, []byte("SecureBoot"), []byte("SecureBoot")},
	{7, 0x80000001, []byte("PK"), []byte("PK")},
	{2, tpm2.EventBootDriver, []byte("gop"), imageLoad(pciRoot(0), pciHop(1, 1), pciHop(0, 0), node(4, 8, make([]byte, 20)...))},
	{2, tpm2.EventBootDriver, []byte("pxe"), imageLoad(pciRoot(0), pciHop(2, 0), node(4, 8, make([]byte, 20)...))},
	{2, tpm2.EventBootDriver, []byte("gop"), imageLoad(pciRoot(0), pciHop(1, 1), pciHop(0, 0), node(4, 8, make([]byte, 20)...))},
	{2, tpm2.EventRuntimeDriver, []byte("odd"), []byte("too short")},
	{4, 0x80000003, []byte("boot loader"), []byte("x")},
}

// The log replayed is what a TPM makes of the same events.
func TestReplayAgainstTPM(t *testing.T) {
	chip := swtpm.Start(t)
	for _, e := range theLog {
		if e.kind != tpm2.EventNoAction {
			chip.Extend(int(e.pcr), digest(string(e.event)))
		}
	}
	events, err := tpm2.ParseEventLog(bytes.NewReader(eventLog(theLog...)))
	if err != nil || len(events) != len(theLog) {
		t.Fatalf("ParseEventLog = %d events, %v, want %d", len(events), err, len(theLog))
	}
	got, err := tpm2.Replay(tpm2.SHA256, events)
	if err != nil {
		t.Fatal(err)
	}
	want, err := (&tpm2.Device{TPMCloser: chip}).ReadPCRs(tpm2.SHA256, 2, 4, 7)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Replay (-TPM +replayed):\n%s", diff)
	}
}

func TestOptionROMs(t *testing.T) {
	events, err := tpm2.ParseEventLog(bytes.NewReader(eventLog(theLog...)))
	if err != nil {
		t.Fatal(err)
	}
	want := []tpm2.OptionROM{
		{DevicePath: "PciRoot(0x0)/Pci(0x1,0x1)/Pci(0x0,0x0)/Offset(0x0,0x0)", Hops: []tpm2.Hop{{Device: 1, Function: 1}, {}}},
		{DevicePath: "PciRoot(0x0)/Pci(0x2,0x0)/Offset(0x0,0x0)", Hops: []tpm2.Hop{{Device: 2}}},
		{DevicePath: "unknown place"},
	}
	if diff := cmp.Diff(want, tpm2.OptionROMs(events)); diff != "" {
		t.Errorf("OptionROMs (-want +got):\n%s", diff)
	}
}

func TestParseEventLogCut(t *testing.T) {
	whole := eventLog(theLog...)
	cut := whole[:len(whole)-1]
	events, err := tpm2.ParseEventLog(bytes.NewReader(cut))
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(events) != len(theLog)-1 {
		t.Errorf("ParseEventLog of a log cut off = %d events, %v, want %d and ErrUnexpectedEOF", len(events), err, len(theLog)-1)
	}
	for name, padding := range map[string]byte{"zeros": 0, "ones": 0xff} {
		padded := append(bytes.Clone(whole), bytes.Repeat([]byte{padding}, 100)...)
		if events, err := tpm2.ParseEventLog(bytes.NewReader(padded)); err != nil || len(events) != len(theLog) {
			t.Errorf("ParseEventLog with %s behind = %d events, %v, want %d", name, len(events), err, len(theLog))
		}
	}
	old := bytes.Replace(whole, []byte("Spec ID Event03"), []byte("Spec ID Event00"), 1)
	if _, err := tpm2.ParseEventLog(bytes.NewReader(old)); !errors.Is(err, tpm2.ErrOldLog) {
		t.Errorf("ParseEventLog of the old form = %v, want ErrOldLog", err)
	}
}

// record is an entry of systemd's log, in the form that systemd 257 wrote it.
func record(pcr int, what string) string {
	return fmt.Sprintf("\x1e"+`{"pcr":%d,"digests":[{"hashAlg":"sha256","digest":"%x"}],"content_type":"systemd",`+
		`"content":{"string":%q,"bootId":"5f9e2d0c6d3b4c0e8f6b1f7a4f7d3f1e","timestamp":3204837,"eventType":"volume-key"}}`+"\n", pcr, digest(what), what)
}

func TestVolumeKey(t *testing.T) {
	log := record(11, "enter-initrd") + record(15, "cryptsetup:root:1234") + record(15, "machine-id:5678")
	measured, err := tpm2.ParseMeasureLog(strings.NewReader(log))
	if err != nil || len(measured) != 3 {
		t.Fatalf("ParseMeasureLog = %d records, %v, want 3", len(measured), err)
	}
	chip := swtpm.Start(t)
	pcr := func() []byte {
		values, err := (&tpm2.Device{TPMCloser: chip}).ReadPCRs(tpm2.SHA256, 15)
		if err != nil {
			t.Fatal(err)
		}
		return values[15]
	}
	if got := tpm2.JudgeVolumeKey(pcr(), measured, "root"); got != tpm2.KeyUnmeasured {
		t.Errorf("JudgeVolumeKey with PCR 15 at zero = %s, want %s", got, tpm2.KeyUnmeasured)
	}
	chip.Extend(15, digest("cryptsetup:root:1234"))
	if got := tpm2.JudgeVolumeKey(pcr(), measured, "root"); got != tpm2.KeyUnconfirmed {
		t.Errorf("JudgeVolumeKey with a log that says more than the PCR = %s, want %s", got, tpm2.KeyUnconfirmed)
	}
	chip.Extend(15, digest("machine-id:5678"))
	for mapper, want := range map[string]tpm2.VolumeKey{"root": tpm2.KeyMeasured, "data": tpm2.KeyUnmeasured, "roo": tpm2.KeyUnmeasured} {
		if got := tpm2.JudgeVolumeKey(pcr(), measured, mapper); got != want {
			t.Errorf("JudgeVolumeKey(%s) = %s, want %s", mapper, got, want)
		}
	}
	if got := tpm2.JudgeVolumeKey(pcr(), nil, "root"); got != tpm2.KeyUnconfirmed {
		t.Errorf("JudgeVolumeKey without a log = %s, want %s", got, tpm2.KeyUnconfirmed)
	}
}

func TestParseMeasureLogCut(t *testing.T) {
	log := record(15, "cryptsetup:root:1234")
	measured, err := tpm2.ParseMeasureLog(strings.NewReader(log + "\x1e{\"pcr\":15,\"dig"))
	if err != nil || len(measured) != 1 {
		t.Errorf("ParseMeasureLog cut off = %d records, %v, want 1", len(measured), err)
	}
	if _, err := tpm2.ParseMeasureLog(strings.NewReader("\x1e{}}\n" + log)); err == nil {
		t.Error("ParseMeasureLog of a broken record = nil, want an error")
	}
}

func FuzzParseEventLog(f *testing.F) {
	f.Add(eventLog(theLog...))
	f.Add(eventLog())
	f.Fuzz(func(t *testing.T, log []byte) {
		events, _ := tpm2.ParseEventLog(bytes.NewReader(log))
		if len(events)*12 > len(log) {
			t.Errorf("ParseEventLog found %d events in %d bytes", len(events), len(log))
		}
		_ = tpm2.OptionROMs(events)
		if _, err := tpm2.Replay(tpm2.SHA256, events); err != nil {
			t.Errorf("Replay = %v", err)
		}
	})
}

func FuzzParseMeasureLog(f *testing.F) {
	f.Add(record(15, "cryptsetup:root:1234"))
	f.Fuzz(func(t *testing.T, log string) {
		measured, err := tpm2.ParseMeasureLog(strings.NewReader(log))
		if err == nil && len(measured) > strings.Count(log, "\x1e")+1 {
			t.Errorf("ParseMeasureLog found %d records in %q", len(measured), log)
		}
	})
}
