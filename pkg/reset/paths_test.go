package reset

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// numbers are inode numbers in clusters, as they come.
func numbers() *rapid.Generator[[]uint64] {
	return rapid.Custom(func(t *rapid.T) []uint64 {
		out := make([]uint64, 0, 2800)
		for range rapid.IntRange(0, 700).Draw(t, "clusters") {
			start := rapid.Uint64Range(256, 1<<48).Draw(t, "start")
			for i := range rapid.IntRange(1, 4).Draw(t, "length") {
				out = append(out, start+uint64(i)*rapid.Uint64Range(0, 200).Draw(t, "step"))
			}
		}
		return out
	})
}

// The ranges cover every number, are in order and apart from each other, are not
// many, and begin and end at numbers that were given.
func TestMakeRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := numbers().Draw(t, "numbers")
		extra := numbers().Draw(t, "more")
		more := make([]Range, len(extra))
		for i, n := range extra {
			more[i] = Range{n, n + rapid.Uint64Range(0, 1000).Draw(t, "width")}
		}
		before := slices.Clone(more)
		ranges := makeRanges(ns, more...)
		if !slices.Equal(before, more) {
			t.Fatal("makeRanges changed what it was given")
		}
		if len(ranges) > maxRanges {
			t.Fatalf("%d ranges, want at most %d", len(ranges), maxRanges)
		}
		firsts, lasts := map[uint64]bool{}, map[uint64]bool{}
		all := more
		for _, n := range ns {
			all = append(all, Range{n, n})
		}
		for _, r := range all {
			firsts[r.First], lasts[r.Last] = true, true
			if !slices.ContainsFunc(ranges, func(c Range) bool { return c.First <= r.First && r.Last <= c.Last }) {
				t.Fatalf("%v is in none of the ranges %v", r, ranges)
			}
		}
		for i, r := range ranges {
			if r.First > r.Last || i > 0 && (ranges[i-1].Last >= r.First || r.First-ranges[i-1].Last <= 64) {
				t.Fatalf("range %d, %v, is not in order, or near the one before: %v", i, r, ranges)
			}
			if !firsts[r.First] || !lasts[r.Last] {
				t.Fatalf("range %v begins or ends elsewhere than what was given", r)
			}
		}
	})
}

func TestJoinRanges(t *testing.T) {
	for _, tt := range []struct {
		ranges []Range
		gap    uint64
		want   []Range
	}{
		{nil, 10, nil},
		{[]Range{{1, 1}}, 10, []Range{{1, 1}}},
		{[]Range{{1, 5}, {5, 9}}, 0, []Range{{1, 9}}},
		{[]Range{{1, 9}, {2, 3}, {8, 12}}, 0, []Range{{1, 12}}},
		{[]Range{{1, 1}, {11, 11}}, 10, []Range{{1, 11}}},
		{[]Range{{1, 1}, {12, 12}}, 10, []Range{{1, 1}, {12, 12}}},
		{[]Range{{1, ^uint64(0)}, {7, 7}}, 10, []Range{{1, ^uint64(0)}}},
	} {
		if got := joinRanges(slices.Clone(tt.ranges), tt.gap); !slices.Equal(got, tt.want) {
			t.Errorf("joinRanges(%v, %d) = %v, want %v", tt.ranges, tt.gap, got, tt.want)
		}
	}
}

func paths() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 20).Draw(t, "root") == 0 {
			return "/"
		}
		var b strings.Builder
		for range rapid.IntRange(1, 4).Draw(t, "depth") {
			b.WriteString("/" + rapid.StringOfN(rapid.RuneFrom([]rune("ab.-é\x01")), 1, 3, -1).Draw(t, "name"))
		}
		return b.String()
	})
}

// comparePaths orders as lists of components are ordered.
func TestComparePaths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := paths().Draw(t, "a"), paths().Draw(t, "b")
		want := slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
		got := comparePaths(a, b)
		if sign(got) != want {
			t.Fatalf("comparePaths(%q, %q) = %d, want the sign of %d", a, b, got, want)
		}
		if got := sign(comparePaths(b, a)); got != -want {
			t.Fatalf("comparePaths(%q, %q) = %d, want %d", b, a, got, -want)
		}
	})
}

func sign(n int) int { return min(1, max(-1, n)) }

// A directory comes right before what lies below it.
func TestComparePathsOrder(t *testing.T) {
	want := []string{"/", "/a", "/a/b", "/a/b/c", "/a/b-", "/a-", "/a-/b", "/a.b", "/aa", "/b", "/caf\xe9"}
	got := slices.Clone(want)
	slices.Reverse(got)
	sortBy(got, comparePaths, func(s *string) string { return *s })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path, dir := paths().Draw(t, "path"), paths().Draw(t, "dir")
		want := slices.Equal(components(path)[:min(len(components(dir)), len(components(path)))], components(dir))
		if got := below(path, dir); got != want {
			t.Fatalf("below(%q, %q) = %v, want %v", path, dir, got, want)
		}
	})
	for _, tt := range []struct {
		path, dir string
		want      bool
	}{
		{"/a", "/a", true},
		{"/a/b", "/a", true},
		{"/ab", "/a", false},
		{"/a", "/a/b", false},
		{"/a", "/", true},
		{"/", "/", true},
		{"/", "/a", false},
	} {
		if got := below(tt.path, tt.dir); got != tt.want {
			t.Errorf("below(%q, %q) = %v, want %v", tt.path, tt.dir, got, tt.want)
		}
	}
}

func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" })
}

func TestBranchOf(t *testing.T) {
	p := Plan{Branches: []Branch{{"/home", 1}, {"/home/alice", 2}, {"/srv", 3}}}
	for path, want := range map[string]uint64{
		"/etc": 0, "/home": 0, "/home/bob": 1, "/home/alice": 1, "/home/alice/x": 2, "/home/alicex": 1, "/srv/a/b": 3, "/srvx": 0,
	} {
		got := uint64(0)
		if b := p.branchOf(path); b != nil {
			got = b.ID
		}
		if got != want {
			t.Errorf("branchOf(%q) = %d, want %d", path, got, want)
		}
	}
}

func TestChangeJSON(t *testing.T) {
	for _, tt := range []struct {
		change Change
		want   string
	}{
		{
			Change{Path: "/etc/hostname", Kind: KindModified, Fields: FieldContent | FieldSize | FieldMTime, Mode: unix.S_IFREG | 0o644, Size: 7},
			`{"path":"/etc/hostname","kind":"modified","type":"file","fields":["content","size","mtime"],"size":7}`,
		},
		{Change{Path: "/a", Kind: KindAdded, Mode: unix.S_IFDIR | 0o755}, `{"path":"/a","kind":"added","type":"directory","size":0}`},
		{Change{Path: "/l", Kind: KindDeleted, Mode: unix.S_IFLNK, Size: 3}, `{"path":"/l","kind":"deleted","type":"symlink","size":3}`},
		{
			Change{Path: "/t", Kind: KindType, Fields: FieldType, Mode: unix.S_IFIFO},
			`{"path":"/t","kind":"type","type":"fifo","fields":["type"],"size":0}`,
		},
		{Change{Path: "/caf\xe9", Kind: KindAdded, Mode: unix.S_IFREG}, `{"pathBase64":"L2NhZuk=","kind":"added","type":"file","size":0}`},
		{Change{Path: "/café \"\n", Kind: KindAdded, Mode: unix.S_IFREG}, `{"path":"/café \"\n","kind":"added","type":"file","size":0}`},
	} {
		got, err := json.Marshal(&tt.change)
		if err != nil || string(got) != tt.want {
			t.Errorf("JSON of %+v = %s, %v, want %s", tt.change, got, err, tt.want)
		}
		list, err := json.Marshal([]Change{tt.change})
		if err != nil || string(list) != "["+tt.want+"]" {
			t.Errorf("JSON of a list = %s, %v, want the same in brackets", list, err)
		}
		line, err := WipedLine("@v", &tt.change)
		want := strings.Replace(tt.want, "{", `{"volume":"@v",`, 1) + "\n"
		if tt.change.Kind == KindDeleted {
			want = ""
		}
		if err != nil || string(line) != want {
			t.Errorf("WipedLine = %q, %v, want %q", line, err, want)
		}
	}
	onlyTime := Change{Path: "/d", Kind: KindMetadata, Fields: FieldMTime, Mode: unix.S_IFDIR}
	if line, err := WipedLine("@v", &onlyTime); line != nil || err != nil {
		t.Errorf("WipedLine of a directory's time = %q, %v, want none", line, err)
	}
}

func TestTypeName(t *testing.T) {
	for mode, want := range map[uint32]string{
		unix.S_IFREG | 0o4755: "file", unix.S_IFDIR | 0o1777: "directory", unix.S_IFLNK | 0o777: "symlink",
		unix.S_IFCHR: "character device", unix.S_IFBLK: "block device", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket", 0: "unknown",
	} {
		if got := TypeName(mode); got != want {
			t.Errorf("TypeName(%o) = %q, want %q", mode, got, want)
		}
	}
}

func TestFieldNames(t *testing.T) {
	all := FieldType | FieldContent | FieldSize | FieldOwner | FieldMode | FieldMTime | FieldXattrs | FieldFlags | FieldLinks
	if got, want := all.String(), "type,content,size,owner,mode,mtime,xattrs,flags,links"; got != want {
		t.Errorf("all fields = %q, want %q", got, want)
	}
	if got := Fields(0).Names(); len(got) != 0 {
		t.Errorf("no fields = %q", got)
	}
}

func TestCount(t *testing.T) {
	r := Result{Changes: []Change{
		{Kind: KindAdded},
		{Kind: KindDeleted},
		{Kind: KindDeleted},
		{Kind: KindModified, Fields: FieldContent},
		{Kind: KindType, Fields: FieldType},
		{Kind: KindMetadata, Fields: FieldMTime, Mode: unix.S_IFREG},
		{Kind: KindMetadata, Fields: FieldMTime, Mode: unix.S_IFDIR}, // of no interest
		{Kind: KindMetadata, Fields: FieldMTime | FieldMode, Mode: unix.S_IFDIR},
	}}
	r.count()
	if r.Wiped != 1 || r.ChangedBack != 4 || r.BroughtBack != 2 {
		t.Errorf("%d wiped, %d changed back, %d brought back, want 1, 4, 2", r.Wiped, r.ChangedBack, r.BroughtBack)
	}
}

func TestParseMode(t *testing.T) {
	if len(Modes()) != 5 {
		t.Errorf("%d modes, want 5", len(Modes()))
	}
	for _, m := range Modes() {
		if got, err := ParseMode(string(m)); got != m || err != nil {
			t.Errorf("ParseMode(%q) = %q, %v", m, got, err)
		}
		if m.restores() != strings.HasPrefix(string(m), "restore-") {
			t.Errorf("%s restores: %v", m, m.restores())
		}
	}
	for mode, want := range map[Mode]string{ModeRestorePrevious: "PREVIOUS", ModeRestorePenultimate: "PENULTIMATE"} {
		if got := mode.restoreSource(); got != want {
			t.Errorf("source of %s = %s, want %s", mode, got, want)
		}
	}
}
