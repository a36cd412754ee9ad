package diff

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/ui"
)

func TestUnitDirs(t *testing.T) {
	for _, test := range []struct {
		name, unit, text string
		bases            bases
		want             []unitDir
	}{
		{
			"all kinds", "app.service",
			"[Service]\nStateDirectory=app app/sub\nCacheDirectory=app\nLogsDirectory=app\nConfigurationDirectory=app\n",
			systemBases,
			[]unitDir{
				{"app.service", "/var/lib/app", false},
				{"app.service", "/var/lib/app/sub", false},
				{"app.service", "/var/cache/app", true},
				{"app.service", "/var/log/app", false},
				{"app.service", "/etc/app", false},
			},
		},
		{
			"dynamic user", "app.service", "[Service]\nDynamicUser=no\nDynamicUser=true\nStateDirectory=app:link\nConfigurationDirectory=app\n", systemBases,
			[]unitDir{{"app.service", "/var/lib/private/app", false}, {"app.service", "/etc/app", false}},
		},
		{"other sections", "app.service", "StateDirectory=a\n[Unit]\nStateDirectory=b\n[Install]\nStateDirectory=c\n", systemBases, nil},
		{"reset", "app.service", "[Service]\nStateDirectory=a\nStateDirectory=\nStateDirectory=b\n", systemBases, []unitDir{{"app.service", "/var/lib/b", false}}},
		{
			"continued, quoted", "app.service", "[Service]\nReadWritePaths=\"/srv/a b\" \\\n# a comment\n  -/srv/c\\x20 \\\n", systemBases,
			[]unitDir{{"app.service", "/srv/a b", false}, {"app.service", "/srv/cx20", false}},
		},
		{
			"shared paths", "app.service", "[Service]\nReadWritePaths=/ /srv /var/lib /run/app /tmp/x /dev/y relative /var/lib/app/ /var/cache/app\n", systemBases,
			[]unitDir{{"app.service", "/var/lib/app", false}, {"app.service", "/var/cache/app", true}},
		},
		{
			"specifiers", "app-x@one.service", "[Service]\nStateDirectory=%p/%i/%j/%N/%n/%%/%u\nReadWritePaths=%S/q %C/c\n", systemBases,
			[]unitDir{
				{"app-x@one.service", "/var/lib/app-x/one/x/app-x@one/app-x@one.service/%/*", false},
				{"app-x@one.service", "/var/lib/q", false},
				{"app-x@one.service", "/var/cache/c", true},
			},
		},
		{"template", "app@.service", "[Service]\nStateDirectory=app/%i\n", systemBases, []unitDir{{"app@.service", "/var/lib/app/*", false}}},
		{
			"of users", "app.service", "[Service]\nDynamicUser=yes\nStateDirectory=app\nCacheDirectory=app\n", userBases,
			[]unitDir{{"app.service", "/home/*/.local/state/app", false}, {"app.service", "/home/*/.cache/app", true}},
		},
	} {
		values := unitValues{}
		if err := values.parseUnit(strings.NewReader(test.text)); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, values.dirs(test.unit, test.bases), cmp.AllowUnexported(unitDir{})); diff != "" {
			t.Errorf("%s: dirs (-want +got):\n%s", test.name, diff)
		}
	}
}

func FuzzUnit(f *testing.F) {
	f.Add("[Service]\nStateDirectory=a \"b c\" \\\n#\n d\nReadWritePaths=-/x %i")
	f.Add("[Service]\nStateDirectory='")
	f.Fuzz(func(t *testing.T, text string) {
		values := unitValues{}
		if values.parseUnit(strings.NewReader(text)) != nil {
			return
		}
		dirs := values.dirs("a-b@c.service", systemBases)
		for _, d := range dirs {
			if !strings.HasPrefix(d.path, "/") {
				t.Errorf("parseUnit(%q) names %q, which is no absolute path", text, d.path)
			}
		}
		if _, err := newAdvisor(dirs); err != nil {
			t.Errorf("newAdvisor(%v) = %v", dirs, err)
		}
	})
}

func TestIgnoreFile(t *testing.T) {
	list, err := parseIgnore(strings.NewReader("# comment\n\n  /home/*/.cache  \n*.log\n/a b\n"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/home/alice/.cache": true, "/home/alice/.cache/x/y": true, "/home/alice/.config": false, "/home/.cache": false,
		"/var/x.log": true, "/var/x.log/below": true, "/var/x.logs": false, "/a b": true, "/a": false, "/": false,
	} {
		if got := anyMatches(list, path); got != want {
			t.Errorf("%q is ignored: %v, want %v", path, got, want)
		}
	}
}

func FuzzIgnoreFile(f *testing.F) {
	f.Add("/a/*\nx*y\n# c\n", "/a/b/xzy")
	f.Fuzz(func(t *testing.T, text, path string) {
		list, err := parseIgnore(strings.NewReader(text))
		if err != nil {
			return
		}
		if got := anyMatches(list, path); got && !anyMatches(list, path+"/below") {
			t.Errorf("%q ignores %q and not what is below", text, path)
		}
	})
}

func TestOnTop(t *testing.T) {
	points, err := btrfs.ParseMountInfo(strings.NewReader(`22 1 0:20 / / rw shared:1 - btrfs /dev/mapper/root rw
23 22 0:21 /@my\040home /home rw - btrfs /dev/mapper/root rw
24 22 0:22 / /home rw - tmpfs none rw
25 22 0:23 /@a /mnt/a\134b rw master:1 propagate_from:2 - btrfs /dev/sda1 rw
`))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for path, p := range onTop(points) {
		got[path] = p.Root + " of " + p.Source
	}
	want := map[string]string{"/": "/ of /dev/mapper/root", `/mnt/a\b`: "/@a of /dev/sda1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("onTop (-want +got):\n%s", diff)
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte(`{"version":1,"questions":{"q":{"volumes":{"@root":{"uuid":"u","generation":3,"listed":[{"path":"/a","kind":"added"},{"pathBase64":"L2E=","kind":"type"}]}}}}}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		m := &memory{}
		if m.parse(text) != nil {
			return
		}
		for question, run := range m.Questions {
			for name := range run.Volumes {
				m.volume(question, name).knows("/a/b", reset.KindAdded)
			}
		}
	})
}

func TestMemory(t *testing.T) {
	m := &memory{}
	err := m.parse([]byte(`{"version":1,"questions":{"boot since clean":{"volumes":{"@root":{"uuid":"u","generation":7,"listed":[
		{"path":"/dir","kind":"added"},{"path":"/file","kind":"modified"},{"pathBase64":"L2NhZuk=","kind":"deleted"},{"path":"/meta","kind":"metadata"}]}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	last := m.volume("boot since clean", "@root")
	for _, test := range []struct {
		path string
		kind reset.Kind
		want bool
	}{
		{"/dir", reset.KindAdded, true},
		{"/dir", reset.KindType, false},
		{"/dir/below/it", reset.KindAdded, true},
		{"/director", reset.KindAdded, false},
		{"/file", reset.KindModified, true},
		{"/file", reset.KindMetadata, false},
		{"/caf\xe9", reset.KindDeleted, true},
		{"/caf\xe9/x", reset.KindDeleted, true},
		{"/meta/x", reset.KindAdded, false},
		{"/", reset.KindMetadata, false},
	} {
		if got := last.knows(test.path, test.kind); got != test.want {
			t.Errorf("knows(%q, %s) = %v, want %v", test.path, test.kind, got, test.want)
		}
	}
	if (*lastRunVolume)(nil).knows("/dir", reset.KindAdded) || m.volume("kept since clean", "@root") != nil {
		t.Error("a question that was not asked knows something")
	}
	for _, text := range []string{`{"version":2}`, `{"version":1,"questions":{"q":null}}`, `{"version":1,"questions":{"q":{"volumes":{"v":null}}}}`, `[]`, ``} {
		if err := new(memory).parse([]byte(text)); err == nil {
			t.Errorf("parse(%s) took it", text)
		}
	}
}

// TestKnowsWhatTheModulesKeep: what modules/settings keeps by default is known here to
// be worth keeping.
func TestKnowsWhatTheModulesKeep(t *testing.T) {
	advisor, err := newAdvisor(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "modules", "settings", "persist.nix"))
	if errors.Is(err, fs.ErrNotExist) {
		testx.Unavailable(t, "the source has no modules here")
	}
	if err != nil {
		t.Fatal(err)
	}
	kept, _, _ := strings.Cut(string(text), "# Caches inside profiles")
	rules := regexp.MustCompile(`(?m)^\s+"([^"]+)"$`).FindAllStringSubmatch(kept, -1)
	if len(rules) < 60 {
		t.Fatalf("persist.nix has %d rules: does it look otherwise now?", len(rules))
	}
	for _, rule := range rules {
		path := rule[1]
		if !strings.HasPrefix(path, "/") {
			path = "/home/alice/" + path
		}
		path = strings.ReplaceAll(path, "*", "x")
		if advice := advisor.about(path); advice == nil || advice.lost || advice.why == "" {
			t.Errorf("%s: nothing says why it is kept: %+v", path, advice)
		}
	}
}

func TestAdvice(t *testing.T) {
	advisor, err := newAdvisor([]unitDir{
		{"a.service", "/var/lib/a", false}, {"b.service", "/var/lib/a/b", false}, {"a.service", "/var/cache/a", true}, {"bad.service", "/../x", false},
	})
	if err != nil {
		t.Fatal(err)
	}
	none := &advice{}
	for _, test := range []struct {
		path, rule, unit string
		lost             bool
	}{
		{"/var/lib/a", "/var/lib/a", "a.service", false},
		{"/var/lib/a/x/y", "/var/lib/a", "a.service", false},
		{"/var/lib/a/b/c", "/var/lib/a/b", "b.service", false},
		{"/var/cache/a/x", "/var/cache/a", "a.service", true},
		{"/var/cache/b", "/var/cache", "", true},
		{"/home/alice/.config/kdeglobals", "/home/*/.config/kde*", "", false},
		{"/home/alice/.config/other", "", "", false},
	} {
		advice := advisor.about(test.path)
		if advice == nil {
			advice = none
		}
		if advice.rule != test.rule || advisor.unitOf(test.path) != test.unit || advice.lost != test.lost {
			t.Errorf("about(%s) = %+v of %q, want %+v", test.path, advice, advisor.unitOf(test.path), test)
		}
	}
	for path, want := range map[string]bool{"/var/lib": true, "/home/alice": true, "/home/alice/.config": true, "/home/alice/Projects": false, "/var/lib/a": false, "/var/cache": false} {
		if got := advisor.goesOn(path); got != want {
			t.Errorf("goesOn(%s) = %v, want %v", path, got, want)
		}
	}
}

func TestRuleFor(t *testing.T) {
	for path, want := range map[string]string{
		"/srv/x": "/srv/x", "/home/alice": "/home/alice", "/home/alice/x/y": "/home/*/x/y", "/srv/home/alice/x": "/srv/home/alice/x",
		"/srv/caf\xe9": "/srv/caf*", "/srv/\xff\xfea\xff": "/srv/*a*",
	} {
		if got, ok := ruleFor(path); got != want || !ok {
			t.Errorf("ruleFor(%q) = %q, %v, want %q", path, got, ok, want)
		}
	}
	if got, ok := ruleFor("/srv/\xff/x"); ok {
		t.Errorf("ruleFor of a name that is not text = %q, want none", got)
	}
}

func TestLeadsToStore(t *testing.T) {
	for target, want := range map[string]bool{
		"/nix/store/x": true, "/nix/store/../../etc/passwd": false, "/etc/static/fstab": true, "/etc/static": true, "/etc/statics": false,
		"/run/current-system/sw": true, "../nix/store/x": false, "hostname": false, "": false,
	} {
		if got := leadsToStore(target); got != want {
			t.Errorf("leadsToStore(%q) = %v, want %v", target, got, want)
		}
	}
}

func TestDifferences(t *testing.T) {
	plan := func(mode reset.Mode, volumes ...reset.PlanFileVolume) *reset.PlanFile {
		return &reset.PlanFile{Version: 1, Device: "/dev/a", Snapshots: "@snapshots", Clean: "CLEAN", Mode: mode, Volumes: volumes}
	}
	root := reset.PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/a", "/b"}}
	other := reset.PlanFileVolume{Name: "@root", MountPoint: "/", Keep: []string{"/b", "/c"}, Exclude: []string{"/c/x"}}
	home := reset.PlanFileVolume{Name: "@home", MountPoint: "/home", Keep: []string{"/a"}}
	moved := plan(reset.ModeDisabled, home)
	moved.Device, moved.Revision = "/dev/b", 9
	for _, test := range []struct {
		running, next *reset.PlanFile
		want          []string
	}{
		{plan("", root), plan(reset.ModeReset, root), nil},
		{plan("", root), plan("", other), []string{"keeps /c", "no longer keeps /a", "excludes /c/x"}},
		{plan("", root), moved, []string{"the mode is disabled, was reset", "the device is /dev/b, was /dev/a", "@home is reset now", "@root is not reset any more"}},
	} {
		if diff := cmp.Diff(test.want, differences(test.running, test.next)); diff != "" {
			t.Errorf("differences (-want +got):\n%s", diff)
		}
	}
}

func TestSum(t *testing.T) {
	v := &view{rows: []row{
		{path: "/a/b", kind: reset.KindMetadata, size: 9, files: 1},
		{path: "/a/b/c", kind: reset.KindAdded, size: 5, files: 2},
		{path: "/a/b/d/e", kind: reset.KindAdded, size: 1, files: 1},
		{path: "/a", kind: reset.KindModified, size: 3, files: 1},
		{path: "/x/y/z", kind: reset.KindDeleted, size: 4, files: 1},
	}}
	v.sum(2)
	want := []row{
		{path: "/a/b", kind: mixed, size: 6, files: 3, sums: map[reset.Kind]int{reset.KindMetadata: 1, reset.KindAdded: 2}},
		{path: "/a", kind: reset.KindModified, size: 3, files: 1},
		{path: "/x/y", kind: reset.KindDeleted, mode: 0o040000, size: 4, files: 1, sums: map[reset.Kind]int{reset.KindDeleted: 1}},
	}
	if diff := cmp.Diff(want, v.rows, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("sum(2) (-want +got):\n%s", diff)
	}
}

func TestNixLinesStayComments(t *testing.T) {
	lines := nixLines([]*proposal{{rule: "/a\n/b", unit: "x\ny.service", why: "w\nz"}}, []*proposal{{rule: "/c\n/d"}})
	for line := range strings.Lines(lines) {
		if text := strings.TrimSpace(line); !strings.HasPrefix(text, "#") && !strings.HasPrefix(text, `"`) && text != option+" = [" && text != "];" {
			t.Errorf("line %q stands free in\n%s", text, lines)
		}
	}
	if ui.Printable("/a\n/b") == "/a\n/b" {
		t.Error("Printable leaves a newline")
	}
}
