package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/testx/tooltest"
	"nixos-go/pkg/ui"
)

func TestMain(m *testing.M) {
	tooltest.Main(m, tooltest.Tools{
		"nixos-install-go": func(env *clikit.Env) *cli.App { return newApp(env, recordClean) },
	}, "nix", "nixos-install", "lsblk", "umount", "swapoff", "cryptsetup", "systemctl", "systemd-cryptenroll", "ssh")
}

// recordClean stands for taking CLEAN, which needs a real btrfs: it writes down
// what it was asked for, and fails where $CLEAN_FAILS says so.
func recordClean(_ context.Context, plan *reset.PlanFile) ([]cleanTaken, error) {
	if text := os.Getenv("CLEAN_FAILS"); text != "" {
		return nil, errors.New(text)
	}
	results := []cleanTaken{}
	text := plan.Device + "\n"
	for _, volume := range plan.Volumes {
		results = append(results, cleanTaken{Volume: volume.Name, LeftOut: len(volume.Keep)})
		text += fmt.Sprintln(volume.Name, volume.Keep)
	}
	return results, os.WriteFile(filepath.Join(os.Getenv("ROOT"), "clean"), []byte(text), 0o644)
}

func TestScripts(t *testing.T) { tooltest.Scripts(t, "testdata") }

func TestParseDisks(t *testing.T) {
	const text = `{"blockdevices": [
	  {"path": "/dev/nvme0n1", "type": "disk", "size": 2000398934016, "model": "Samsung SSD 990 PRO 2TB ", "serial": "S6Z2", "tran": "nvme",
	   "ro": false, "rm": false, "fstype": null, "label": null, "partlabel": null, "mountpoints": [null],
	   "children": [
	     {"path": "/dev/nvme0n1p1", "type": "part", "size": 1073741824, "fstype": "vfat", "label": "ESP", "partlabel": "disk-main-esp", "mountpoints": ["/boot"]},
	     {"path": "/dev/nvme0n1p2", "type": "part", "size": 1999324000000, "fstype": "crypto_LUKS", "partlabel": "disk-main-luks", "mountpoints": [null],
	      "children": [{"path": "/dev/mapper/root", "type": "crypt", "size": 1999307000000, "fstype": "btrfs", "label": "ni\u001bx", "mountpoints": ["/", "/home"]}]}]}]}`
	disks, err := parseDisks(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := disks[0].mounted(), []string{"/boot", "/", "/home"}; !cmp.Equal(want, got) {
		t.Errorf("mounted() = %q, want %q", got, want)
	}
	if got, want := disks[0].title(), "Samsung SSD 990 PRO 2TB (nvme) S6Z2"; got != want {
		t.Errorf("title() = %q, want %q", got, want)
	}
	if got, want := disks[0].Children[1].Children[0].content(), `btrfs "ni\x1bx" on /, /home`; got != want {
		t.Errorf("content() = %q, want the label escaped: %q", got, want)
	}
	if _, err := parseDisks(strings.NewReader("no JSON")); err == nil {
		t.Error("parseDisks(no JSON) is no error")
	}
}

func FuzzParseDisks(f *testing.F) {
	f.Add(`{"blockdevices": [{"path": "/dev/sda", "type": "disk", "size": 5, "mountpoints": [null, "/x"]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		disks, err := parseDisks(strings.NewReader(text))
		if err != nil {
			return
		}
		for i := range disks {
			for _, point := range disks[i].mounted() {
				if point == "" {
					t.Errorf("%q gives an empty mount point", text)
				}
			}
		}
	})
}

func TestParseSwaps(t *testing.T) {
	swaps, err := parseSwaps(strings.NewReader("Filename\tType\tSize\n/mnt/.swap/swapfile  file  1024\n/dev/zram0 partition 5\n"))
	if want := []string{"/mnt/.swap/swapfile", "/dev/zram0"}; err != nil || !cmp.Equal(want, swaps) {
		t.Errorf("parseSwaps() = %q, %v, want %q", swaps, err, want)
	}
}

func FuzzParseSwaps(f *testing.F) {
	f.Add("Filename Type\n/mnt/a\\040b file 1")
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parseSwaps(strings.NewReader(text))
		if err == nil && len(names) > strings.Count(text, "\n") {
			t.Errorf("%q gives %d swaps", text, len(names))
		}
	})
}

// TestPlanBeginsAnywhere: --from leaves out what comes before, and nothing else.
func TestPlanBeginsAnywhere(t *testing.T) {
	for i, from := range allSteps {
		steps := request{root: "/mnt"}.plan(from)
		var names []stepName
		for _, s := range steps {
			names = append(names, s.name)
			if s.does == "" {
				t.Errorf("%s does not say what it does", s.name)
			}
		}
		if diff := cmp.Diff(allSteps[i:], names); diff != "" {
			t.Errorf("plan(%s) (-want +got):\n%s", from, diff)
		}
	}
}

// TestWipe: the secrets are overwritten where they were, and the file for disko
// is gone.
func TestWipe(t *testing.T) {
	root := t.TempDir()
	env := &clikit.Env{
		UI:     ui.New(&bytes.Buffer{}, &bytes.Buffer{}, ui.Options{}),
		Host:   run.Host{Files: run.Below(root)},
		Redact: &run.Redactor{},
	}
	facts := &settings.Settings{}
	facts.Disk.Encryption = settings.Encryption{Enable: true, PasswordFile: "/run/nixos-go/luks-passphrase"}
	s := newSession(tool{env, recordClean}, request{settings: facts})
	s.passphrase, s.password = []byte("the passphrase"), []byte("the password")
	if os.Getuid() == 0 {
		if err := s.writePassphraseFile(); err != nil {
			t.Fatal(err)
		}
	}
	backing := [][]byte{s.passphrase, s.password}
	s.wipe()
	for _, b := range backing {
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("after wipe the memory holds %q", b)
		}
	}
	if env.Host.Files.Exists("/run/nixos-go/luks-passphrase") {
		t.Error("after wipe the file for disko is there")
	}
}
