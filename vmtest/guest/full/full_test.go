package full

import (
	"bytes"
	"context"
	"crypto/aes"
	"debug/pe"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/xts"

	"nixos-go/pkg/run"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/fakeesp"
	"nixos-go/vmtest/cpio"
)

// memory is a disk in memory.
type memory []byte

func (m memory) WriteAt(b []byte, at int64) (int, error) { return copy(m[at:], b), nil }

func TestGPT(t *testing.T) {
	disk := make(memory, 8*mib)
	parts := []partition{
		{label: "disk-main-esp", kind: typeESP, start: 1 * mib, bytes: 2 * mib},
		{label: "disk-main-luks", kind: typeLinux, start: 3 * mib, bytes: 4 * mib},
	}
	if err := writeGPT(disk, int64(len(disk)), parts); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	last := len(disk)/sectorSize - 1
	for _, self := range []int{1, last} {
		header := bytes.Clone(disk[self*sectorSize:][:sectorSize])
		if string(header[:8]) != "EFI PART" || le.Uint64(header[24:]) != uint64(self) {
			t.Fatalf("no header of its own at sector %d", self)
		}
		if other := le.Uint64(header[32:]); other != uint64(1+last-self) {
			t.Errorf("the header at %d says that the other is at %d", self, other)
		}
		sum := le.Uint32(header[16:])
		le.PutUint32(header[16:], 0)
		if got := crc32.ChecksumIEEE(header[:92]); got != sum {
			t.Errorf("checksum of the header at %d = %x, want %x", self, sum, got)
		}
		table := disk[le.Uint64(header[72:])*sectorSize:][:128*128]
		if got := crc32.ChecksumIEEE(table); got != le.Uint32(header[88:]) {
			t.Errorf("checksum of the table at %d is wrong", self)
		}
		for i, p := range parts {
			entry := table[i*128:]
			first, end := int64(le.Uint64(entry[32:])), int64(le.Uint64(entry[40:]))
			if first*sectorSize != p.start || (end+1)*sectorSize != p.start+p.bytes {
				t.Errorf("partition %d is at sectors %d to %d, want %d bytes from %d", i, first, end, p.bytes, p.start)
			}
			if !bytes.HasPrefix(entry[56:], wide(p.label)) {
				t.Errorf("partition %d has not the name %s", i, p.label)
			}
		}
	}
}

// What is written is what cryptsetup would decrypt with the key of its header.
func TestWriteLUKS(t *testing.T) {
	if err := needPrograms("cryptsetup"); err != nil {
		testx.Unavailable(t, err.Error())
	}
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	content := bytes.Repeat([]byte("0123456789abcdef"), 4096/16)
	f, err := os.Create(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4 * mib); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 3 * mib} { // a hole between the two
		if _, err := f.WriteAt(content, at); err != nil {
			t.Fatal(err)
		}
	}
	disk, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(mib + luksOffset + 4*mib); err != nil {
		t.Fatal(err)
	}
	if err := writeLUKS(t.Context(), plain, disk, mib, LUKSUUID, Passphrase); err != nil {
		t.Fatal(err)
	}
	part, keyFile := filepath.Join(dir, "part"), filepath.Join(dir, "key")
	all, err := os.ReadFile(disk.Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, all[mib:], 0o600); err != nil {
		t.Fatal(err)
	}
	dump := run.New("cryptsetup", "luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file", keyFile, "--key-file", "-", part)
	dump.Stdin = []byte(Passphrase)
	if _, err := (&run.Local{}).Run(t.Context(), dump); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	cipher, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 3 * mib} {
		got := make([]byte, len(content))
		for i := 0; i < len(got); i += sectorSize {
			cipher.Decrypt(got[i:i+sectorSize], all[mib+luksOffset+at+i:][:sectorSize], uint64((at+i)/sectorSize))
		}
		if !bytes.Equal(got, content) {
			t.Errorf("what was written at %d decrypts to something else", at)
		}
	}
	if hole := all[mib+luksOffset+2*mib:][:4096]; !bytes.Equal(hole, make([]byte, 4096)) {
		t.Error("a hole was filled")
	}
}

func needPrograms(programs ...string) error {
	for _, program := range programs {
		if _, err := (&run.Local{}).Run(context.Background(), run.New("sh", "-c", `command -v "$1" >/dev/null`, "sh", program)); err != nil {
			return err
		}
	}
	return nil
}

func TestAddSections(t *testing.T) {
	stub := fakeesp.Image(fakeesp.Section{Name: ".text", Content: []byte("program")})
	added := []Section{{".cmdline", []byte("root=x quiet")}, {".linux", bytes.Repeat([]byte("k"), 5000)}}
	image, err := AddSections(stub, added)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	end := uint32(0)
	for _, s := range f.Sections {
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		got[s.Name] = string(data[:s.VirtualSize])
		if s.VirtualAddress < end {
			t.Errorf("section %s at %#x overlaps the one before, which ends at %#x", s.Name, s.VirtualAddress, end)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	for _, s := range added {
		if got[s.Name] != string(s.Content) {
			t.Errorf("section %s holds %d bytes, want its %d", s.Name, len(got[s.Name]), len(s.Content))
		}
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || header.SizeOfImage < end {
		t.Errorf("the image's size does not cover its sections, which end at %#x", end)
	}
	if _, err := AddSections(image, make([]Section, 200)); err == nil {
		t.Error("AddSections of more than the headers hold = nil, want an error")
	}
	if _, err := AddSections(stub, []Section{{Name: ".far-too-long"}}); err == nil {
		t.Error("AddSections of a long name = nil, want an error")
	}
}

func TestRenameStub(t *testing.T) {
	stub := append(append([]byte("code"), wide("systemd-stub 257.1")...), "more"...)
	got, err := RenameStub("lanzastub")(stub)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(append([]byte("code"), wide("lanzastub    257.1")...), "more"...); !bytes.Equal(got, want) {
		t.Errorf("RenameStub = %q, want %q", got, want)
	}
	if _, err := RenameStub("lanzastub")([]byte("another program")); err == nil {
		t.Error("RenameStub of a program without the name = nil, want an error")
	}
	if _, err := RenameStub("a name longer than systemd's own")(stub); err == nil {
		t.Error("RenameStub to a long name = nil, want an error")
	}
}

// The closure of a program is its libraries and their loader, links included.
func TestPicker(t *testing.T) {
	const libc = "usr/lib/x86_64-linux-gnu/libc.so.6"
	if _, err := os.Stat("/" + libc); err != nil {
		t.Skip("no Debian on amd64 to take a program from: " + err.Error())
	}
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	p := &picker{root: "/", to: w, done: map[string]bool{}}
	if err := p.add("/bin/sh"); err != nil { // a link to dash
		t.Fatal(err)
	}
	for _, name := range []string{"usr/bin/sh", "usr/bin/dash", libc} {
		if !w.Has(name) {
			t.Errorf("%s is not in the archive", name)
		}
	}
	if !w.Has("usr/lib64/ld-linux-x86-64.so.2") {
		t.Error("the loader is not in the archive")
	}
	if err := p.add("usr/bin/no-such-program"); err == nil {
		t.Error("add of what is not there = nil, want an error")
	}
	if err := p.add("dev/null"); err == nil {
		t.Error("add of a device = nil, want an error")
	}
}

func TestWantedBy(t *testing.T) {
	for text, want := range map[string][]string{
		"[Unit]\nDescription=x\n[Install]\nWantedBy=multi-user.target timers.target\n": {"multi-user.target", "timers.target"},
		"[Unit]\nDescription=x\n": nil,
	} {
		if diff := cmp.Diff(want, wantedBy(text)); diff != "" {
			t.Errorf("wantedBy(%q) (-want +got):\n%s", text, diff)
		}
	}
}

// Whatever goes into the guest makes it another one.
func TestRecipe(t *testing.T) {
	names := map[string]bool{}
	for _, parts := range [][]string{nil, {"tree"}, {"tree", "plan"}, {"treeplan"}} {
		name, err := recipe(parts...)
		if err != nil {
			t.Fatal(err)
		}
		names[name] = true
	}
	if len(names) != 4 {
		t.Errorf("%d different names for four recipes", len(names))
	}
}

// What no run uses any more goes, of each kind, and what was cut off; what is in
// use stays.
func TestForget(t *testing.T) {
	dir := t.TempDir()
	long := time.Now().Add(-1000 * time.Hour)
	for _, name := range []string{
		"tree-a", "tree-b", "disk-a.raw", "disk-b.raw", "live-b.raw", "initrd-a.cpio", "initrd-b.cpio", "lock",
		"disk-c.raw.part", ".installing-1", ".image-1",
	} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	inUse := []string{"tree-a", "disk-a.raw", "initrd-b.cpio"}
	paths := make([]string, len(inUse))
	for i, name := range inUse {
		paths[i] = filepath.Join(dir, name)
	}
	if err := forget(dir, paths...); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "[^.]*"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, path := range found {
		got = append(got, filepath.Base(path))
	}
	// live-b.raw: no other of its kind has come.
	if diff := cmp.Diff([]string{"disk-a.raw", "initrd-b.cpio", "live-b.raw", "lock", "tree-a"}, got); diff != "" {
		t.Errorf("after forget (-want +got):\n%s", diff)
	}
	if hidden, err := filepath.Glob(filepath.Join(dir, ".i*")); err != nil || len(hidden) > 0 {
		t.Errorf("what was cut off is still there: %v, %v", hidden, err)
	}
}

// The units that the tests boot with are those that a test under nix/ compares
// with what Nix makes of nix/lib/units.nix.
func TestUnits(t *testing.T) {
	units, err := Units("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{
		ResetUnit:                      "Before=sysroot.mount",
		"immutability-cleanup.service": "gc",
		"immutability-cleanup.timer":   "OnBootSec=",
		"immutability-notice.service":  "immutability-notice",
	} {
		if !strings.Contains(units[name], line) {
			t.Errorf("unit %s does not have %q: %q", name, line, units[name])
		}
	}
}
