package reset

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/btrfs"
)

func TestReadHistory(t *testing.T) {
	m := restoreMachine(t)
	m.sh("", `mkdir @snapshots/@home/plain; echo > @snapshots/@home/file; btrfs -q subvolume create @snapshots/@home/MINE`)
	m.newCleans(CleanOptions{})
	m.sh("@home", "echo > new")
	m.syncTop()
	m.run(Options{})
	m.sh("@home", "echo more > more")
	m.syncTop()
	m.run(Options{})
	again := m.newCleans(CleanOptions{})[0]
	top := m.hold(m.top)
	defer top.Close()
	h, err := ReadHistory(top, m.plan, "@home")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range h.Snapshots {
		info := m.info(snapshotOf("@home", s.Name))
		if s.Info != info {
			t.Errorf("%s: %+v, want %+v", s.Name, s.Info, info)
		}
		if s.Replaced != (s.Name == again.Old) {
			t.Errorf("%s: replaced = %v", s.Name, s.Replaced)
		}
		if IsAged(s.Name) { // the first CLEAN among them, which a boot has done without
			continue
		}
		names = append(names, s.Name)
	}
	want := []string{NameClean, NameCurrent, NamePrevious, NamePenultimate, "MINE"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("snapshots (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"file", "plain"}, h.Foreign); diff != "" {
		t.Errorf("foreign (-want +got):\n%s", diff)
	}
	if !h.Linked || !h.Trash || h.Worked || h.MountPoint != "/home" || h.Live != m.info("@home") {
		t.Errorf("history = %+v", h)
	}
	if h.Snapshot("nothing") != nil || h.Snapshot(NamePrevious).Info.UUID != h.Live.ParentUUID {
		t.Error("Snapshot finds the wrong ones")
	}
	// PENULTIMATE of the first reset is PREVIOUS of the second, with what was nested.
	images := 0
	for _, s := range h.Snapshots {
		images = max(images, len(s.Trees))
	}
	if images < 3 {
		t.Errorf("no snapshot has nested subvolumes: %+v", h.Snapshots)
	}
	if _, err := ReadHistory(top, m.plan, "@root"); err == nil {
		t.Error("ReadHistory of a volume that the plan does not have succeeds")
	}
}

func TestReadWiped(t *testing.T) {
	changes := []Change{
		{Path: "/a", Kind: KindAdded, Mode: modeDir | 0o755},
		{Path: "/caf\xe9", Kind: KindModified, Mode: 0o100644, Size: 7, Fields: FieldContent | FieldSize},
		{Path: "/back", Kind: KindDeleted, Mode: 0o100644},
		{Path: "/dir", Kind: KindMetadata, Mode: modeDir, Fields: FieldMTime},
	}
	var text bytes.Buffer
	for i := range changes {
		line, err := WipedLine("@home", &changes[i])
		if err != nil {
			t.Fatal(err)
		}
		text.Write(line)
	}
	got, err := ReadWiped(&text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Wiped{
		{Volume: "@home", Path: "/a", Kind: KindAdded, Type: "directory"},
		{Volume: "@home", Path: "/caf\xe9", Kind: KindModified, Type: "file", Fields: []string{"content", "size"}, Size: 7},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadWiped (-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		"{\"path\":\"/a\"}\n{":          "line 2: ",
		`{"path":"a"}`:                  `"a" is no path of a volume`,
		`{"pathBase64":"!"}`:            `field "pathBase64"`,
		`{"path":7}`:                    `field "path" is a number, want string`,
		`{"path":"/` + "\\u0000" + `"}`: "is no path of a volume",
	} {
		if _, err := ReadWiped(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadWiped(%q) = %v, want %q", text, err, want)
		}
	}
}

func TestExpandWiped(t *testing.T) {
	m := restoreMachine(t)
	previous := m.hold(m.path(previousHome))
	defer previous.Close()
	expand := func(w Wiped, depth int) []string {
		t.Helper()
		list, err := w.Expand(t.Context(), previous, depth)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]string, 0, len(list))
		for _, w := range list {
			out = append(out, strings.Repeat("  ", w.Depth)+w.Path+" "+w.Type)
		}
		return out
	}
	src := Wiped{Volume: "@home", Path: "/alice/src", Kind: KindAdded, Type: "directory"}
	if got := expand(src, 0); !cmp.Equal(got, []string{"/alice/src directory"}) {
		t.Errorf("depth 0: %q", got)
	}
	one := expand(src, 1)
	if !slices.Contains(one, "  /alice/src/deep directory") || slices.Contains(one, "    /alice/src/deep/er directory") {
		t.Errorf("depth 1: %q", one)
	}
	all := expand(src, -1)
	for _, want := range []string{"      /alice/src/deep/er/caf\xe9 file", "    /alice/src/deep/link symlink", "    /alice/src/deep/fifo fifo", "  /alice/src/new\nline file"} {
		if !slices.Contains(all, want) {
			t.Errorf("all: %q, want %q among them", all, want)
		}
	}
	if got := expand(Wiped{Path: "/alice/images", Kind: KindAdded, Type: "directory"}, -1); !slices.Contains(got, "    /alice/images/inner/n file") {
		t.Errorf("a nested subvolume: %q", got)
	}
	for _, w := range []Wiped{
		{Path: "/alice", Kind: KindMetadata, Type: "directory"}, // nothing below it was lost
		{Path: "/gone", Kind: KindAdded, Type: "directory"},     // of another boot
		{Path: "/alice/src/run", Kind: KindAdded, Type: "file"},
	} {
		if got := expand(w, -1); len(got) != 1 {
			t.Errorf("Expand(%+v) = %q, want itself alone", w, got)
		}
	}
}

func TestIsLive(t *testing.T) {
	m := restoreMachine(t)
	m.sh("", "mkdir plain")
	top := m.hold(m.top)
	defer top.Close()
	other := newMachine(t, newDisk(t, 256<<20), PlanFileVolume{Name: "@home", MountPoint: "/home"})
	for path, want := range map[string]bool{
		m.path("@home"): true, m.path("@home/alice"): false, m.path("plain"): false, m.path(previousHome): false,
		other.path("@home"): false, t.TempDir(): false,
	} {
		root := m.hold(path)
		got, err := IsLive(top, "@home", root)
		root.Close()
		if err != nil || got != want {
			t.Errorf("IsLive(%s) = %v, %v, want %v", path, got, err, want)
		}
	}
	if f, err := OpenSnapshot(top, m.plan, "@home", NamePrevious); err != nil {
		t.Errorf("OpenSnapshot(PREVIOUS) = %v", err)
	} else if is, err := btrfs.IsSubvolume(f); err != nil || !is {
		t.Errorf("OpenSnapshot(PREVIOUS) is no subvolume (%v)", err)
	} else {
		f.Close()
	}
}

func FuzzReadWiped(f *testing.F) {
	f.Add(`{"volume":"@home","path":"/a","kind":"added","type":"file","size":3}` + "\n")
	f.Add(`{"pathBase64":"L2HpCg==","kind":"modified","type":"file","fields":["content"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ReadWiped(strings.NewReader(text))
		for _, w := range list {
			if err != nil || !strings.HasPrefix(w.Path, "/") || strings.Contains(w.Path, "\x00") {
				t.Errorf("ReadWiped(%q) = %+v, %v", text, w, err)
			}
		}
	})
}
