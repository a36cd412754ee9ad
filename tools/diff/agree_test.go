package diff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/history"
	"nixos-go/pkg/testx/model"
	"nixos-go/pkg/ui"
)

// machine is a file system with one volume, which stays mounted and in use while
// nixos-diff looks at it.
type machine struct {
	t      testing.TB
	fs     *testx.Filesystem
	root   string // of the machine's other files
	volume reset.PlanFileVolume
	plan   reset.PlanFile
}

func newMachine(tb testing.TB, fs *testx.Filesystem, name string) *machine {
	tb.Helper()
	m := &machine{t: tb, fs: fs, root: tb.TempDir(), volume: reset.PlanFileVolume{Name: name, MountPoint: "/", KeepNothing: true}}
	m.plan = reset.PlanFile{Version: 1, Device: fs.Device, Snapshots: reset.DefaultSnapshots, Clean: reset.NameClean, Revision: 1}
	if _, err := os.Stat(m.path(reset.DefaultSnapshots)); err != nil {
		m.create(reset.DefaultSnapshots)
	}
	m.create(name)
	return m
}

func (m *machine) path(parts ...string) string {
	return filepath.Join(append([]string{m.fs.Mount}, parts...)...)
}

func (m *machine) live() string { return m.path(m.volume.Name) }

func (m *machine) create(name string) {
	m.t.Helper()
	top := m.top()
	defer top.Close()
	if err := btrfs.Create(top, name); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) top() *os.File {
	m.t.Helper()
	top, err := os.Open(m.fs.Mount)
	if err != nil {
		m.t.Fatal(err)
	}
	return top
}

func (m *machine) takeClean() {
	m.t.Helper()
	top := m.top()
	defer top.Close()
	plan := m.plan
	plan.Volumes = []reset.PlanFileVolume{{Name: m.volume.Name, MountPoint: "/", KeepNothing: true}} // all of it
	if err := reset.TakeClean(m.t.Context(), top, &plan, m.volume.Name, reset.CleanupOptions{}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) rules(keep, exclude []string) {
	m.t.Helper()
	m.volume.Keep, m.volume.Exclude = append([]string{}, keep...), append([]string{}, exclude...)
	m.plan.Volumes = []reset.PlanFileVolume{m.volume}
	m.plan.Revision++
	text, err := json.Marshal(m.plan)
	if err != nil {
		m.t.Fatal(err)
	}
	file := filepath.Join(m.root, "etc/immutability/plan.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read() model.Tree {
	m.t.Helper()
	tree, err := model.Read(m.live())
	if err != nil {
		m.t.Fatal(err)
	}
	return tree
}

func (m *machine) reset() {
	m.t.Helper()
	top := m.top()
	defer top.Close()
	report, err := reset.Run(top, &m.plan, reset.Options{})
	if err != nil || report.Failed() {
		m.t.Fatalf("Run() = %v, %+v", err, report)
	}
}

// diff runs the tool.
func (m *machine) diff(args ...string) (stdout, stderr string, status int) {
	m.t.Helper()
	var out, messages bytes.Buffer
	env := clikit.System()
	env.UI = ui.New(&out, &messages, ui.Options{})
	env.Host.Files = run.Below(m.root)
	env.UID = 0
	status = clikit.Run(m.t.Context(), newApp(env), args, env.UI)
	return out.String(), messages.String(), status
}

// report runs the tool with --json.
func (m *machine) report(args ...string) report {
	m.t.Helper()
	stdout, stderr, status := m.diff(append(args, "--json")...)
	if status != 0 {
		m.t.Fatalf("nixos-diff %q: status %d\n%s", args, status, stderr)
	}
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		m.t.Fatal(err)
	}
	return r
}

// findings are a report's by path, as a model.Tree has paths.
func (m *machine) findings(r report) map[string]findingReport {
	m.t.Helper()
	found := map[string]findingReport{}
	for _, f := range r.Findings {
		path, err := f.Bytes()
		if err != nil {
			m.t.Fatal(err)
		}
		path = strings.TrimPrefix(path, "/")
		if _, twice := found[path]; twice {
			m.t.Errorf("%q is listed twice", path)
		}
		found[path] = f
	}
	return found
}

// TestListsWhatTheResetChanges lets random things happen to a volume, asks nixos-diff,
// resets the volume, and holds what was listed against what has changed, path by path.
// NIXOS_GO_SEED runs one seed, NIXOS_GO_HISTORIES more of them.
func TestListsWhatTheResetChanges(t *testing.T) {
	first, count := number(t, "NIXOS_GO_SEED", 1), number(t, "NIXOS_GO_HISTORIES", 12)
	if os.Getenv("NIXOS_GO_SEED") != "" {
		count = 1
	}
	fs := testx.NewFilesystem(t, 1<<30, testx.WithMountOptions("noatime"))
	for seed := first; seed < first+count; seed++ {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
			agree(t, newMachine(t, fs, "@v"+strconv.FormatUint(seed, 10)), seed)
		})
	}
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func agree(t *testing.T, m *machine, seed uint64) {
	t.Helper()
	source := history.NewSource(seed)
	gen := history.New(source)
	log := func(ops []history.Op, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\n%s", err, history.Format(ops))
		}
		if testing.Verbose() {
			t.Log("\n" + history.Format(ops))
		}
	}
	log(gen.Populate(m.live(), 30+source.IntN(40)))
	m.takeClean()
	log(gen.Mutate(m.live(), 10))
	newRules := func() {
		keep, exclude, err := gen.Rules(m.live())
		if err != nil {
			t.Fatal(err)
		}
		m.rules(keep, exclude)
		t.Logf("keep %q exclude %q", keep, exclude)
	}
	newRules()
	for boot := range 4 {
		log(gen.Mutate(m.live(), 5+source.IntN(40)))
		if source.IntN(5) == 0 {
			newRules()
		}
		listed := m.findings(m.report("--all"))
		old := m.read()
		m.checkInside(listed, old)
		m.reset()
		checkListed(t, listed, old, m.read())
		if t.Failed() {
			t.Fatalf("in boot %d", boot)
		}
	}
}

// change is what the model says happened to a path.
type change struct {
	kind  reset.Kind // "" for nothing, or links alone
	links bool       // other paths share the inode than before
}

func compare(old, now model.Tree, oldLinks, nowLinks map[string][]string, path string) change {
	o, inOld := old[path]
	n, inNow := now[path]
	switch {
	case !inNow:
		return change{kind: reset.KindAdded}
	case !inOld:
		return change{kind: reset.KindDeleted}
	case o.Type != n.Type || o.Stub != n.Stub || o.Subvolume != n.Subvolume:
		return change{kind: reset.KindType}
	}
	c := change{links: !slices.Equal(oldLinks[o.Inode], nowLinks[n.Inode])}
	switch {
	case o.Hash != n.Hash || o.Size != n.Size || o.Target != n.Target || o.Rdev != n.Rdev:
		c.kind = reset.KindModified
	case o.Mode != n.Mode || o.UID != n.UID || o.GID != n.GID || o.Flags != n.Flags ||
		!maps.Equal(o.Xattrs, n.Xattrs) || o.MTime != n.MTime && !o.Stub:
		c.kind = reset.KindMetadata
	}
	return c
}

// links are the names of each inode that has several.
func links(t model.Tree) map[string][]string {
	names := map[string][]string{}
	for path, e := range t {
		if e.Inode != "" && !e.IsDir() {
			names[e.Inode] = append(names[e.Inode], path)
		}
	}
	maps.DeleteFunc(names, func(_ string, list []string) bool { return len(list) < 2 })
	for _, list := range names {
		slices.Sort(list)
	}
	return names
}

func checkListed(t *testing.T, listed map[string]findingReport, old, now model.Tree) {
	t.Helper()
	oldLinks, nowLinks := links(old), links(now)
	changed := map[string]change{}
	for path := range old {
		changed[path] = compare(old, now, oldLinks, nowLinks, path)
	}
	for path := range now {
		changed[path] = compare(old, now, oldLinks, nowLinks, path)
	}
	related := func(path string) []string {
		return append(slices.Clone(oldLinks[old[path].Inode]), nowLinks[now[path].Inode]...)
	}
	for path, c := range changed {
		if c.kind == "" && !c.links {
			continue
		}
		by, found := nearest(listed, path)
		switch {
		case found && by == path && (c.kind == listed[path].Kind || c.links && listed[path].Kind == reset.KindModified):
		case found && by != path && stands(listed[by].Kind, c.kind):
		case c.kind == "" && slices.ContainsFunc(related(path), func(p string) bool { _, ok := nearest(listed, p); return ok }):
		default:
			t.Errorf("%q: %s by the reset, links %q → %q, listed: %s", path, c.kind, oldLinks[old[path].Inode], nowLinks[now[path].Inode], describe(listed, by, found))
		}
	}
	for path, f := range listed {
		c, exists := changed[path]
		linked := slices.ContainsFunc(related(path), func(p string) bool { return changed[p].links })
		if !exists || c.kind == "" && !c.links && !linked {
			t.Errorf("%q: listed as %s %q, and the reset left it alone", path, f.Kind, f.Fields)
		}
		if f.Kind != reset.KindAdded {
			continue
		}
		for below := range now {
			if below == path || strings.HasPrefix(below, path+"/") {
				t.Errorf("%q is there after the reset, which was to wipe %q", below, path)
			}
		}
	}
}

func describe(listed map[string]findingReport, by string, found bool) string {
	if !found {
		return "not at all"
	}
	return fmt.Sprintf("%q as %s %q", by, listed[by].Kind, listed[by].Fields)
}

// nearest is the listed path that stands for another: itself, or the nearest one above
// that is wiped or brought back as a whole.
func nearest(listed map[string]findingReport, path string) (string, bool) {
	if _, ok := listed[path]; ok {
		return path, true
	}
	for path != "" {
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
		if f, ok := listed[path]; ok && stands(f.Kind, "") {
			return path, true
		}
	}
	return "", false
}

// stands tells whether a directory of a kind stands for a change below it.
func stands(whole, below reset.Kind) bool {
	switch whole {
	case reset.KindAdded:
		return below == reset.KindAdded || below == ""
	case reset.KindDeleted:
		return below == reset.KindDeleted || below == ""
	case reset.KindType: // of a subvolume and a directory, both may have the path
		return true
	case reset.KindModified, reset.KindMetadata:
	}
	return false
}

// checkInside looks into directories that would be wiped: how many files they hold, how
// large those are, and what --children lists.
func (m *machine) checkInside(listed map[string]findingReport, old model.Tree) {
	m.t.Helper()
	looked := 0
	for path, f := range listed {
		e, ok := old[path]
		if f.Kind != reset.KindAdded || !ok || !e.IsDir() {
			continue
		}
		files, size, linked := int64(0), uint64(0), false
		children := map[string]bool{}
		for below, e := range old {
			rest, inside := strings.CutPrefix(below, path+"/")
			if !inside {
				continue
			}
			name, _, _ := strings.Cut(rest, "/")
			children[path+"/"+name] = true
			if e.IsDir() {
				continue
			}
			files++
			linked = linked || e.Inode != ""
			size += uint64(e.Size)
			if e.Type == unix.S_IFLNK {
				size += uint64(len(e.Target))
			}
		}
		if f.Files != files || f.Size != size && !linked {
			m.t.Errorf("%q: listed with %d files, %d bytes, want %d, %d", path, f.Files, f.Size, files, size)
		}
		if looked++; looked > 3 || strings.HasPrefix(path, "-") || strings.Contains(path, "\x00") {
			continue
		}
		got := map[string]bool{}
		for p := range m.findings(m.report("--all", "--children", "/"+path)) {
			got[p] = true
		}
		if !maps.Equal(got, children) {
			m.t.Errorf("--children %q lists %q, want %q", path, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(children)))
		}
	}
}
