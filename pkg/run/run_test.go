package run

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRedactor(t *testing.T) {
	var r Redactor
	secret := []byte("correct horse")
	r.Add(secret)
	r.Add([]byte("abc")) // too short: would hide ordinary words
	r.Add(nil)
	if got, want := r.Text("a correct horse, abc"), "a [redacted], abc"; got != want {
		t.Errorf("Text() = %q, want %q", got, want)
	}
	kept := r.secrets[0]
	r.Wipe()
	if got := string(kept); got != string(make([]byte, len(secret))) {
		t.Errorf("after Wipe the copy holds %q", got)
	}
	if string(secret) != "correct horse" {
		t.Error("Wipe overwrote the caller's secret")
	}
	var none *Redactor
	none.Add(secret)
	if got := none.Text("x"); got != "x" {
		t.Errorf("nil Redactor: Text() = %q", got)
	}
}

func TestChrootEnters(t *testing.T) {
	chroot := Chroot{Root: "/mnt"}
	for _, test := range []struct {
		name    string
		command Command
		want    string
	}{
		{
			"name", New("nixos-rebuild", "boot"),
			"nixos-enter --root /mnt --silent -- /nix/var/nix/profiles/system/sw/bin/nixos-rebuild boot",
		},
		{
			"path and folder",
			Command{Program: "/bin/sh", Dir: "/etc/nixos", Stream: true},
			"nixos-enter --root /mnt -- /nix/var/nix/profiles/system/sw/bin/env --chdir=/etc/nixos /bin/sh",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := chroot.Enter(test.command).String(); got != test.want {
				t.Errorf("Enter() = %s, want %s", got, test.want)
			}
		})
	}
	var rec Recorder
	rec.On("nixos-enter", "--root", "/target")
	command := Command{Program: "chpasswd", Stdin: []byte("root:secret"), Secret: true, Env: []string{"A=b"}}
	if _, err := (Chroot{Root: "/target", Base: &rec}).Run(t.Context(), command); err != nil {
		t.Fatal(err)
	}
	call := rec.Calls()[0]
	if !call.StdinIs([]byte("root:secret")) || call.Command.Stdin != nil || call.Command.Env[0] != "A=b" {
		t.Errorf("entered with %+v, want the secret by digest alone and the environment", call.Command)
	}
}

func TestRecorder(t *testing.T) {
	var rec Recorder
	rec.On("nix").Reply("any")
	rec.On("nix", "eval", Any, "--raw").Fail(1, "error: missing")
	rec.On("nix", "build").Reply("once").Times(1)

	run := func(args ...string) (string, error) {
		result, err := rec.Run(t.Context(), New("nix", args...))
		return string(result.Stdout), err
	}
	if got, err := run("flake"); got != "any" || err != nil {
		t.Errorf("nix flake = %q, %v", got, err)
	}
	if _, err := run("eval", ".#x", "--raw"); err == nil || err.Error() != "nix eval '.#x' --raw: exit status 1\n  error: missing" {
		t.Errorf("nix eval = %v", err)
	}
	for _, want := range []string{"once", "any"} {
		if got, err := run("build"); got != want || err != nil {
			t.Errorf("nix build = %q, %v, want %q", got, err, want)
		}
	}
	if _, err := rec.Run(t.Context(), New("rm", "-rf", "/")); err == nil {
		t.Error("a command without an answer succeeded")
	}
	want := []string{"nix flake", "nix eval '.#x' --raw", "nix build", "nix build", "rm -rf /"}
	if diff := cmp.Diff(want, rec.Lines()); diff != "" {
		t.Errorf("Lines() (-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rec.Run(ctx, New("nix")); !errors.Is(err, context.Canceled) {
		t.Errorf("Run(ended context) = %v", err)
	}
}

// TestFilesStayBelow: an installation's symlinks resolve inside it.
//
//	root/etc/static   -> /nix/etc           absolute
//	root/etc/up       -> ../../../outside   upwards
//	outside                                 beside root
func TestFilesStayBelow(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	files := Below(root)
	must(t, os.MkdirAll(filepath.Join(root, "nix/etc"), 0o755))
	must(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "nix/etc/hostname"), []byte("inside"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "outside"), []byte("outside"), 0o644))
	must(t, os.Symlink("/nix/etc", filepath.Join(root, "etc/static")))
	must(t, os.Symlink("../../../outside", filepath.Join(root, "etc/up")))

	if b, err := files.ReadFile("/etc/static/hostname"); string(b) != "inside" || err != nil {
		t.Errorf("ReadFile() = %q, %v, want \"inside\"", b, err)
	}
	if b, err := files.ReadFile("/etc/up"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile(up) = %q, %v, want fs.ErrNotExist", b, err)
	}
	if b, err := files.ReadFile("../../outside"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile(../../outside) = %q, %v, want fs.ErrNotExist", b, err)
	}
	must(t, files.WriteFile("/etc/static/new", []byte("x"), 0o640))
	if info, err := os.Lstat(filepath.Join(root, "nix/etc/new")); err != nil || info.Mode() != 0o640 {
		t.Errorf("WriteFile() made %v, %v, want mode 0640 inside", info, err)
	}
	if err := files.WriteFile("/etc/up", []byte("y"), 0o600); err != nil {
		t.Errorf("WriteFile(symlink) = %v, want the link replaced", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "outside")); string(b) != "outside" || err != nil {
		t.Errorf("the file outside holds %q, %v", b, err)
	}
	if info, err := files.Lstat("/etc/static"); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("Lstat() = %v, %v, want a symlink", info, err)
	}
	if info, err := files.Stat("/etc/static"); err != nil || !info.IsDir() {
		t.Errorf("Stat() = %v, %v, want a directory", info, err)
	}
	if got, err := files.Resolve("/etc/static/hostname"); err != nil || got != filepath.Join(root, "nix/etc/hostname") {
		t.Errorf("Resolve() = %q, %v, want the file below the root", got, err)
	}
	entries, err := files.ReadDir("/etc/static")
	if err != nil || len(entries) != 2 || entries[0].Name() != "hostname" {
		t.Errorf("ReadDir() = %v, %v, want hostname, new", entries, err)
	}
}

func TestFilesMakeAndRemove(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	root := t.TempDir()
	files := Below(root)
	must(t, files.MkdirAll("/var/lib/nixos-go/secrets", 0o755))
	must(t, files.MkdirAll("/var/lib/nixos-go/secrets", 0o700))
	info, err := os.Stat(filepath.Join(root, "var/lib/nixos-go/secrets"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("MkdirAll() made %v, %v, want 0755 whatever the umask, and left as it is", info, err)
	}
	must(t, files.WriteFile("/var/x", nil, 0o644))
	if err := files.MkdirAll("/var/x/y", 0o755); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("MkdirAll(below a file) = %v, want ENOTDIR", err)
	}
	must(t, files.Remove("/var/x"))
	must(t, files.Remove("/var/x"))
	must(t, files.Remove("/no/such/folder/x"))
	must(t, files.Remove("/var/lib/nixos-go/secrets"))
	if files.Exists("/var/x") || files.Exists("/var/lib/nixos-go/secrets") {
		t.Error("Remove() left something")
	}
	if err := files.Remove("/var/lib"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("Remove(full folder) = %v, want ENOTEMPTY", err)
	}
	if got, want := files.Path("/etc/../var"), root+"/var"; got != want {
		t.Errorf("Path() = %q, want %q", got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
