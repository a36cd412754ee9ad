package permissions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/run"
)

const admin, group = 1234, 100

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put makes a file with its mode, folders above it included.
func put(t *testing.T, name string, mode os.FileMode, uid, gid int) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, nil, 0o600))
	must(t, os.Chown(name, uid, gid))
	must(t, unix.Chmod(name, uint32(mode)))
}

func plan(t *testing.T, tree Tree) Result {
	t.Helper()
	result, err := Plan(t.Context(), tree)
	must(t, err)
	return result
}

var ignoreIdentity = cmpopts.IgnoreUnexported(Change{})

func TestConfiguration(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	tree := Tree{Path: dir, UID: admin, GID: group, Kind: Configuration}
	must(t, os.Chown(dir, admin, group))
	must(t, unix.Chmod(dir, 0o755))
	put(t, filepath.Join(dir, "fine.nix"), 0o644, admin, group)
	put(t, filepath.Join(dir, "private"), 0o600, admin, group)
	put(t, filepath.Join(dir, "run.sh"), 0o4777, admin, group)
	put(t, filepath.Join(dir, "flake.lock"), 0o644, 0, 0)
	put(t, filepath.Join(dir, ".git/index"), 0o400, 0, 0)
	put(t, filepath.Join(dir, ".git/objects/ab/cd"), 0o446, admin, group)
	put(t, filepath.Join(dir, ".git/objects/ab/right"), 0o444, admin, group)
	must(t, os.Chown(filepath.Join(dir, ".git"), admin, group))
	must(t, unix.Chmod(filepath.Join(dir, ".git"), 0o2775))
	must(t, os.Symlink("/etc/shadow", filepath.Join(dir, "link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))

	result := plan(t, tree)
	want := []Change{
		{Path: ".git", FromUID: admin, FromGID: group, ToUID: admin, ToGID: group, FromMode: 0o2775, ToMode: 0o755},
		{Path: ".git/index", ToUID: admin, ToGID: group, FromMode: 0o400, ToMode: 0o600},
		{Path: ".git/objects", ToUID: admin, ToGID: group, FromMode: 0o755, ToMode: 0o755},
		{Path: ".git/objects/ab", ToUID: admin, ToGID: group, FromMode: 0o755, ToMode: 0o755},
		{Path: ".git/objects/ab/cd", FromUID: admin, FromGID: group, ToUID: admin, ToGID: group, FromMode: 0o446, ToMode: 0o444},
		{Path: "flake.lock", ToUID: admin, ToGID: group, FromMode: 0o644, ToMode: 0o644},
		{Path: "link", ToUID: admin, ToGID: group, FromMode: 0o777, ToMode: 0o777},
		{Path: "run.sh", FromUID: admin, FromGID: group, ToUID: admin, ToGID: group, FromMode: 0o4777, ToMode: 0o755},
	}
	if diff := cmp.Diff(want, result.Changes, ignoreIdentity); diff != "" {
		t.Errorf("Plan() (-want +got):\n%s", diff)
	}
	if len(result.Skipped) != 1 || result.Skipped[0].Path != "pipe" {
		t.Errorf("Skipped = %+v, want the pipe", result.Skipped)
	}

	var shadow unix.Stat_t
	must(t, unix.Stat("/etc/shadow", &shadow))
	must(t, Apply(t.Context(), tree, result.Changes))
	if left := plan(t, tree); len(left.Changes) != 0 {
		t.Errorf("after Apply() the plan is %+v, want nothing", left.Changes)
	}
	var now unix.Stat_t
	must(t, unix.Stat("/etc/shadow", &now))
	if now.Uid != shadow.Uid || now.Mode != shadow.Mode {
		t.Error("Apply() followed a symlink out of the folder")
	}
}

func TestSecrets(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	tree := Tree{Path: dir, Kind: Secrets}
	put(t, filepath.Join(dir, "hashed-password"), 0o644, admin, group)
	put(t, filepath.Join(dir, "deep/key"), 0o700, 0, 0)
	result := plan(t, tree)
	must(t, Apply(t.Context(), tree, result.Changes))
	for name, mode := range map[string]uint32{".": 0o700, "hashed-password": 0o600, "deep": 0o700, "deep/key": 0o600} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(dir, name), &st))
		if st.Mode&0o7777 != mode || st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s: %d:%d %04o, want 0:0 %04o", name, st.Uid, st.Gid, st.Mode&0o7777, mode)
		}
	}
}

// TestForeignHardLinkIsLeft: somebody may have linked root's file into the
// folder, to have it given to them.
func TestForeignHardLinkIsLeft(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	put(t, outside, 0o600, 0, 0)
	tree := Tree{Path: filepath.Join(dir, "nixos"), UID: admin, GID: group}
	put(t, filepath.Join(tree.Path, "x"), 0o644, admin, group)
	must(t, os.Link(outside, filepath.Join(tree.Path, "trap")))
	result := plan(t, tree)
	if len(result.Skipped) != 1 || result.Skipped[0].Path != "trap" || !strings.Contains(result.Skipped[0].Reason, "2 names") {
		t.Errorf("Skipped = %+v, want the trap", result.Skipped)
	}
	must(t, Apply(t.Context(), tree, result.Changes))
	info, err := os.Stat(outside)
	must(t, err)
	if info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Error("root's file was given away")
	}
}

// TestReplacedSincePlan: between plan and change the admin puts a symlink in
// the place of a folder, and another file in the place of a file.
func TestReplacedSincePlan(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	put(t, filepath.Join(victim, "file"), 0o600, 0, 0)
	tree := Tree{Path: filepath.Join(dir, "nixos"), UID: admin, GID: group}
	put(t, filepath.Join(tree.Path, "folder/file"), 0o600, 0, 0)
	put(t, filepath.Join(tree.Path, "other"), 0o600, 0, 0)
	put(t, filepath.Join(tree.Path, "gone"), 0o600, 0, 0)
	result := plan(t, tree)
	must(t, os.Rename(filepath.Join(tree.Path, "folder"), filepath.Join(dir, "aside")))
	must(t, os.Symlink(victim, filepath.Join(tree.Path, "folder")))
	must(t, os.Rename(filepath.Join(tree.Path, "other"), filepath.Join(dir, "aside2")))
	put(t, filepath.Join(tree.Path, "other"), 0o600, 0, 0)
	must(t, os.Remove(filepath.Join(tree.Path, "gone")))

	err := Apply(t.Context(), tree, result.Changes)
	if !errors.Is(err, ErrReplaced) || !errors.Is(err, unix.ELOOP) {
		t.Errorf("Apply() = %v, want ErrReplaced for one and ELOOP for the other", err)
	}
	for _, name := range []string{victim, filepath.Join(victim, "file"), filepath.Join(tree.Path, "other")} {
		info, err := os.Lstat(name)
		must(t, err)
		if info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%s was given away", name)
		}
	}
}

func TestEndedContext(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&run.InterruptedError{Signal: os.Interrupt})
	var by *run.InterruptedError
	if _, err := Plan(ctx, Tree{Path: dir}); !errors.As(err, &by) {
		t.Errorf("Plan() = %v, want the interruption", err)
	}
	if err := Apply(ctx, Tree{Path: dir}, []Change{{Path: "x"}}); !errors.As(err, &by) {
		t.Errorf("Apply() = %v, want the interruption", err)
	}
}

func TestFindAccount(t *testing.T) {
	const passwd = "root:x:0:0:System:/root:/bin/sh\nadmin:x:1000:100:A:/home/admin:/bin/bash\nodd:x:1\nbad:x:-1:1::/:\n"
	got, err := findAccount(strings.NewReader(passwd), "admin")
	if want := (Account{Name: "admin", UID: 1000, GID: 100, Home: "/home/admin"}); err != nil || got != want {
		t.Errorf("findAccount(admin) = %+v, %v, want %+v", got, err, want)
	}
	for _, name := range []string{"nobody", ""} {
		if _, err := findAccount(strings.NewReader(passwd), name); !errors.Is(err, ErrNoAccount) {
			t.Errorf("findAccount(%q) = %v, want ErrNoAccount", name, err)
		}
	}
	for _, name := range []string{"odd", "bad"} {
		if _, err := findAccount(strings.NewReader(passwd), name); err == nil {
			t.Errorf("findAccount(%q) is no error", name)
		}
	}
}

func FuzzFindAccount(f *testing.F) {
	f.Add("admin:x:1000:100:A:/home/admin:/bin/bash", "admin")
	f.Fuzz(func(t *testing.T, passwd, name string) {
		account, err := findAccount(strings.NewReader(passwd), name)
		if err == nil && (account.Name != name || account.UID < 0 || account.GID < 0) {
			t.Errorf("findAccount(%q, %q) = %+v", passwd, name, account)
		}
	})
}
