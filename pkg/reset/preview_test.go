package reset

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/testx/history"
	"nixos-go/pkg/testx/model"
)

// preview is Preview of all volumes, which must succeed.
func (m *machine) preview(options PreviewOptions) []*VolumePreview {
	m.t.Helper()
	top := m.hold(m.top)
	defer top.Close()
	list, err := Preview(top, m.plan, options)
	if err != nil {
		m.t.Fatalf("Preview(%+v) = %v", options, err)
	}
	for _, p := range list {
		if p.Err != nil {
			m.t.Fatalf("Preview(%+v): %s: %v", options, p.Volume.Name, p.Err)
		}
	}
	return list
}

func closeAll(list []*VolumePreview) {
	for _, p := range list {
		p.Close()
	}
}

// A preview of a mounted volume, while another run holds the lock, is that of the
// reset, and changes nothing.
func TestPreviewLooksOnly(t *testing.T) {
	v := PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/etc/ssh"}}
	m := newMachine(t, newDisk(t, 512<<20), v)
	m.sh("@root", `mkdir -p etc/ssh; echo host > etc/hostname`)
	m.takeClean()
	m.run(Options{})
	m.sh("@root", `echo x > etc/hostname; mkdir -p tmp/a; echo 12345 > tmp/a/b; echo k > etc/ssh/key`)
	m.syncTop()
	point := t.TempDir()
	if err := unix.Mount(m.path("@root"), point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	}()
	lock := m.hold(m.path(DefaultSnapshots))
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before := m.info("@root")
	dry := m.run(Options{DryRun: true})

	list := m.preview(PreviewOptions{})
	defer closeAll(list)
	var got []string
	for _, c := range list[0].Plan.Changes {
		if !c.OnlyTime() {
			got = append(got, string(c.Kind)+" "+c.Path)
		}
	}
	if want := []string{"modified /etc/hostname", "added /tmp"}; !slices.Equal(got, want) {
		t.Errorf("Preview lists %q, want %q", got, want)
	}
	if diff := cmp.Diff(changeLines(dry.Volumes[0].Changes), changeLines(list[0].Plan.Changes)); diff != "" {
		t.Errorf("a dry run (-) and a preview (+) differ:\n%s", diff)
	}
	if list[0].Plan.Way != WayChanged {
		t.Errorf("way = %s, want %s", list[0].Plan.Way, WayChanged)
	}
	if after := m.info("@root"); after != before {
		t.Errorf("after Preview the volume is %+v, was %+v", after, before)
	}
	if e, err := list[0].Live.Stat("/tmp/a/b"); err != nil || e.Size != 6 || e.IsDir() {
		t.Errorf("Live.Stat(/tmp/a/b) = %+v, %v, want a file of 6 bytes", e, err)
	}
	if _, err := list[0].Base.Stat("/tmp/a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Base.Stat(/tmp/a/b) = %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := list[0].Live.Stat("/etc/hostname/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Live.Stat below a file = %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := list[0].Live.Open("/tmp"); !errors.Is(err, errNotRegular) {
		t.Errorf("Live.Open(/tmp) = %v, want %v", err, errNotRegular)
	}

	// What keeps a reset from being made stands in the way of its preview too.
	top := m.hold(m.top)
	defer top.Close()
	if _, err := Preview(top, m.plan, PreviewOptions{Volumes: []string{"@none"}}); !errors.Is(err, ErrPlanFile) {
		t.Errorf("Preview of @none = %v, want %v", err, ErrPlanFile)
	}
	m.plan.Clean = "ELSE"
	broken, err := Preview(top, m.plan, PreviewOptions{})
	if err != nil || broken[0].Err == nil || !strings.Contains(broken[0].Err.Error(), "there is no ELSE") {
		t.Errorf("Preview without the factory state = %v, %v, want an error of the volume", broken[0].Err, err)
	}
	closeAll(broken)
	m.plan.Snapshots = "@none"
	if _, err := Preview(top, m.plan, PreviewOptions{}); !errors.Is(err, ErrCheck) {
		t.Errorf("Preview without snapshots = %v, want %v", err, ErrCheck)
	}
}

// Things come and go while a volume is looked at.
func TestPreviewOfVolumeInUse(t *testing.T) {
	v := PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/kept"}, Exclude: []string{"/kept/*/x"}}
	m := newMachine(t, newDisk(t, 512<<20), v)
	m.sh("@root", `mkdir -p usr kept/d; for i in $(seq 300); do echo $i > usr/$i; done`)
	m.takeClean()
	m.run(Options{})
	stop := make(chan struct{})
	stopped := make(chan error, 1)
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := churn(m.path("@root"), i); err != nil {
				stopped <- err
				return
			}
		}
	}()
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		for _, o := range []PreviewOptions{{}, {Kept: true}, {SinceBoot: true}, {Kept: true, SinceBoot: true}} {
			list := m.preview(o)
			for _, c := range list[0].Plan.Changes {
				if err := list[0].Live.Walk(c.Path, func(*Entry) error { return nil }); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Walk(%q) = %v", c.Path, err)
				}
			}
			closeAll(list)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// churn makes, changes, renames and deletes files, directories and links.
func churn(root string, i int) error {
	dir := filepath.Join(root, []string{"usr", "tmp", "kept/d"}[i%3], "churn"+strconv.Itoa(i%7))
	file := filepath.Join(root, "usr", strconv.Itoa(1+i%300))
	return errors.Join(
		os.MkdirAll(filepath.Join(dir, "x"), 0o755),
		os.WriteFile(filepath.Join(dir, "x", "f"), []byte(strconv.Itoa(i)), 0o644),
		os.WriteFile(file, []byte(strconv.Itoa(i)), 0o644),
		os.RemoveAll(filepath.Join(root, "linked")),
		os.Link(file, filepath.Join(root, "linked")),
		os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "y")),
		os.RemoveAll(dir),
		os.Remove(file),
		os.WriteFile(file, []byte("x"), 0o644),
	)
}

// TestKeptAgreesWithModel holds what a preview says of kept paths against a plain
// comparison of all paths, since CLEAN and since the boot.
func TestKeptAgreesWithModel(t *testing.T) {
	top := newDisk(t, 1<<30)
	for _, seed := range seeds(t, 12) {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) { keptHistory(t, top, seed) })
	}
}

func keptHistory(t *testing.T, top string, seed uint64) {
	t.Helper()
	source := history.NewSource(seed)
	gen := history.New(source)
	v := PlanFileVolume{Name: "@k" + strconv.FormatUint(seed, 10), MountPoint: "/", KeepNothing: true}
	m := newMachineIn(t, top, v)
	defer m.destroy()
	live := m.path(v.Name)
	change := func(steps int) {
		t.Helper()
		if ops, err := gen.Mutate(live, steps); err != nil {
			t.Fatalf("%v\n%s", err, history.Format(ops))
		}
	}
	if _, err := gen.Populate(live, 30+source.IntN(40)); err != nil {
		t.Fatal(err)
	}
	m.takeClean()
	change(10)
	var err error
	if v.Keep, v.Exclude, err = gen.Rules(live); err != nil {
		t.Fatal(err)
	}
	t.Logf("keep %q exclude %q", v.Keep, v.Exclude)
	m.plan.Volumes[0] = v
	for range 3 {
		change(5 + source.IntN(30))
		m.run(Options{})
		booted := m.read(filepath.Join(DefaultSnapshots, v.Name, NameCurrent))
		change(5 + source.IntN(30))
		now := m.read(v.Name)
		clean := m.read(filepath.Join(DefaultSnapshots, v.Name, NameClean))
		m.checkKept(PreviewOptions{Kept: true}, clean, now)
		m.checkKept(PreviewOptions{Kept: true, SinceBoot: true}, booted, now)
		m.checkWalk(now)
		m.checkSinceBoot()
	}
}

// checkSinceBoot compares what a preview lists since the boot with a full comparison.
func (m *machine) checkSinceBoot() {
	m.t.Helper()
	list := m.preview(PreviewOptions{SinceBoot: true})
	defer closeAll(list)
	p := list[0]
	full, err := MakePlan(Sources{Live: p.Live.root, Clean: p.Base.root}, p.matcher)
	if err != nil {
		m.t.Fatal(err)
	}
	if p.Plan.Way != WayChanged {
		m.t.Errorf("way since the boot = %s, want %s", p.Plan.Way, WayChanged)
	}
	if diff := cmp.Diff(changeLines(full.Changes), changeLines(p.Plan.Changes)); diff != "" {
		m.t.Errorf("since the boot, the full plan (-) and the short one (+) differ:\n%s", diff)
	}
}

func changeLines(changes []Change) []string {
	out := make([]string, 0, len(changes))
	for _, c := range changes {
		out = append(out, string(c.Kind)+" "+c.Path+" "+c.Fields.String())
	}
	return out
}

// checkKept compares a preview of kept paths with what the model sees of them. What the
// model cannot tell is left out: what lies in nested subvolumes, of which a snapshot
// shows a stub.
func (m *machine) checkKept(options PreviewOptions, base, now model.Tree) {
	m.t.Helper()
	list := m.preview(options)
	defer closeAll(list)
	p := list[0]
	listed := map[string]Kind{}
	for _, c := range p.Plan.Changes {
		path := strings.TrimPrefix(c.Path, "/")
		if !p.Kept(c.Path) {
			m.t.Errorf("%+v: %q is listed and not kept", options, path)
		}
		listed[path] = c.Kind
	}
	opaque := func(path string) bool {
		for at := path; ; at = at[:max(0, strings.LastIndexByte(at, '/'))] {
			if b, n := base[at], now[at]; b.Stub || n.Stub || n.Subvolume || b.Subvolume {
				return true
			}
			if at == "" {
				return false
			}
		}
	}
	baseLinks, nowLinks := linkCounts(base), linkCounts(now)
	all := maps.Clone(base)
	maps.Copy(all, now)
	for path := range all {
		if path == "" || opaque(path) || !p.Kept("/"+path) {
			continue
		}
		want := kindOf(base, now, baseLinks, nowLinks, path)
		if got := listed[path]; got != want && !coveredAbove(listed, path, want) {
			m.t.Errorf("%+v: %q is listed as %q, want %q", options, path, got, want)
		}
	}
}

// coveredAbove reports whether a directory above that came or went as a whole, or
// became something else, stands for a change.
func coveredAbove(listed map[string]Kind, path string, want Kind) bool {
	for path != "" {
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
		if above := listed[path]; above == KindType || above != "" && above == want && (want == KindAdded || want == KindDeleted) {
			return true
		}
	}
	return false
}

func kindOf(base, now model.Tree, baseLinks, nowLinks map[string]int, path string) Kind {
	b, before := base[path]
	n, after := now[path]
	switch {
	case !before:
		return KindAdded
	case !after:
		return KindDeleted
	case b.Type != n.Type:
		return KindType
	case b.Hash != n.Hash || b.Size != n.Size || b.Target != n.Target || b.Rdev != n.Rdev || baseLinks[path] != nowLinks[path]:
		return KindModified
	case b.Mode != n.Mode || b.UID != n.UID || b.GID != n.GID || b.Flags != n.Flags || b.MTime != n.MTime || !maps.Equal(b.Xattrs, n.Xattrs):
		return KindMetadata
	}
	return ""
}

// linkCounts tells how many names the inode of each path has.
func linkCounts(t model.Tree) map[string]int {
	names := map[string]int{}
	for _, e := range t {
		names[e.Inode]++
	}
	counts := map[string]int{}
	for path, e := range t {
		counts[path] = 1
		if e.Inode != "" && !e.IsDir() {
			counts[path] = names[e.Inode]
		}
	}
	return counts
}

// checkWalk compares what a Side shows of the live volume with the model.
func (m *machine) checkWalk(now model.Tree) {
	m.t.Helper()
	list := m.preview(PreviewOptions{NoPlan: true})
	defer closeAll(list)
	side := list[0].Live
	seen := 0
	err := side.Walk("/", func(e *Entry) error {
		seen++
		path := strings.TrimPrefix(e.Path, "/")
		want, ok := now[path]
		if !ok {
			m.t.Errorf("Walk shows %q, which is not there", path)
			return nil
		}
		size := uint64(want.Size)
		if want.Type == unix.S_IFLNK {
			size = uint64(len(want.Target))
		}
		nested := want.Subvolume || want.Stub
		switch {
		case e.Mode&modeType != want.Type, e.Size != size, e.Target != want.Target, e.Nested != nested:
			m.t.Errorf("Walk shows %q as %+v, want %+v", path, e, want)
		case !want.Stub && (e.Mode&^modeType != want.Mode || e.UID != want.UID || e.GID != want.GID ||
			e.MTime != btrfs.Timespec{Sec: unix.NsecToTimespec(want.MTime).Sec, Nsec: uint32(unix.NsecToTimespec(want.MTime).Nsec)}):
			m.t.Errorf("Walk shows %q as %+v, want %+v", path, e, want)
		}
		if again, err := side.Stat(e.Path); err != nil || *again != *e {
			m.t.Errorf("Stat(%q) = %+v, %v, want what Walk shows, %+v", e.Path, again, err, e)
		}
		return nil
	})
	if err != nil || seen != len(now) {
		m.t.Errorf("Walk shows %d paths, %v, want %d", seen, err, len(now))
	}
}
