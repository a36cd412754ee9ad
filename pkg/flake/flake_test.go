package flake

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/nix"
	"nixos-go/pkg/prompt"
	"nixos-go/pkg/run"
	"nixos-go/pkg/settings"
	"nixos-go/pkg/ui"
)

// world has the real git and a recording nix.
type world struct {
	env      *clikit.Env
	dir      string
	nix      run.Recorder
	script   prompt.Scripted
	messages bytes.Buffer
}

func (w *world) Run(ctx context.Context, c run.Command) (run.Result, error) {
	if c.Program == "git" {
		return (&run.Local{}).Run(ctx, c)
	}
	return w.nix.Run(ctx, c)
}

func newWorld(t *testing.T, answers ...prompt.Answer) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), script: prompt.Scripted{Answers: answers}}
	w.env = &clikit.Env{
		UI:   ui.New(&bytes.Buffer{}, &w.messages, ui.Options{}),
		Host: run.Host{Runner: w, Files: run.Here()},
		Ask:  &w.script,
		UID:  os.Getuid(),
	}
	w.write(t, "flake.nix", "{ }")
	w.nix.On("nix", "--extra-experimental-features", run.Any, "flake", "lock").Do(
		func(context.Context, run.Command) (run.Result, error) {
			return run.Result{}, os.WriteFile(filepath.Join(w.dir, "flake.lock"), []byte("{}"), 0o600)
		})
	return w
}

func (w *world) write(t *testing.T, name, text string) {
	t.Helper()
	full := filepath.Join(w.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) git(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("git", append([]string{"-C", w.dir, "-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=b"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return string(out)
}

// repository has everything committed and locked.
func (w *world) repository(t *testing.T) {
	t.Helper()
	w.write(t, "flake.lock", "{}")
	w.git(t, "init", "--quiet")
	w.git(t, "add", ".")
	w.git(t, "commit", "--quiet", "-m", "x")
}

func (w *world) open(t *testing.T, options clikit.Options) (nix.Flake, error) {
	t.Helper()
	return Open(t.Context(), w.env, options, w.dir)
}

func TestCleanFlakeIsSilent(t *testing.T) {
	w := newWorld(t)
	w.repository(t)
	f, err := w.open(t, clikit.Options{})
	if err != nil || f.Dir() != w.dir {
		t.Errorf("Open() = %+v, %v", f, err)
	}
	if w.messages.Len() > 0 || len(w.nix.Calls()) > 0 || len(w.script.Asked) > 0 {
		t.Errorf("Open() said %q, ran %q, asked %q", w.messages.String(), w.nix.Lines(), w.script.Asked)
	}
}

func TestNewFolderBecomesAFlake(t *testing.T) {
	w := newWorld(t, prompt.Answer{To: "in no git repository", Say: "yes"}, prompt.Answer{To: "git know", Say: "yes"})
	w.write(t, "hosts/x86_64/A.nix", "{ }")
	w.write(t, "README", "")
	if _, err := w.open(t, clikit.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := w.git(t, "ls-files"); got != "flake.nix\nhosts/x86_64/A.nix\n" {
		t.Errorf("git knows %q, want both .nix files", got)
	}
	if want := []string{"nix --extra-experimental-features 'nix-command flakes' flake lock git+file://" + w.dir}; !cmp.Equal(want, w.nix.Lines()) {
		t.Errorf("ran %q, want %q", w.nix.Lines(), want)
	}
	for _, text := range []string{"is a git repository now", "git does not know 2 files", "hosts/x86_64/A.nix", "Locking the inputs"} {
		if !strings.Contains(w.messages.String(), text) {
			t.Errorf("messages %q lack %q", w.messages.String(), text)
		}
	}
}

func TestRefusedRepository(t *testing.T) {
	w := newWorld(t, prompt.Answer{To: "in no git repository", Say: "no"})
	if _, err := w.open(t, clikit.Options{}); !errors.Is(err, nix.ErrNoRepository) {
		t.Errorf("Open(refused) = %v, want ErrNoRepository", err)
	}
	if _, err := w.open(t, clikit.Options{DryRun: true}); !errors.Is(err, nix.ErrNoRepository) {
		t.Errorf("Open(dry run) = %v, want ErrNoRepository", err)
	}
	if _, err := os.Stat(filepath.Join(w.dir, ".git")); err == nil {
		t.Error("a repository was made")
	}
	if _, err := Open(t.Context(), w.env, clikit.Options{}, t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(no flake) = %v, want fs.ErrNotExist", err)
	}
}

func TestUntrackedFiles(t *testing.T) {
	none := prompt.Answer{To: "git know it", Err: &prompt.NoTerminalError{}}
	for _, test := range []struct {
		name    string
		options clikit.Options
		answers []prompt.Answer
		known   bool
		hint    string
	}{
		{"dry run", clikit.Options{DryRun: true}, nil, false, ""},
		{"declined", clikit.Options{}, []prompt.Answer{{To: "git know it", Say: "no"}}, false, ""},
		{"no terminal", clikit.Options{}, []prompt.Answer{none}, false, "hint: add them with git add, or use --yes"},
		{"--yes", clikit.Options{Yes: true}, nil, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.answers...)
			w.repository(t)
			w.write(t, "new \x1b.nix", "")
			if _, err := w.open(t, test.options); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(w.messages.String(), `"new \x1b.nix"`) || !strings.Contains(w.messages.String(), test.hint) {
				t.Errorf("messages = %q, want the escaped name and %q", w.messages.String(), test.hint)
			}
			if got := strings.Contains(w.git(t, "ls-files", "-z"), "new"); got != test.known {
				t.Errorf("git knows it: %v, want %v", got, test.known)
			}
		})
	}
}

func TestDirtyTreeOnlyWarns(t *testing.T) {
	w := newWorld(t)
	w.repository(t)
	w.write(t, "flake.nix", "{ outputs = x: x; }")
	if _, err := w.open(t, clikit.Options{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(w.messages.String(), "warning: "+w.dir+" has changes that are not committed") {
		t.Errorf("messages = %q", w.messages.String())
	}
}

func TestMissingLockIsWrittenFirst(t *testing.T) {
	w := newWorld(t)
	w.repository(t)
	if err := os.Remove(filepath.Join(w.dir, "flake.lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t, clikit.Options{DryRun: true}); err != nil || len(w.nix.Calls()) != 0 {
		t.Errorf("Open(dry run) = %v and ran %q", err, w.nix.Lines())
	}
	if _, err := w.open(t, clikit.Options{}); err != nil || len(w.nix.Calls()) != 1 {
		t.Errorf("Open() = %v and ran %q, want the lock", err, w.nix.Lines())
	}
}

// TestRootGivesBack: the index and the lock that root's git and nix wrote
// belong to the admin again.
func TestRootGivesBack(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	w := newWorld(t)
	w.repository(t)
	w.write(t, "left.nix", "")
	if out, err := exec.Command("chown", "-R", "1234:100", w.dir).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	if err := errors.Join(os.Remove(filepath.Join(w.dir, "flake.lock")), os.Chown(filepath.Join(w.dir, "left.nix"), 0, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t, clikit.Options{Yes: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"flake.lock": 1234, ".git/index": 1234, "left.nix": 0} {
		info, err := os.Stat(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if uid, _ := nix.OwnerOf(info); uid != want {
			t.Errorf("%s belongs to %d, want %d", name, uid, want)
		}
	}
}

func TestSelect(t *testing.T) {
	w := newWorld(t)
	w.write(t, "hosts/x86_64/A.nix", "")
	w.write(t, "hosts/aarch64/B.nix", "")
	if _, err := Select(w.dir, "", ""); err == nil || !strings.Contains(err.Error(), "config.json is missing") {
		t.Errorf("Select(nothing) = %v", err)
	}
	b := settings.HostFile{Name: "B", System: "aarch64", Path: "hosts/aarch64/B.nix"}
	a := settings.HostFile{Name: "A", System: "x86_64", Path: "hosts/x86_64/A.nix"}
	for _, test := range []struct {
		config, host, target string
		want                 Selection
	}{
		{"", "B", "", Selection{b, settings.StandardBoot}},
		{`{"host_path": "hosts/x86_64/A.nix", "target": "Secure-Boot"}`, "", "", Selection{a, settings.SecureBoot}},
		{`{"host_path": "hosts/x86_64/A.nix", "target": "Secure-Boot"}`, "B", "Standard-Boot", Selection{b, settings.StandardBoot}},
	} {
		if test.config != "" {
			w.write(t, "config.json", test.config)
		}
		got, err := Select(w.dir, test.host, test.target)
		if err != nil || got != test.want {
			t.Errorf("Select(%q, %q, %q) = %+v, %v, want %+v", test.config, test.host, test.target, got, err, test.want)
		}
	}
	for _, flags := range [][2]string{{"C", ""}, {"", "Disk-Operation"}} {
		var usage *clikit.UsageError
		if _, err := Select(w.dir, flags[0], flags[1]); !errors.As(err, &usage) {
			t.Errorf("Select(%q) = %v, want a usage error", flags, err)
		}
	}
	w.write(t, "config.json", "{")
	if _, err := Select(w.dir, "A", ""); err == nil {
		t.Error("Select() overlooks a broken config.json")
	}
}

func TestDir(t *testing.T) {
	if got, err := Dir("/etc/../etc/nixos"); got != "/etc/nixos" || err != nil {
		t.Errorf("Dir() = %q, %v", got, err)
	}
	for _, name := range []string{"", "path:/etc/nixos", "git+file:///etc/nixos"} {
		if got, err := Dir(name); err == nil {
			t.Errorf("Dir(%q) = %q, want an error", name, got)
		}
	}
}
