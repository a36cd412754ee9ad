package install

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/tooltest"
)

// The two secrets that the tests type.
const (
	passphrase = "Tr0ub4dor-disk-passphrase"
	password   = "Xylophone-admin-password"
)

// liveSystem is the machine of the script unattended.txt, with changes.
func liveSystem(t *testing.T, changes map[string]string) (work string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	archive, err := txtar.ParseFile("testdata/unattended.txt")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, file := range archive.Files {
		files[file.Name] = string(file.Data)
	}
	maps.Copy(files, changes)
	work = tooltest.Unpack(t, files)
	if err := tooltest.Commit(filepath.Join(work, "flake")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/vda", filepath.Join(work, "root/dev/disk/by-id/virtio-DISK")); err != nil {
		t.Fatal(err)
	}
	return work
}

// answer answers the questions up to the first step.
func answer(c *console.Console) {
	c.Expect("Which host is this machine?")
	c.Expect("OTHER")
	c.Type(console.Enter)
	c.Expect("warning: everything on /dev/vda (QEMU DISK (virtio) DISK, 64.0 GiB) will be lost")
	c.Expect("Type the name of the disk to wipe it (/dev/vda): ")
	c.Type("sda" + console.Enter)
	c.Expect(`"sda" is not /dev/vda; an empty line stops`)
	c.Expect("Type the name of the disk to wipe it (/dev/vda): ")
	c.Type("vda" + console.Enter)
	c.Expect("New passphrase of the disk: ")
	c.Type(passphrase + console.Enter)
	c.Expect("New passphrase of the disk (again): ")
	c.Type("mistyped" + console.Enter)
	c.Expect("the two entries differ")
	c.Expect("New passphrase of the disk: ")
	c.Type(passphrase + console.Enter)
	c.Expect("(again): ")
	c.Type(passphrase + console.Enter)
	c.Expect("Use it as the password of me as well? [y/N] ")
	c.Type("n" + console.Enter)
	c.Expect("New password of me: ")
	c.Type(password + console.Enter)
	c.Expect("(again): ")
	c.Type(password + console.Enter)
}

// TestConversation is an installation as a person has it, and looks for the
// secrets everywhere afterwards.
func TestConversation(t *testing.T) {
	work := liveSystem(t, map[string]string{
		"standin/systemd-cryptenroll": `cat /proc/self/fd/3 >$ROOT/../enrolled; echo "A secret recovery key: abcd-efgh"`,
	})
	before := snapshot(t, os.TempDir())
	c := tooltest.Terminal(t, work, nil, "nixos-install-go")
	answer(c)
	c.Expect("==> partition: ")
	c.Expect("==> clean: ")
	c.Expect("ok: the installation is complete")
	c.Expect("Make a recovery key for the disk now? [y/N] ")
	c.Type("y" + console.Enter)
	c.Expect("abcd-efgh")
	c.Expect("hint: Secure Boot: ")
	c.Expect("Unmount and reboot now? [y/N] ")
	c.Type("y" + console.Enter)
	c.Expect("is unmounted")
	if status := c.Wait(); status != 0 {
		t.Errorf("status = %d\n%s", status, c.Screen())
	}
	if !strings.HasSuffix(tooltest.Calls(t, work), "systemctl reboot\n") {
		t.Errorf("the machine does not reboot:\n%s", tooltest.Calls(t, work))
	}
	if enrolled, err := os.ReadFile(filepath.Join(work, "enrolled")); string(enrolled) != passphrase || err != nil {
		t.Errorf("systemd-cryptenroll read %q, %v, want the passphrase", enrolled, err)
	}
	if seen, err := os.ReadFile(filepath.Join(work, "seen")); string(seen) != passphrase || err != nil {
		t.Errorf("disko read %q, %v, want the passphrase", seen, err)
	}
	for _, secret := range []string{passphrase, password} {
		if strings.Contains(c.Screen(), secret) {
			t.Errorf("the screen shows %q", secret)
		}
		// The files by which the stand-ins prove what they were given.
		for _, name := range holding(t, work, secret) {
			if name != "seen" && name != "enrolled" {
				t.Errorf("%s holds %q", name, secret)
			}
		}
	}
	if after := snapshot(t, os.TempDir()); len(after) > len(before) {
		t.Errorf("temporary files are left: %q, before %q", after, before)
	}
}

// holding names the files below a folder that hold a text: records of arguments
// and environments, the state, the target.
func holding(t *testing.T, dir, text string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// snapshot names what this tool could leave in a folder.
func snapshot(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "nixos-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestNothingIsWipedWithoutTheName(t *testing.T) {
	for _, keys := range []string{console.Enter, console.CtrlC, console.CtrlD} {
		work := liveSystem(t, nil)
		c := tooltest.Terminal(t, work, nil, "nixos-install-go", "--host", "MINE")
		c.Expect("(/dev/vda): ")
		c.Type(keys)
		if status := c.Wait(); status != 1 {
			t.Errorf("%q: status = %d, want 1", keys, status)
		}
		if calls := tooltest.Calls(t, work); strings.Contains(calls, "destroyFormatMount") {
			t.Errorf("%q: %s", keys, calls)
		}
	}
}

// TestInterrupted presses Ctrl-C in the middle of each long step: the passphrase
// is gone, the state says where to go on, and going on works.
func TestInterrupted(t *testing.T) {
	const waits = "echo working >&2; exec sleep 1000\n"
	archive, err := txtar.ParseFile("testdata/unattended.txt")
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{}
	for _, file := range archive.Files {
		good[file.Name] = string(file.Data)
	}
	for _, test := range []struct {
		step, program, script, hint string
	}{
		{
			"partition", "standin/nix", strings.Replace(good["standin/nix"], "echo \"partitioning\" >&2", waits, 1),
			"hint: go on, when the cause is gone: sudo nixos-install-go --from partition",
		},
		{
			"install", "standin/nixos-install", waits,
			"go on, when the cause is gone: sudo nixos-install-go --from install; or unmount it: umount --recursive",
		},
	} {
		t.Run(test.step, func(t *testing.T) {
			work := liveSystem(t, map[string]string{test.program: test.script})
			arguments := []string{"--host", "MINE", "--yes", "--disk", "vda", "--password-file", "pw"}
			c := tooltest.Terminal(t, work, nil, "nixos-install-go", arguments...)
			c.Expect("==> " + test.step)
			c.Expect("working")
			c.Type(console.CtrlC)
			c.Expect("interrupted")
			c.Expect(test.hint)
			if status := c.Wait(); status != 1 {
				t.Errorf("status = %d, want 1", status)
			}
			if _, err := os.Stat(filepath.Join(work, "root/run/nixos-go/luks-passphrase")); err == nil {
				t.Error("the passphrase is left behind")
			}
			if err := os.WriteFile(filepath.Join(work, test.program), []byte(good[test.program]), 0o644); err != nil {
				t.Fatal(err)
			}
			c = tooltest.Terminal(t, work, nil, "nixos-install-go", arguments...)
			c.Expect("goes on with the step " + test.step)
			c.Expect("ok: the installation is complete")
			if status := c.Wait(); status != 0 {
				t.Errorf("going on: status = %d\n%s", status, c.Screen())
			}
		})
	}
}

// TestUnmountOnlyIfWanted: after a failure the owner is asked.
func TestUnmountOnlyIfWanted(t *testing.T) {
	for answer, unmounts := range map[string]bool{"y": true, "": false} {
		work := liveSystem(t, map[string]string{"standin/nixos-install": "echo broken >&2; exit 1"})
		c := tooltest.Terminal(t, work, nil, "nixos-install-go", "--host", "MINE", "--disk", "vda", "--password-file", "pw")
		c.Expect("(/dev/vda): ")
		c.Type("/dev/vda" + console.Enter)
		c.Expect("The step failed. Unmount the target? [y/N] ")
		c.Type(answer + console.Enter)
		c.Expect("sudo nixos-install-go --from install")
		c.Wait()
		if got := strings.Contains(tooltest.Calls(t, work), "umount --recursive"); got != unmounts {
			t.Errorf("answer %q: unmounted %v, want %v", answer, got, unmounts)
		}
	}
}

// TestResumeAsks at a terminal; no begins anew, after the name was typed again.
func TestResumeAsks(t *testing.T) {
	work := liveSystem(t, map[string]string{"standin/nixos-install": "exit 1"})
	c := tooltest.Terminal(t, work, nil, "nixos-install-go", "--host", "MINE", "--yes", "--disk", "vda", "--password-file", "pw")
	c.Expect("--from install")
	c.Wait()
	c = tooltest.Terminal(t, work, nil, "nixos-install-go", "--host", "MINE")
	c.Expect("An installation of MINE stopped before the step install. Go on from there? [Y/n] ")
	c.Type("n" + console.Enter)
	c.Expect("Type the name of the disk to wipe it (/dev/vda): ")
	c.Type(console.Enter)
	c.Expect("nothing was wiped")
	if status := c.Wait(); status != 1 {
		t.Errorf("status = %d, want 1", status)
	}
}
