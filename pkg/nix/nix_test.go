package nix

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/run"
)

var flake = Flake{Top: "/etc/nixos", Owner: 1000}

// TestCommands holds every call to its exact words.
func TestCommands(t *testing.T) {
	const nix = "nix --extra-experimental-features 'nix-command flakes' "
	paths := []AttributePath{{"config", "networking", "hostName"}, {"config", "a.b", "with"}}
	for _, test := range []struct {
		name string
		c    run.Command
		want string
	}{
		{"lock", flake.Lock(), nix + "flake lock git+file:///etc/nixos"},
		{"update all", flake.Update(), nix + "flake update --flake git+file:///etc/nixos"},
		{"update some", flake.Update("nixpkgs", "disko"), nix + "flake update --flake git+file:///etc/nixos -- nixpkgs disko"},
		{
			"eval", flake.Eval("HOST-Standard-Boot", "config.settings"),
			nix + `eval --json --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations."HOST-Standard-Boot".config.settings'`,
		},
		{
			"eval many", flake.EvalMany("H", paths),
			nix + `eval --json --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations."H"' --apply 'c: { "config.networking.hostName" = c."config"."networking"."hostName"; "config.\"a.b\".with" = c."config"."a.b"."with"; }'`,
		},
		{
			"names", flake.EvalNames("H", AttributePath{"config", "boot"}),
			nix + `eval --json --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations."H"' --apply 'c: let v = c."config"."boot"; in if builtins.isAttrs v then builtins.attrNames v else []'`,
		},
		{"hosts", flake.Hosts(), nix + "eval --json --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations' --apply builtins.attrNames"},
		{
			"toplevel", flake.Toplevel("H"),
			nix + `build --no-link --print-out-paths --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations."H".config.system.build.toplevel'`,
		},
		{
			"disko wipe", flake.Disko("H-Disk-Operation", true),
			nix + `run --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations."H-Disk-Operation".config.system.build.destroyFormatMount' -- --yes-wipe-all-disks`,
		},
		{
			"disko mount", flake.Disko("H-Disk-Operation", false),
			nix + `run --no-update-lock-file 'git+file:///etc/nixos#nixosConfigurations."H-Disk-Operation".config.system.build.mount'`,
		},
		{
			"install", flake.Install("H-Standard-Boot", "/mnt"),
			"nixos-install --root /mnt --flake 'git+file:///etc/nixos#H-Standard-Boot' --no-root-passwd --no-channel-copy --no-update-lock-file",
		},
		{
			"switch", Rebuild{Action: Switch, Configuration: "H-Secure-Boot"}.Command(flake),
			"nixos-rebuild switch --flake 'git+file:///etc/nixos#H-Secure-Boot' --no-update-lock-file",
		},
		{
			"remote", Rebuild{Action: Boot, Configuration: "H", InstallBootloader: true, BuildHost: "b", TargetHost: "me@there"}.Command(flake),
			"nixos-rebuild boot --flake 'git+file:///etc/nixos#H' --no-update-lock-file --install-bootloader --build-host b --target-host me@there --sudo",
		},
		{
			"remote root", Rebuild{Action: Test, Configuration: "H", TargetHost: "root@there"}.Command(flake),
			"nixos-rebuild test --flake 'git+file:///etc/nixos#H' --no-update-lock-file --target-host root@there",
		},
		{"rollback", Rollback(Switch), "nixos-rebuild switch --rollback"},
		{"garbage", CollectGarbage("14d"), "nix-collect-garbage --delete-older-than 14d"},
		{"diff", DiffClosures("/a", "/b"), nix + "store diff-closures /a /b"},
		{"sizes", ClosureSizes("/a", "/b"), nix + "path-info --json --closure-size /a /b"},
		{"init", Init("/etc/nixos", 0), "git -C /etc/nixos -c core.fsmonitor=false init --quiet"},
		{"add", flake.Add("-x.nix"), "git -C /etc/nixos -c core.fsmonitor=false add --intent-to-add -- -x.nix"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.c.String(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	for name, c := range map[string]run.Command{"nix": flake.Lock(), "git": flake.Add("x"), "rebuild": Rebuild{}.Command(flake), "install": flake.Install("H", "/mnt")} {
		if !slices.Equal(c.Env, []string{"SUDO_UID=1000"}) {
			t.Errorf("%s: environment = %q, want the owner as SUDO_UID", name, c.Env)
		}
	}
}

// TestFlakeIsNeverAPath: a path would copy secrets into the store.
func TestFlakeIsNeverAPath(t *testing.T) {
	for _, f := range []struct {
		flake Flake
		want  string
	}{
		{Flake{Top: "/etc/nixos"}, "git+file:///etc/nixos"},
		{Flake{Top: "/home/me/my dots #1?", Sub: "nix/a b"}, "git+file:///home/me/my%20dots%20%231%3F?dir=nix%2Fa+b"},
	} {
		if got := f.flake.URL(); got != f.want {
			t.Errorf("URL(%+v) = %s, want %s", f.flake, got, f.want)
		}
	}
}

// repository makes a folder with a flake.
func repository(t *testing.T) (host run.Runner, dir string) {
	t.Helper()
	root := t.TempDir()
	dir = filepath.Join(root, "flake")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "flake.nix"), "{ outputs = _: { }; }")
	return &run.Local{}, dir
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestRepository follows a folder from no repository to a clean flake, with the
// real git.
func TestRepository(t *testing.T) {
	host, dir := repository(t)
	ctx := t.Context()
	if _, err := Open(ctx, host, filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open(no flake.nix) = %v, want fs.ErrNotExist", err)
	}
	if _, err := Open(ctx, host, dir); !errors.Is(err, ErrNoRepository) {
		t.Fatalf("Open(no repository) = %v, want ErrNoRepository", err)
	}
	mustRun(t, host, Init(dir, os.Getuid()))
	f, err := Open(ctx, host, dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Flake{Top: dir, Owner: os.Getuid(), Group: os.Getgid()}); f != want {
		t.Errorf("Open() = %+v, want %+v", f, want)
	}
	write(t, filepath.Join(dir, "hosts/x86_64/A B.nix"), "{ }")
	write(t, filepath.Join(dir, "notes.txt"), "")
	expectTree(t, host, f, Tree{Untracked: []string{"flake.nix", "hosts/x86_64/A B.nix"}})
	mustRun(t, host, f.Add("flake.nix", "hosts/x86_64/A B.nix"))
	expectTree(t, host, f, Tree{Dirty: true})
	mustRun(t, host, run.New("git", "-C", dir, "-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", "-a", "-m", "x"))
	expectTree(t, host, f, Tree{})
	if f.IsLocked() {
		t.Error("IsLocked() without a flake.lock")
	}
	write(t, filepath.Join(dir, "flake.lock"), "{}")
	if !f.IsLocked() {
		t.Error("IsLocked() misses the flake.lock")
	}
}

// TestFlakeBelowTheRoot of its repository, which belongs to another user and is
// reached through a symlink.
func TestFlakeBelowTheRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	host, dir := repository(t)
	top := filepath.Dir(dir)
	mustRun(t, host, Init(top, 0))
	write(t, filepath.Join(top, "other.nix"), "")
	if out, err := exec.Command("chown", "-R", "1234", top).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	link := filepath.Join(t.TempDir(), "nixos")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), host, link)
	if err != nil {
		t.Fatalf("Open(somebody else's) = %v", err)
	}
	if want := (Flake{Top: top, Sub: "flake", Owner: 1234, Group: os.Getgid()}); f != want {
		t.Errorf("Open() = %+v, want %+v", f, want)
	}
	expectTree(t, host, f, Tree{Untracked: []string{"flake/flake.nix"}})
}

func mustRun(t *testing.T, r run.Runner, c run.Command) {
	t.Helper()
	if _, err := r.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func expectTree(t *testing.T, r run.Runner, f Flake, want Tree) {
	t.Helper()
	got, err := f.Inspect(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Inspect() (-want +got):\n%s", diff)
	}
}

func TestParseStatus(t *testing.T) {
	tree, err := parseStatus("R  new.nix\x00?? old.nix\x00?? real.nix\x00!! ignored.nix\x00?? b.txt\x00")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Tree{Untracked: []string{"real.nix"}, Dirty: true}, tree); diff != "" {
		t.Errorf("parseStatus() (-want +got):\n%s", diff)
	}
	for _, text := range []string{"x", "??x", "\x00", "M"} {
		if _, err := parseStatus(text); err == nil {
			t.Errorf("parseStatus(%q) is no error", text)
		}
	}
}

func TestAttributePath(t *testing.T) {
	for text, want := range map[string]AttributePath{
		"a":                     {"a"},
		"networking.hostName":   {"networking", "hostName"},
		`x."a.b \"c\"".y`:       {"x", `a.b "c"`, "y"},
		"users.users.x-y.a'":    {"users", "users", "x-y", "a'"},
		`"".x`:                  {"", "x"},
		`systemd."a\\b"`:        {"systemd", `a\b`},
		`environment."${HOME}"`: {"environment", "${HOME}"},
	} {
		got, err := ParseAttributePath(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ParseAttributePath(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", "a..b", `"a`, `"a"b`, `a"b"`, "a b", "a;b", "${x}", `"a\`} {
		if got, err := ParseAttributePath(text); !errors.Is(err, ErrAttribute) {
			t.Errorf("ParseAttributePath(%q) = %q, %v, want ErrAttribute", text, got, err)
		}
	}
}

func FuzzParseAttributePath(f *testing.F) {
	for _, seed := range []string{"a.b", `"a.b".c`, `"\""`, `x."${y}"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseAttributePath(text)
		if err != nil {
			return
		}
		again, err := ParseAttributePath(p.String())
		if err != nil || !slices.Equal(p, again) {
			t.Errorf("%q reads as %q, which is written %q and reads as %q, %v", text, p, p.String(), again, err)
		}
	})
}

func TestParseDiffClosures(t *testing.T) {
	text := "firefox: 120.0 → 121.0, \x1b[31;1m+1234.5 KiB\x1b[0m\n" +
		"hello: ∅ → 2.12, \x1b[31;1m+200.0 KiB\x1b[0m\n" +
		"cups: 2.4.7 → ∅, \x1b[32;1m-9000.0 KiB\x1b[0m\n" +
		"linux: \x1b[32;1m-300.0 KiB\x1b[0m\n" +
		"python3: 3.11.6, 3.12.1 → 3.11.7, ε\n" +
		"glibc-locales: +1.5 MiB\n\n"
	want := []PackageChange{
		{Name: "firefox", Kind: "changed", From: "120.0", To: "121.0", Bytes: 1264128},
		{Name: "hello", Kind: "added", To: "2.12", Bytes: 204800},
		{Name: "cups", Kind: "removed", From: "2.4.7", Bytes: -9216000},
		{Name: "linux", Kind: "changed", Bytes: -307200},
		{Name: "python3", Kind: "changed", From: "3.11.6, 3.12.1", To: "3.11.7"},
		{Name: "glibc-locales", Kind: "changed", Bytes: 1572864},
	}
	got, err := ParseDiffClosures(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseDiffClosures() (-want +got):\n%s", diff)
	}
	for _, text := range []string{"nothing", ": 1 → 2", "x: 1.2"} {
		if _, err := ParseDiffClosures(strings.NewReader(text)); err == nil {
			t.Errorf("ParseDiffClosures(%q) is no error", text)
		}
	}
}

func FuzzParseDiffClosures(f *testing.F) {
	f.Add("firefox: 120.0 → 121.0, \x1b[31;1m+1234.5 KiB\x1b[0m\nlinux: -300.0 KiB")
	f.Add("a: ∅ → ε")
	f.Fuzz(func(t *testing.T, text string) {
		changes, err := ParseDiffClosures(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, change := range changes {
			if change.Name == "" || !slices.Contains([]string{"added", "removed", "changed"}, change.Kind) {
				t.Errorf("%q gives %+v", text, change)
			}
		}
	})
}

func TestParseClosureSizes(t *testing.T) {
	want := map[string]int64{"/nix/store/a": 5, "/nix/store/b": 7 << 30}
	for name, text := range map[string]string{
		"object": `{"/nix/store/a": {"closureSize": 5, "narSize": 1}, "/nix/store/b": {"closureSize": 7516192768}, "/nix/store/c": null}`,
		"list":   `[{"path": "/nix/store/a", "closureSize": 5}, {"path": "/nix/store/b", "closureSize": 7516192768}]`,
	} {
		got, err := ParseClosureSizes(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := ParseClosureSizes(strings.NewReader("error")); err == nil {
		t.Error("ParseClosureSizes(no JSON) is no error")
	}
}

func FuzzParseClosureSizes(f *testing.F) {
	f.Add(`{"/nix/store/a": {"closureSize": 5}}`)
	f.Add(`[{"path": "/nix/store/a", "closureSize": 5}]`)
	f.Fuzz(func(t *testing.T, text string) {
		if sizes, err := ParseClosureSizes(strings.NewReader(text)); err == nil && sizes == nil {
			t.Errorf("%q gives neither sizes nor an error", text)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("R  new.nix\x00old.nix\x00?? real.nix\x00")
	f.Fuzz(func(t *testing.T, text string) {
		tree, err := parseStatus(text)
		if err != nil {
			return
		}
		for _, name := range tree.Untracked {
			if filepath.Ext(name) != ".nix" {
				t.Errorf("%q gives the untracked %q", text, name)
			}
		}
	})
}
