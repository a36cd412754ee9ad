package install

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"nixos-go/pkg/luks"
	"nixos-go/pkg/testx/console"
	"nixos-go/pkg/testx/luksfile"
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

// realDisk puts a LUKS volume, which the passphrase opens, where the host's settings
// have the encrypted partition, and the real cryptsetup behind its stand-in. A script
// may come after the real one, with $1 as its first argument.
func realDisk(t *testing.T, work, after string) (image string) {
	t.Helper()
	// The first folder holds the stand-ins (testscript.Main).
	_, path, _ := strings.Cut(os.Getenv("PATH"), ":")
	t.Setenv("PATH", path)
	image = luksfile.New(t, passphrase)
	cryptsetup, err := exec.LookPath("cryptsetup")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(work, "root/dev/disk/by-partlabel"), 0o755),
		os.Symlink(image, filepath.Join(work, "root/dev/disk/by-partlabel/disk-main-luks")),
		os.WriteFile(filepath.Join(work, "standin/cryptsetup"),
			[]byte(`test "$1" = close || `+cryptsetup+` "$@" || exit; `+after), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return image
}

// installed is a machine whose installation has come to its last step.
func installed(t *testing.T) (work string) {
	t.Helper()
	work = liveSystem(t, nil)
	etc := filepath.Join(work, "root/mnt", "nix/var/nix/profiles/system/etc/nixos-go")
	text, err := os.ReadFile(filepath.Join(work, "settings.json"))
	if err == nil {
		err = os.MkdirAll(etc, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(etc, "settings.json"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return work
}

// TestNoRecoveryKey: a key that its owner has not seen is not left on the disk, and
// the installation is complete without one.
func TestNoRecoveryKey(t *testing.T) {
	for _, test := range []struct {
		name, typed, after string
		then               func(c *console.Console)
		status             int
	}{
		{"a wrong passphrase", "wrong", "", func(c *console.Console) {
			c.Expect("warning: no recovery key was made: add a key to slot 1: ")
			c.Expect("hint: recovery key: sudo nixos-tpm2 enable --recovery-key")
			c.Expect("Unmount and reboot now? [y/N] ")
			c.Type(console.Enter)
		}, 0},
		{"interrupted", passphrase, `test "$1" != luksAddKey || { echo added >/dev/tty; exec sleep 1000; }`, func(c *console.Console) {
			c.Expect("added")
			c.Type(console.CtrlC)
			c.Expect("sudo nixos-install-go --from finish")
		}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			work := installed(t)
			image := realDisk(t, work, test.after)
			c := tooltest.Terminal(t, work, nil, "nixos-install-go", "--from", "finish")
			c.Expect("Make a recovery key for the disk now? [y/N] ")
			c.Type("y" + console.Enter)
			c.Expect("Passphrase of the disk: ")
			c.Type(test.typed + console.Enter)
			test.then(c)
			if status := c.Wait(); status != test.status {
				t.Errorf("status = %d, want %d\n%s", status, test.status, c.Screen())
			}
			header, err := luks.Volume{Device: image}.Header()
			if err != nil {
				t.Fatal(err)
			}
			if len(header.Slots) != 1 || len(header.Tokens) != 0 {
				t.Errorf("the disk has the slots %v and the tokens %v, want that of the passphrase alone", header.SlotNumbers(), header.Tokens)
			}
			if luksfile.Opens(t, image, passphrase) != 0 {
				t.Error("the passphrase does not open the disk any more")
			}
		})
	}
}

// recoveryKey finds what is shown as one.
func recoveryKey(t *testing.T, screen string) string {
	t.Helper()
	key := regexp.MustCompile(`([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}`).FindString(screen)
	if key == "" {
		t.Fatalf("no recovery key on the screen:\n%s", screen)
	}
	return key
}

// TestConversation is an installation as a person has it, and looks for the
// secrets everywhere afterwards.
func TestConversation(t *testing.T) {
	work := liveSystem(t, nil)
	image := realDisk(t, work, "")
	before := snapshot(t, os.TempDir())
	c := tooltest.Terminal(t, work, nil, "nixos-install-go")
	answer(c)
	c.Expect("==> partition: ")
	c.Expect("==> clean: ")
	c.Expect("ok: the installation is complete")
	c.Expect("Make a recovery key for the disk now? [y/N] ")
	c.Type("y" + console.Enter)
	c.Expect("==> adding a recovery key to key slot 1, and testing it")
	c.Expect("it is never shown again")
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
	recovery := recoveryKey(t, c.Screen())
	if slot := luksfile.Opens(t, image, recovery); slot != 1 {
		t.Errorf("the recovery key opens slot %d, want 1", slot)
	}
	header, err := luks.Volume{Device: image}.Header()
	if err != nil {
		t.Fatal(err)
	}
	if kind := header.KindOf(1); kind != luks.Recovery {
		t.Errorf("slot 1 is marked as %s, want %s", kind, luks.Recovery)
	}
	if strings.Contains(c.Screen(), "hint: recovery key: ") {
		t.Error("a recovery key is suggested although there is one")
	}
	if seen, err := os.ReadFile(filepath.Join(work, "seen")); string(seen) != passphrase || err != nil {
		t.Errorf("disko read %q, %v, want the passphrase", seen, err)
	}
	for _, secret := range []string{passphrase, password} {
		if strings.Contains(c.Screen(), secret) {
			t.Errorf("the screen shows %q", secret)
		}
		// The files by which the stand-ins prove what they were given to read.
		for _, name := range holding(t, work, secret) {
			if name != "seen" && !strings.HasSuffix(name, ".stdin") {
				t.Errorf("%s holds %q", name, secret)
			}
		}
	}
	for _, name := range holding(t, work, recovery) {
		if !strings.HasSuffix(name, ".stdin") {
			t.Errorf("%s holds the recovery key", name)
		}
	}
	if after := snapshot(t, os.TempDir()); len(after) > len(before) {
		t.Errorf("temporary files are left: %q, before %q", after, before)
	}
}

// TestRecoveryKeyNotMarked: a key that was shown stays, whatever comes after.
func TestRecoveryKeyNotMarked(t *testing.T) {
	work := installed(t)
	image := realDisk(t, work, `test "$1" != token || exit 1`)
	c := tooltest.Terminal(t, work, nil, "nixos-install-go", "--from", "finish")
	c.Expect("Make a recovery key for the disk now? [y/N] ")
	c.Type("y" + console.Enter)
	c.Expect("Passphrase of the disk: ")
	c.Type(passphrase + console.Enter)
	c.Expect("warning: the recovery key opens the disk, but the disk's header does not say that it is one: ")
	c.Expect("Unmount and reboot now? [y/N] ")
	c.Type(console.Enter)
	if status := c.Wait(); status != 0 {
		t.Errorf("status = %d, want 0\n%s", status, c.Screen())
	}
	if slot := luksfile.Opens(t, image, recoveryKey(t, c.Screen())); slot != 1 {
		t.Errorf("the recovery key opens slot %d, want 1", slot)
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

// TestRemoteInterrupted: what was made for another machine, the passphrase in it, is
// gone.
func TestRemoteInterrupted(t *testing.T) {
	work := liveSystem(t, map[string]string{
		"standin/nix": `case "$*" in *config.settings*) cat $ROOT/../settings.json; exit ;; esac
			ls /dev/shm/nixos-install-go-*/passphrase >$ROOT/../was-there; echo working >/dev/tty; exec sleep 1000`,
	})
	before := snapshot(t, memory)
	c := tooltest.Terminal(t, work, nil, "nixos-install-go", "--host", "MINE", "--remote", "me@there",
		"--yes", "--disk", "/dev/disk/by-id/virtio-DISK", "--password-file", "pw")
	c.Expect("working")
	c.Type(console.CtrlC)
	c.Expect("hint: the machine is as the failed step left it")
	if status := c.Wait(); status != 1 {
		t.Errorf("status = %d, want 1\n%s", status, c.Screen())
	}
	if was, err := os.ReadFile(filepath.Join(work, "was-there")); err != nil || len(was) == 0 {
		t.Errorf("nixos-anywhere was given %q, %v", was, err)
	}
	if after := snapshot(t, memory); len(after) > len(before) {
		t.Errorf("left in memory: %q, before %q", after, before)
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
