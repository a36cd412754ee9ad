package factory

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
)

const diskSize = 256 << 20

// disk is a file system with the subvolumes @root and @snapshots, and its top
// level opened.
func disk(t *testing.T) (mount string, top *os.File) {
	t.Helper()
	mount = testx.Disk(t, diskSize)
	top, err := os.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { top.Close() })
	for _, name := range []string{"@root", "@snapshots"} {
		must(t, btrfs.Create(top, name))
	}
	return mount, top
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, base string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(base, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(path, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(name), 0o644))
	}
}

// list names everything below a directory.
func list(t *testing.T, base string) []string {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == base {
			return err
		}
		name := strings.TrimPrefix(path, base)
		if entry.IsDir() {
			name += "/"
		}
		names = append(names, name)
		return nil
	}))
	slices.Sort(names)
	return names
}

func plan(keeps, excludes []string) *reset.PlanFile {
	return &reset.PlanFile{
		Version: 1, Snapshots: "@snapshots", Clean: "CLEAN",
		Volumes: []reset.PlanFileVolume{{Name: "@root", MountPoint: "/", Keep: keeps, Exclude: excludes}},
	}
}

func takeOne(t *testing.T, top *os.File, p *reset.PlanFile) Result {
	t.Helper()
	result, err := Take(t.Context(), top, p, p.Volumes[0])
	must(t, err)
	return result
}

// TestTake leaves out what is kept, and only that:
//
//	/etc/{passwd,machine-id} /etc/ssh/{sshd_config,ssh_host_key}   machine-id, ssh_host_* kept
//	/var/lib/nixos-go/secrets/hash                                 /var/lib/nixos-go kept
//	/home/ann/app/{state,Cache/{a,sub/b}} /home/bob/app/state      /home/*/app kept, its Cache excluded
//	/.boot-ready /.immutability-trash/old                          the reset's own
func TestTake(t *testing.T) {
	mount, top := disk(t)
	live := filepath.Join(mount, "@root")
	put(t, live, "etc/passwd", "etc/machine-id", "etc/ssh/sshd_config", "etc/ssh/ssh_host_key",
		"var/lib/nixos-go/secrets/hash", "home/ann/app/state", "home/ann/app/Cache/a", "home/ann/app/Cache/sub/b",
		"home/bob/app/state", "home/bob/.profile", ".boot-ready", ".immutability-trash/old")
	must(t, os.Symlink("/etc/passwd", filepath.Join(live, "etc/link")))
	before := list(t, live)

	p := plan([]string{"/etc/machine-id", "/etc/ssh/ssh_host_*", "/var/lib/nixos-go", "/home/*/app", "/nowhere"},
		[]string{"/home/*/app/Cache"})
	result := takeOne(t, top, p)
	if want := (Result{Volume: "@root", LeftOut: 5}); result != want {
		t.Errorf("Take() = %+v, want %+v", result, want)
	}
	clean := filepath.Join(mount, "@snapshots/@root/CLEAN")
	want := []string{
		"/etc/", "/etc/link", "/etc/passwd", "/etc/ssh/", "/etc/ssh/sshd_config",
		"/home/", "/home/ann/", "/home/ann/app/", "/home/ann/app/Cache/", "/home/ann/app/Cache/a",
		"/home/ann/app/Cache/sub/", "/home/ann/app/Cache/sub/b", "/home/bob/", "/home/bob/.profile",
		"/var/", "/var/lib/",
	}
	if diff := cmp.Diff(want, list(t, clean)); diff != "" {
		t.Errorf("CLEAN (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, list(t, live)); diff != "" {
		t.Errorf("the live volume changed (-want +got):\n%s", diff)
	}
	f, err := os.Open(clean)
	must(t, err)
	defer f.Close()
	if is, err := btrfs.ReadOnly(f); !is || err != nil {
		t.Errorf("CLEAN is read-only: %v, %v", is, err)
	}
	info, err := os.Stat(filepath.Join(mount, "@snapshots"))
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the snapshots subvolume has mode %04o, want 0700", info.Mode().Perm())
	}

	// The first reset wipes what is new, and has all it needs from this CLEAN.
	put(t, live, "etc/new", "etc/ssh/ssh_host_new", "home/ann/app/new", "home/ann/app/Cache/new")
	must(t, os.Remove(filepath.Join(live, "etc/passwd")))
	report, err := reset.Run(top, p, reset.Options{})
	must(t, err)
	if report.Failed() {
		t.Fatalf("the reset: %+v", report.Volumes)
	}
	want = slices.DeleteFunc(append(before, "/etc/ssh/ssh_host_new", "/home/ann/app/new", "/.boot-ready"),
		func(name string) bool { return strings.Contains(name, ".immutability-trash") })
	slices.Sort(want)
	after := slices.DeleteFunc(list(t, live), func(name string) bool { return strings.Contains(name, ".immutability-trash") })
	if diff := cmp.Diff(slices.Compact(want), after); diff != "" {
		t.Errorf("after a reset (-want +got):\n%s", diff)
	}
}

func TestTimesAndFlagsOfAncestorsStay(t *testing.T) {
	mount, top := disk(t)
	live := filepath.Join(mount, "@root")
	put(t, live, "etc/machine-id", "etc/other", "var/empty/locked/x", "srv/")
	old := time.Unix(1_700_000_000, 123_456_789)
	for _, name := range []string{"etc", "."} {
		must(t, os.Chtimes(filepath.Join(live, name), old, old))
	}
	lock(t, filepath.Join(live, "var/empty/locked/x"), btrfs.FlagImmutable)
	lock(t, filepath.Join(live, "var/empty/locked"), btrfs.FlagImmutable)
	lock(t, filepath.Join(live, "etc"), btrfs.FlagAppend)

	takeOne(t, top, plan([]string{"/etc/machine-id", "/var/empty/locked"}, nil))
	clean := filepath.Join(mount, "@snapshots/@root/CLEAN")
	if diff := cmp.Diff([]string{"/etc/", "/etc/other", "/srv/", "/var/", "/var/empty/"}, list(t, clean)); diff != "" {
		t.Errorf("CLEAN (-want +got):\n%s", diff)
	}
	for _, name := range []string{"etc", "."} {
		info, err := os.Stat(filepath.Join(clean, name))
		must(t, err)
		if !info.ModTime().Equal(old) {
			t.Errorf("%s: time %v, want %v", name, info.ModTime(), old)
		}
	}
	f, err := os.Open(filepath.Join(clean, "etc"))
	must(t, err)
	defer f.Close()
	if flags, err := btrfs.Flags(f); err != nil || flags&btrfs.FlagAppend == 0 {
		t.Errorf("etc has flags %#x, %v, want the one for appending", flags, err)
	}
}

// lock sets flags until the test ends.
func lock(t *testing.T, path string, flags uint32) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	must(t, btrfs.SetFlags(f, flags))
	t.Cleanup(func() {
		_ = btrfs.SetFlags(f, 0)
		f.Close()
	})
}

// TestTakeAgain: the new CLEAN replaces the old, which waits for the cleanup.
func TestTakeAgain(t *testing.T) {
	mount, top := disk(t)
	put(t, filepath.Join(mount, "@root"), "first")
	takeOne(t, top, plan([]string{"/k"}, nil))
	put(t, filepath.Join(mount, "@root"), "second")
	if result := takeOne(t, top, plan([]string{"/k"}, nil)); !result.Replaced {
		t.Errorf("Take() = %+v, want Replaced", result)
	}
	folder := filepath.Join(mount, "@snapshots/@root")
	if diff := cmp.Diff([]string{"/first", "/second"}, list(t, filepath.Join(folder, "CLEAN"))); diff != "" {
		t.Errorf("CLEAN (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(folder)
	must(t, err)
	if len(entries) != 2 || !reset.IsAged(entries[0].Name()) {
		t.Errorf("the folder holds %v, want CLEAN and an aged snapshot", entries)
	}
}

// TestNestedSubvolumes leave an empty stub in a snapshot; below a kept path it
// goes like anything else.
func TestNestedSubvolumes(t *testing.T) {
	mount, top := disk(t)
	live := filepath.Join(mount, "@root")
	put(t, live, "var/lib/kept/", "var/other/")
	for _, name := range []string{"var/lib/kept", "var/other"} {
		dir, err := os.Open(filepath.Join(live, name))
		must(t, err)
		must(t, btrfs.Create(dir, "nested"))
		must(t, dir.Close())
	}
	takeOne(t, top, plan([]string{"/var/lib/kept"}, nil))
	want := []string{"/var/", "/var/lib/", "/var/other/", "/var/other/nested/"}
	if diff := cmp.Diff(want, list(t, filepath.Join(mount, "@snapshots/@root/CLEAN"))); diff != "" {
		t.Errorf("CLEAN (-want +got):\n%s", diff)
	}
}

// TestFailureLeavesTheOldClean and nothing beside it.
func TestFailureLeavesTheOldClean(t *testing.T) {
	mount, top := disk(t)
	put(t, filepath.Join(mount, "@root"), "first", "dir/x")
	takeOne(t, top, plan([]string{"/dir"}, nil))
	put(t, filepath.Join(mount, "@root"), "second")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := plan([]string{"/dir"}, nil)
	if _, err := Take(ctx, top, p, p.Volumes[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("Take(ended context) = %v, want context.Canceled", err)
	}
	folder := filepath.Join(mount, "@snapshots/@root")
	if diff := cmp.Diff([]string{"/CLEAN/", "/CLEAN/first"}, list(t, folder)); diff != "" {
		t.Errorf("the folder (-want +got):\n%s", diff)
	}
}

func TestRefusals(t *testing.T) {
	mount, top := disk(t)
	must(t, os.Mkdir(filepath.Join(mount, "@plain"), 0o755))
	p := plan([]string{"/k"}, nil)
	for name, test := range map[string]struct {
		change func(*reset.PlanFile)
		want   string
		is     error
	}{
		"no volume":         {func(p *reset.PlanFile) { p.Volumes[0].Name = "@none" }, "@none", unix.ENOENT},
		"a plain directory": {func(p *reset.PlanFile) { p.Volumes[0].Name = "@plain" }, "is a plain directory, not a subvolume", nil},
		"no snapshots":      {func(p *reset.PlanFile) { p.Snapshots = "@none" }, "@none", unix.ENOENT},
		"a bad rule":        {func(p *reset.PlanFile) { p.Volumes[0].Keep = []string{"/a/../b"} }, "..", nil},
	} {
		changed := *p
		changed.Volumes = slices.Clone(p.Volumes)
		test.change(&changed)
		_, err := Take(t.Context(), top, &changed, changed.Volumes[0])
		if err == nil || !strings.Contains(err.Error(), test.want) || (test.is != nil && !errors.Is(err, test.is)) {
			t.Errorf("%s: Take() = %v, want %q", name, err, test.want)
		}
	}
	must(t, os.MkdirAll(filepath.Join(mount, "@snapshots/@root/CLEAN"), 0o755))
	if _, err := Take(t.Context(), top, p, p.Volumes[0]); err == nil || !strings.Contains(err.Error(), "plain directory") {
		t.Errorf("a CLEAN that is a plain directory: Take() = %v", err)
	}
	if entries := list(t, filepath.Join(mount, "@snapshots/@root")); len(entries) != 1 {
		t.Errorf("a refusal left %v behind", entries)
	}
}
