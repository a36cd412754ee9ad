package secureboot_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/run"
	"nixos-go/pkg/secureboot"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/fakeesp"
	"nixos-go/pkg/testx/luksfile"
)

func certificate(t *testing.T, k fakeesp.Key) secureboot.Certificate {
	t.Helper()
	c, err := secureboot.LoadCertificate(k.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func names(list []secureboot.Certificate) []string {
	all := make([]string, 0, len(list))
	for _, c := range list {
		all = append(all, c.Name)
	}
	return all
}

func TestReadState(t *testing.T) {
	keys := fakeesp.TestKeys()
	root := t.TempDir()
	if _, err := secureboot.ReadState(run.Below(root)); !errors.Is(err, secureboot.ErrNoUEFI) {
		t.Errorf("ReadState without efivarfs = %v, want ErrNoUEFI", err)
	}
	firmware := fakeesp.Firmware{
		SecureBoot: true, PK: []fakeesp.Key{keys.PK}, KEK: []fakeesp.Key{keys.KEK, keys.Microsoft},
		DB:     []fakeesp.Key{keys.DB, keys.Microsoft},
		Loader: "systemd-boot 258.2", Stub: "lanzastub 1.0.0", Entry: "nixos-generation-42-abc.efi",
	}
	if err := firmware.Write(root); err != nil {
		t.Fatal(err)
	}
	s, err := secureboot.ReadState(run.Below(root))
	if err != nil {
		t.Fatal(err)
	}
	if s.SetupMode || !s.SecureBoot || !s.Lanzaboote() || s.Loader != "systemd-boot 258.2" || s.Entry != "nixos-generation-42-abc.efi" {
		t.Errorf("ReadState = %+v, want what the firmware says", s)
	}
	want := [][]string{{"Platform Key"}, {"Key Exchange Key", "Microsoft Corporation UEFI CA 2011"}, {"Database Key", "Microsoft Corporation UEFI CA 2011"}}
	if diff := cmp.Diff(want, [][]string{names(s.PK), names(s.KEK), names(s.DB)}); diff != "" {
		t.Errorf("certificates (-want +got):\n%s", diff)
	}
	if s.DB[0].Microsoft || !s.DB[1].Microsoft {
		t.Errorf("db = %+v, want the second to be Microsoft's", s.DB)
	}

	owner := t.TempDir()
	if err := keys.Save(filepath.Join(owner, "sbctl")); err != nil {
		t.Fatal(err)
	}
	own, err := secureboot.ReadKeys(run.Below(owner), "/sbctl")
	if err != nil {
		t.Fatal(err)
	}
	if !own.Enrolled(s) {
		t.Error("Enrolled = false, want true")
	}
	firmware.PK = []fakeesp.Key{keys.Stranger}
	if err := firmware.Write(root); err != nil {
		t.Fatal(err)
	}
	if s, err = secureboot.ReadState(run.Below(root)); err != nil || own.Enrolled(s) {
		t.Errorf("Enrolled with a stranger's platform key = true, %v, want false", err)
	}
	if err := os.Remove(filepath.Join(owner, "sbctl/keys/db/db.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := secureboot.ReadKeys(run.Below(owner), "/sbctl"); !errors.Is(err, secureboot.ErrNoKeys) {
		t.Errorf("ReadKeys without a private key = %v, want ErrNoKeys", err)
	}
}

// The variable files of OVMF: what a real firmware keeps.
func TestReadOVMF(t *testing.T) {
	for _, test := range []struct {
		file string
		pk   int
		want string // in db
	}{
		{file: "OVMF_VARS_4M.fd"},
		{file: "OVMF_VARS_4M.ms.fd", pk: 1, want: "Microsoft Corporation UEFI CA 2011"},
		{file: "OVMF_VARS_4M.snakeoil.fd", pk: 1, want: "snakeoil"},
	} {
		t.Run(test.file, func(t *testing.T) {
			store, err := os.ReadFile("/usr/share/OVMF/" + test.file)
			if err != nil {
				testx.Unavailable(t, "the package ovmf is not installed")
			}
			root := t.TempDir()
			variables := fakeesp.ReadOVMF(store)
			if err := (fakeesp.Firmware{SetupMode: test.pk == 0}).Write(root); err != nil {
				t.Fatal(err)
			}
			for name, content := range variables {
				if err := fakeesp.WriteVariable(root, name, content); err != nil {
					t.Fatal(err)
				}
			}
			s, err := secureboot.ReadState(run.Below(root))
			if err != nil {
				t.Fatal(err)
			}
			if len(s.PK) != test.pk || s.SetupMode != (test.pk == 0) {
				t.Errorf("ReadState: %d platform keys, setup mode %t, want %d", len(s.PK), s.SetupMode, test.pk)
			}
			found := slices.ContainsFunc(s.DB, func(c secureboot.Certificate) bool {
				return strings.Contains(strings.ToLower(c.Name), strings.ToLower(test.want))
			})
			if found != (test.want != "") && test.want != "" {
				t.Errorf("db = %q, want one with %q", names(s.DB), test.want)
			}
		})
	}
}

func TestBrokenVariables(t *testing.T) {
	for name, content := range map[string][]byte{
		"SetupMode-" + fakeesp.Global: {1, 2}, "PK-" + fakeesp.Global: {1, 2, 3}, "db-" + fakeesp.Security: bytes.Repeat([]byte{0xff}, 40),
	} {
		root := t.TempDir()
		if err := (fakeesp.Firmware{}).Write(root); err != nil {
			t.Fatal(err)
		}
		if err := fakeesp.WriteVariable(root, name, content); err != nil {
			t.Fatal(err)
		}
		short, _, _ := strings.Cut(name, "-")
		if _, err := secureboot.ReadState(run.Below(root)); err == nil || !strings.Contains(err.Error(), short) {
			t.Errorf("ReadState with a broken %s = %v, want an error that names it", short, err)
		}
	}
}

func TestSignedBy(t *testing.T) {
	keys := fakeesp.TestKeys()
	own, microsoft := certificate(t, keys.DB), certificate(t, keys.Microsoft)
	image := fakeesp.Image(fakeesp.Section{Name: ".text", Content: []byte("program")})
	signed := keys.DB.Sign(t, image)
	tampered := bytes.Replace(signed, []byte("program"), []byte("pr0gram"), 1)
	both := keys.Microsoft.Sign(t, signed)
	for _, test := range []struct {
		name    string
		image   []byte
		trusted []secureboot.Certificate
		want    string
		err     error
	}{
		{"signed", signed, []secureboot.Certificate{own}, "Database Key", nil},
		{"one of two", signed, []secureboot.Certificate{microsoft, own}, "Database Key", nil},
		{"unsigned", image, []secureboot.Certificate{own}, "", secureboot.ErrUnsigned},
		{"by somebody else", signed, []secureboot.Certificate{microsoft}, "", secureboot.ErrForeign},
		{"changed after signing", tampered, []secureboot.Certificate{own}, "", secureboot.ErrForeign},
		{"two signatures, the second counts", both, []secureboot.Certificate{microsoft}, "Microsoft Corporation UEFI CA 2011", nil},
		{"nobody counts", signed, nil, "", secureboot.ErrForeign},
	} {
		i, err := secureboot.ParseImage(test.image)
		if err != nil {
			t.Fatalf("%s: ParseImage = %v", test.name, err)
		}
		got, err := i.SignedBy(test.trusted)
		if got.Name != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: SignedBy = %q, %v, want %q, %v", test.name, got.Name, err, test.want, test.err)
		}
	}
	if _, err := secureboot.ParseImage([]byte("MZ and nothing else")); !errors.Is(err, secureboot.ErrNotPE) {
		t.Errorf("ParseImage of no program = %v, want ErrNotPE", err)
	}
}

// sbsign and sbverify are the oracles: what they sign verifies here, what is
// signed here verifies there.
func TestAgainstSbsign(t *testing.T) {
	luksfile.Need(t, "sbsign", "sbverify")
	keys := fakeesp.TestKeys()
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key, pem := put("db.key", keys.DB.PrivatePEM()), put("db.pem", keys.DB.PEM())
	loader := fakeesp.Image(fakeesp.Section{Name: ".text", Content: []byte("x")}, fakeesp.Section{Name: ".sbat", Content: []byte("sbat,1\n")})
	if systemdBoot, err := os.ReadFile("/usr/lib/systemd/boot/efi/systemd-bootx64.efi"); err == nil {
		loader = systemdBoot
	}
	in, out := put("loader.efi", loader), filepath.Join(dir, "signed.efi")
	if text, err := exec.Command("sbsign", "--key", key, "--cert", pem, "--output", out, in).CombinedOutput(); err != nil {
		t.Fatalf("sbsign: %v\n%s", err, text)
	}
	image, err := secureboot.OpenImage(out)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err := image.SignedBy([]secureboot.Certificate{certificate(t, keys.DB)}); err != nil {
		t.Errorf("SignedBy of what sbsign signed = %q, %v", signer.Name, err)
	}
	ours := put("ours.efi", keys.DB.Sign(t, loader))
	if text, err := exec.Command("sbverify", "--cert", pem, ours).CombinedOutput(); err != nil {
		t.Errorf("sbverify of what is signed here: %v\n%s", err, text)
	}
}

func TestInspect(t *testing.T) {
	keys := fakeesp.TestKeys()
	own, microsoft := certificate(t, keys.DB), certificate(t, keys.Microsoft)
	for _, test := range []struct {
		name   string
		change func(*fakeesp.ESP)
		want   []string // parts of the problems, in order
	}{
		{name: "sound", change: func(*fakeesp.ESP) {}},
		{name: "Windows and a stranger's tool beside it", change: func(e *fakeesp.ESP) {
			e.Write("EFI/Microsoft/Boot/bootmgfw.efi", keys.Microsoft.Sign(t, fakeesp.Image(fakeesp.Section{Name: ".text", Content: []byte("w")})))
			e.Write("EFI/tools/memtest.efi", fakeesp.Image(fakeesp.Section{Name: ".text", Content: []byte("m")}))
		}},
		{name: "unsigned loader", change: func(e *fakeesp.ESP) {
			e.Write("EFI/systemd/systemd-bootx64.efi", fakeesp.Image(fakeesp.Section{Name: ".text", Content: []byte("x")}))
		}, want: []string{"EFI/systemd/systemd-bootx64.efi: not signed"}},
		{name: "a stranger's stub", change: func(e *fakeesp.ESP) {
			kernel := []byte("k")
			e.Write("EFI/nixos/k.efi", kernel)
			e.Write(fakeesp.StubName(9), keys.Stranger.Sign(t, fakeesp.Stub("EFI/nixos/k.efi", "EFI/nixos/k.efi", kernel, kernel)))
		}, want: []string{"EFI/Linux/nixos-generation-9-abcdefgh.efi: signed, but by no certificate"}},
		{name: "another kernel", change: func(e *fakeesp.ESP) {
			e.Write("EFI/nixos/kernel-6.12-abcd.efi", []byte("evil"))
		}, want: []string{"EFI/nixos/kernel-6.12-abcd.efi: not the file that the signed stub vouches for"}},
		{name: "no initrd", change: func(e *fakeesp.ESP) {
			if err := os.Remove(filepath.Join(e.Dir, "EFI/nixos/initrd-6.12-42.efi")); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"EFI/nixos/initrd-6.12-42.efi: missing"}},
		{
			name: "no program", change: func(e *fakeesp.ESP) { e.Write(fakeesp.StubName(42), []byte("garbage")) },
			want: []string{"EFI/Linux/nixos-generation-42-abcdefgh.efi:"},
		},
		{name: "no loader", change: func(e *fakeesp.ESP) {
			for _, folder := range []string{"EFI/systemd", "EFI/BOOT"} {
				if err := os.RemoveAll(filepath.Join(e.Dir, folder)); err != nil {
					t.Fatal(err)
				}
			}
		}, want: []string{"systemd-boot is not on the EFI partition"}},
		{name: "no stub", change: func(e *fakeesp.ESP) {
			if err := os.RemoveAll(filepath.Join(e.Dir, "EFI/Linux")); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"no generation of lanzaboote's"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			esp := fakeesp.New(t, t.TempDir())
			esp.Lanzaboote(keys.DB, 41, 42)
			test.change(esp)
			report, err := secureboot.Inspect(esp.Dir, own, []secureboot.Certificate{own, microsoft})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Problems) != len(test.want) || report.Sound() != (len(test.want) == 0) {
				t.Fatalf("Inspect: problems %q, want %q", report.Problems, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(report.Problems[i], want) {
					t.Errorf("Inspect: problem %q, want %q in it", report.Problems[i], want)
				}
			}
		})
	}
	esp := fakeesp.New(t, t.TempDir())
	esp.Lanzaboote(keys.DB, 42, 41)
	esp.Write("EFI/Microsoft/Boot/bootmgfw.efi", keys.Microsoft.Sign(t, fakeesp.Image(fakeesp.Section{Name: ".text", Content: []byte("w")})))
	report, err := secureboot.Inspect(esp.Dir, own, []secureboot.Certificate{own, microsoft})
	if err != nil {
		t.Fatal(err)
	}
	want := secureboot.Report{
		Files: []secureboot.File{
			{Path: "EFI/BOOT/BOOTX64.EFI", Role: secureboot.Loader, Signer: "Database Key"},
			{Path: "EFI/Linux/nixos-generation-41-abcdefgh.efi", Role: secureboot.Generation, Signer: "Database Key"},
			{Path: "EFI/Linux/nixos-generation-42-abcdefgh.efi", Role: secureboot.Generation, Signer: "Database Key"},
			{Path: "EFI/Microsoft/Boot/bootmgfw.efi", Role: secureboot.Other, Signer: "Microsoft Corporation UEFI CA 2011"},
			{Path: "EFI/nixos/initrd-6.12-41.efi", Role: secureboot.Payload, Vouched: true},
			{Path: "EFI/nixos/initrd-6.12-42.efi", Role: secureboot.Payload, Vouched: true},
			{Path: "EFI/nixos/kernel-6.12-abcd.efi", Role: secureboot.Payload, Vouched: true},
			{Path: "EFI/systemd/systemd-bootx64.efi", Role: secureboot.Loader, Signer: "Database Key"},
		},
		Generations: []int{42, 41}, Problems: []string{},
	}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Errorf("Inspect (-want +got):\n%s", diff)
	}
	if _, err := secureboot.Inspect(t.TempDir(), own, nil); err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("Inspect of an empty folder = %v, want a question whether the ESP is mounted", err)
	}
}

func TestStubOldNames(t *testing.T) {
	sum := sha256.Sum256([]byte("x"))
	image, err := secureboot.ParseImage(fakeesp.Image(
		fakeesp.Section{Name: ".kernelp", Content: []byte(`\EFI\nixos\k.efi`)}, fakeesp.Section{Name: ".kernelh", Content: sum[:]},
		fakeesp.Section{Name: ".initrdp", Content: []byte(`\EFI\nixos\i.efi`)}, fakeesp.Section{Name: ".initrdh", Content: sum[:]}))
	if err != nil {
		t.Fatal(err)
	}
	stub, ok, err := image.Stub()
	if !ok || err != nil || stub.Kernel != "EFI/nixos/k.efi" || stub.Initrd != "EFI/nixos/i.efi" || stub.KernelHash != sum {
		t.Errorf("Stub = %+v, %t, %v, want the paths and hashes", stub, ok, err)
	}
	evil, err := secureboot.ParseImage(fakeesp.Image(
		fakeesp.Section{Name: ".linux", Content: []byte(`\..\..\etc\shadow`)}, fakeesp.Section{Name: ".linuxh", Content: sum[:]},
		fakeesp.Section{Name: ".initrd", Content: []byte(`\i`)}, fakeesp.Section{Name: ".initrdh", Content: sum[:]}))
	if err != nil {
		t.Fatal(err)
	}
	if stub, ok, err := evil.Stub(); !ok || err == nil {
		t.Errorf("Stub that leads out of the ESP = %+v, %t, %v, want an error", stub, ok, err)
	}
}

func TestStandardAndStale(t *testing.T) {
	keys := fakeesp.TestKeys()
	esp := fakeesp.New(t, t.TempDir())
	esp.Standard(41, 42)
	report, err := secureboot.InspectStandard(esp.Dir)
	if err != nil || !report.Sound() {
		t.Fatalf("InspectStandard = %+v, %v, want sound", report, err)
	}
	if diff := cmp.Diff([]int{42, 41}, report.Generations); diff != "" {
		t.Errorf("Generations (-want +got):\n%s", diff)
	}

	// Secure Boot's files come beside them: what is stale either way.
	esp.Lanzaboote(keys.DB, 42)
	stale, err := secureboot.Stale(esp.Dir, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"loader/entries/nixos-generation-41.conf", "loader/entries/nixos-generation-42.conf",
		"EFI/nixos/abc-linux-6.12-bzImage.efi", "EFI/nixos/41-initrd-linux-6.12-initrd.efi", "EFI/nixos/42-initrd-linux-6.12-initrd.efi",
	}
	if diff := cmp.Diff(want, stale); diff != "" {
		t.Errorf("Stale under Secure Boot (-want +got):\n%s", diff)
	}
	stale, err = secureboot.Stale(esp.Dir, false)
	if err != nil {
		t.Fatal(err)
	}
	want = []string{"EFI/Linux/nixos-generation-42-abcdefgh.efi", "EFI/nixos/kernel-6.12-abcd.efi", "EFI/nixos/initrd-6.12-42.efi"}
	if diff := cmp.Diff(want, stale); diff != "" {
		t.Errorf("Stale without Secure Boot (-want +got):\n%s", diff)
	}

	// A file that both need is never stale.
	esp.Write("loader/entries/nixos-generation-43.conf", []byte("linux /EFI/nixos/kernel-6.12-abcd.efi\ninitrd /EFI/nixos/gone.efi\n"))
	for _, secure := range []bool{true, false} {
		stale, err := secureboot.Stale(esp.Dir, secure)
		if err != nil || slices.Contains(stale, "EFI/nixos/kernel-6.12-abcd.efi") || slices.Contains(stale, "EFI/nixos/gone.efi") {
			t.Errorf("Stale(%t) = %q, %v, want neither the shared kernel nor a missing file", secure, stale, err)
		}
	}
	report, err = secureboot.InspectStandard(esp.Dir)
	if err != nil || report.Sound() || !strings.Contains(report.Problems[0], "gone.efi") {
		t.Errorf("InspectStandard with a missing initrd = %q, %v, want it named", report.Problems, err)
	}
}

func TestSnapshotAndRestore(t *testing.T) {
	keys := fakeesp.TestKeys()
	esp := fakeesp.New(t, t.TempDir())
	esp.Standard(41, 42)
	esp.Write("EFI/Microsoft/Boot/bootmgfw.efi", []byte("windows"))
	esp.Write("System Volume Information", []byte("not ours"))
	folder := filepath.Join(t.TempDir(), "copy")
	manifest, err := secureboot.Snapshot(esp.Dir, folder)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := secureboot.SameFiles(esp.Dir, manifest); !same || err != nil {
		t.Errorf("SameFiles right after = %t, %v, want true", same, err)
	}
	before := tree(t, esp.Dir)

	esp.Lanzaboote(keys.DB, 43)
	if err := os.RemoveAll(filepath.Join(esp.Dir, "loader/entries")); err != nil {
		t.Fatal(err)
	}
	esp.Write("EFI/nixos/half.efi.new", []byte("of a copy that was cut off"))
	if same, err := secureboot.SameFiles(esp.Dir, manifest); same || err != nil {
		t.Errorf("SameFiles after a change = %t, %v, want false", same, err)
	}
	if err := secureboot.Restore(esp.Dir, folder, manifest); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, esp.Dir)); diff != "" {
		t.Errorf("after Restore (-want +got):\n%s", diff)
	}

	// A copy that was damaged meanwhile is noticed, not installed.
	esp.Write("EFI/BOOT/BOOTX64.EFI", []byte("changed"))
	if err := os.WriteFile(filepath.Join(folder, "EFI/BOOT/BOOTX64.EFI"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := secureboot.Restore(esp.Dir, folder, manifest); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("Restore from a damaged copy = %v, want an error", err)
	}
	if _, err := secureboot.Snapshot(esp.Dir, folder); !errors.Is(err, os.ErrExist) {
		t.Errorf("Snapshot over an older one = %v, want ErrExist", err)
	}
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		files[strings.TrimPrefix(name, dir)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func FuzzParseSignatureLists(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}, make([]byte, 20)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		certificates, err := secureboot.ParseSignatureLists(data)
		if err != nil && certificates != nil {
			t.Errorf("ParseSignatureLists = %d certificates and %v", len(certificates), err)
		}
	})
}

func FuzzImage(f *testing.F) {
	keys := fakeesp.TestKeys()
	own, err := secureboot.LoadCertificate(keys.DB.PEM())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(keys.DB.Sign(f, fakeesp.Image(fakeesp.Section{Name: ".linuxh", Content: make([]byte, 32)})))
	f.Add(fakeesp.Image())
	f.Fuzz(func(t *testing.T, content []byte) {
		image, err := secureboot.ParseImage(content)
		if err != nil {
			return
		}
		_, _ = image.SignedBy([]secureboot.Certificate{own})
		if stub, ok, err := image.Stub(); ok && err == nil && strings.Contains(stub.Kernel, "..") {
			t.Errorf("Stub leads to %q", stub.Kernel)
		}
	})
}
