package reset

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/model"
)

// A box is a machine on a disk of its own, after a first boot and a day of work:
//
//	top/@root    keeps /etc/ssh
//	top/@home    keeps /*/Documents
//	top/@other   belongs to nobody here
//	top/canary   neither
type box struct {
	*machine

	fs *testx.Filesystem
}

func boxVolumes() []PlanFileVolume {
	return []PlanFileVolume{
		{Name: "@root", MountPoint: "/", Keep: []string{"/etc/ssh"}},
		{Name: "@home", MountPoint: "/home", Keep: []string{"/*/Documents"}},
	}
}

func newBox(tb testing.TB, options ...testx.Option) *box {
	tb.Helper()
	b := bareBox(tb, options...)
	b.sh("@root", `mkdir -p etc/ssh var/log usr; echo host > etc/hostname; echo clean > usr/bin`)
	b.sh("@home", `mkdir -p alice; echo rc > alice/.bashrc; chown -R 1000:1000 alice`)
	b.takeClean()
	b.work("monday")
	b.run(Options{})
	b.work("tuesday")
	return b
}

// bareBox has empty volumes, and no CLEAN.
func bareBox(tb testing.TB, options ...testx.Option) *box {
	tb.Helper()
	hangs(tb)
	fs := testx.NewFilesystem(tb, 256<<20, options...)
	fs.Remount("noatime")
	b := &box{newMachine(tb, fs.Mount, boxVolumes()...), fs}
	b.create("@other")
	b.sh("@other", `echo other > file; mkfifo fifo; ln file link`)
	b.sh("", `mkdir canary; echo canary > canary/file; ln -s file canary/link`)
	return b
}

// work is a day's work in both volumes; calling it again with another word is
// another day.
func (b *box) work(word string) {
	b.t.Helper()
	b.sh("@root", `echo `+word+` > etc/ssh/key; echo `+word+` > etc/hostname; mkdir -p var/log/`+word+`; echo > var/log/`+word+`/log`)
	b.sh("@home", `mkdir -p alice/Documents alice/.cache; echo `+word+` > alice/Documents/letter; echo `+word+` >> alice/.bashrc; echo > alice/.cache/`+word)
	b.syncTop()
}

// hangs ends the whole program where a test takes minutes: what a hostile name
// blocks, nothing else would end.
func hangs(tb testing.TB) {
	tb.Helper()
	watchdog := time.AfterFunc(5*time.Minute, func() { panic(tb.Name() + " hangs") })
	tb.Cleanup(func() { watchdog.Stop() })
}

// everything is all that the disk holds, each subvolume with its UUID.
func (m *machine) everything() model.Tree {
	m.t.Helper()
	m.syncTop()
	return m.read("")
}

// generations are those of every subvolume: what nothing was written to has the same.
func (m *machine) generations() map[string]uint64 {
	m.t.Helper()
	out := map[string]uint64{}
	for path, e := range m.everything() {
		if e.Subvolume || path == "" {
			out[path] = m.info(path).Generation
		}
	}
	return out
}

// only gives the part of a tree at or below some paths, and without only the rest.
func only(tree model.Tree, paths ...string) model.Tree { return part(tree, true, paths) }

func without(tree model.Tree, paths ...string) model.Tree { return part(tree, false, paths) }

func part(tree model.Tree, inside bool, paths []string) model.Tree {
	out := model.Tree{}
	for path, e := range tree {
		in := false
		for _, p := range paths {
			in = in || path == p || strings.HasPrefix(path, p+"/")
		}
		if in == inside {
			out[path] = e
		}
	}
	return out
}

// same fails the test where two trees differ.
func (m *machine) same(what string, want, got model.Tree) {
	m.t.Helper()
	if diff := model.Diff(want, got); diff != "" {
		m.t.Fatalf("%s:\n%s", what, diff)
	}
}

// try runs the engine, whatever comes of it.
func (m *machine) try(options Options) (*Report, error) {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	return Run(top, m.plan, options)
}

// result finds what a run did to a volume.
func (m *machine) result(r *Report, name string) *Result {
	m.t.Helper()
	for i := range r.Volumes {
		if r.Volumes[i].Name == name {
			return &r.Volumes[i]
		}
	}
	m.t.Fatalf("the report has no volume %q: %+v", name, r)
	return nil
}

// spec finds a volume of the plan.
func (m *machine) spec(name string) *PlanFileVolume {
	m.t.Helper()
	for i := range m.plan.Volumes {
		if m.plan.Volumes[i].Name == name {
			return &m.plan.Volumes[i]
		}
	}
	m.t.Fatalf("the plan has no volume %q", name)
	return nil
}

// expect says what a reset makes of a volume now.
func (m *machine) expect(volume string) model.Tree {
	m.t.Helper()
	v := m.spec(volume)
	return model.Expect(m.read(volume), m.read(snapshotOf(volume, m.plan.Clean)), v.Keep, v.Exclude)
}

func (m *machine) setFlags(path string, flags uint32) {
	m.t.Helper()
	f, err := os.OpenFile(m.path(path), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	if err := btrfs.SetFlags(f, flags); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) setReadOnly(path string, readOnly bool) {
	m.t.Helper()
	f := m.hold(m.path(path))
	defer f.Close()
	if err := btrfs.SetReadOnly(f, readOnly); err != nil {
		m.t.Fatal(err)
	}
}

// mv renames; what is not there is left out.
func (m *machine) mv(from, to string) {
	m.t.Helper()
	if err := os.Rename(m.path(from), m.path(to)); err != nil && !os.IsNotExist(err) {
		m.t.Fatal(err)
	}
}

func (m *machine) destroyTree(path string) {
	m.t.Helper()
	dir := m.hold(filepath.Dir(m.path(path)))
	defer dir.Close()
	if err := destroyTree(dir, filepath.Base(path)); err != nil {
		m.t.Fatal(err)
	}
}

// mount mounts on a new directory until the test ends.
func (m *machine) mount(source, kind string, flags uintptr, data string) string {
	m.t.Helper()
	point := m.t.TempDir()
	if err := unix.Mount(source, point, kind, flags, data); err != nil {
		m.t.Fatalf("mount %s on %s: %v", source, point, err)
	}
	m.t.Cleanup(func() { m.unmount(point) })
	return point
}

func (m *machine) unmount(point string) {
	err := unix.Unmount(point, 0)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT { // unmounted by the test
		m.t.Errorf("unmount %s: %v", point, err)
	}
}

// command runs a program that must succeed, and gives its output.
func command(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
