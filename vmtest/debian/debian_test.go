package debian

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixos-go/pkg/run"
)

const deb822 = `# comment
Types: deb deb-src
URIs: http://mirror.example/debian
 http://second.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://other.example/
Suites: nodistro
Components: main
Enabled: no

Types: deb
URIs: http://key.example/
Suites: trixie
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY
`

const oneLine = `
deb [arch=amd64 signed-by=/etc/apt/keyrings/x.gpg] https://example.org/apt cloud-sdk-bookworm main # comment
# deb http://old.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib
deb-src http://mirror.example/debian trixie main
deb
`

func TestChooseMirror(t *testing.T) {
	list, err := parseList(strings.NewReader(oneLine))
	if err != nil {
		t.Fatal(err)
	}
	stanzas, err := parseDeb822(strings.NewReader(deb822))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		sources []source
		suite   string
		want    mirror
	}{
		{list, "bookworm", mirror{"http://mirror.example/debian", defaultKeyring}},
		{list, "cloud-sdk-bookworm", mirror{"https://example.org/apt", "/etc/apt/keyrings/x.gpg"}},
		{list, "trixie", mirror{}}, // sources of source code alone
		{stanzas, "bookworm", mirror{"http://mirror.example/debian", defaultKeyring}},
		{stanzas, "trixie", mirror{"http://key.example/", defaultKeyring}}, // the key itself
		{stanzas, "nodistro", mirror{}},                                    // switched off
		{stanzas, "", mirror{}},
	}
	for _, tt := range tests {
		got, err := chooseMirror(tt.sources, tt.suite)
		if got != tt.want || (tt.want == mirror{}) != errors.Is(err, ErrUnavailable) {
			t.Errorf("chooseMirror(%q) = %+v, %v, want %+v", tt.suite, got, err, tt.want)
		}
	}
	if got := codename("ID=debian\nVERSION_CODENAME=\"bookworm\"\n"); got != "bookworm" {
		t.Errorf("codename = %q", got)
	}
	for _, text := range []string{"deb [arch=amd64 http://x y z\n"} {
		if _, err := parseList(strings.NewReader(text)); err == nil {
			t.Errorf("parseList(%q) = nil", text)
		}
	}
	if _, err := parseDeb822(strings.NewReader("no field\n")); err == nil {
		t.Error("parseDeb822 without a field = nil")
	}
}

func TestParseURIs(t *testing.T) {
	const text = `'http://m/pool/b/busybox/busybox-static_1.35.0-4%2bb3_amd64.deb' busybox-static_1%3a1.35.0-4+b3_amd64.deb 913212 SHA256:ab
Reading package lists...
'http://m/pool/l/linux/linux-image_6.1_amd64.deb' linux-image_6.1_amd64.deb 1 SHA256:cd
`
	got, err := parseURIs(strings.NewReader(text))
	want := []archive{
		{
			"http://m/pool/b/busybox/busybox-static_1.35.0-4%2bb3_amd64.deb",
			"busybox-static_1%3a1.35.0-4+b3_amd64.deb", "busybox-static", "1:1.35.0-4+b3",
		},
		{"http://m/pool/l/linux/linux-image_6.1_amd64.deb", "linux-image_6.1_amd64.deb", "linux-image", "6.1"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("parseURIs = %v (-want +got):\n%s", err, diff)
	}
	for _, text := range []string{"'x' broken 1 2\n", "'x' a_%zz_c.deb 1 2\n"} {
		if _, err := parseURIs(strings.NewReader(text)); err == nil {
			t.Errorf("parseURIs(%q) = nil", text)
		}
	}
}

// offline is a machine whose apt answers as told, and that counts its calls.
type offline struct {
	run.Recorder

	updates, downloads int
}

func newOffline(updates bool) *offline {
	o := &offline{}
	o.On("apt-get").Do(func(_ context.Context, c run.Command) (run.Result, error) {
		line := c.String()
		switch {
		case strings.Contains(line, " update "):
			o.updates++
			if !updates {
				return run.Result{}, &run.Error{Command: "apt-get update", Status: 100, Cause: http.ErrServerClosed}
			}
		case strings.Contains(line, "--print-uris"):
			return run.Result{Stdout: []byte("'http://m/tool_1_amd64.deb' tool_1_amd64.deb 1 x\n'http://m/gone_1_amd64.deb' gone_1_amd64.deb 1 x\n")}, nil
		default:
			o.downloads++
			return run.Result{}, os.WriteFile(filepath.Join(c.Dir, "tool_1_amd64.deb"), nil, 0o600)
		}
		return run.Result{}, nil
	})
	o.On("dpkg-deb", "-x").Do(func(_ context.Context, c run.Command) (run.Result, error) {
		return run.Result{}, os.WriteFile(filepath.Join(c.Args[2], "tool"), nil, 0o700)
	})
	return o
}

// A field is looked up once for each state of the lists.
func TestKernel(t *testing.T) {
	world := newOffline(true)
	world.On("apt-cache").Reply("Package: linux-image-x\nDepends: base, linux-image-6.1.0-50-x (= 6.1.1)\n").Times(1)
	c := Cache{Dir: t.TempDir(), Runner: world, mirror: &mirror{uri: "http://mirror.example/debian", signedBy: defaultKeyring}}
	for range 2 {
		if got, err := c.Kernel(t.Context(), "trixie", "amd64", "linux-image-x"); err != nil || got != "linux-image-6.1.0-50-x" {
			t.Errorf("Kernel = %q, %v", got, err)
		}
	}
	world.On("apt-cache").Reply("Package: meta\nDepends: base\n")
	if _, err := c.Kernel(t.Context(), "trixie", "amd64", "meta"); err == nil {
		t.Error("Kernel of what depends on none = nil")
	}
	if _, err := c.Show(t.Context(), "trixie", "amd64", "meta", "Section"); err == nil {
		t.Error("Show of a field that is not there = nil")
	}
}

// What was fetched once is there without a network, as long as it is asked for
// in the same way.
func TestFetch(t *testing.T) {
	world := newOffline(true)
	c := Cache{Dir: t.TempDir(), Runner: world, mirror: &mirror{uri: "http://mirror.example/debian", signedBy: defaultKeyring}}
	set := Set{Suite: "trixie", Arch: "amd64", Packages: []string{"tool"}, Depends: true, Without: []string{"gone"}}
	tree, err := c.Fetch(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"tool": "1"}, tree.Versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(tree.Root, "tool")); err != nil {
		t.Error(err)
	}
	for _, command := range world.Calls() {
		if line := command.Command.String(); strings.HasPrefix(line, "apt-") && !strings.Contains(line, "Dir::State::status="+c.Dir) {
			t.Errorf("works on the system's own state: %s", line)
		}
	}
	if again, err := c.Fetch(t.Context(), set); err != nil || again.Root != tree.Root || world.downloads != 1 || world.updates != 1 {
		t.Errorf("the second time: %+v, %v, %d downloads, %d updates", again, err, world.downloads, world.updates)
	}

	// The lists grow old, and there is no network: what is there will do.
	stamp := filepath.Join(c.Dir, "apt", "trixie-amd64", stampFile)
	old := time.Now().Add(-2 * listsAge)
	if err := os.Chtimes(stamp, old, old); err != nil {
		t.Fatal(err)
	}
	c.Runner = newOffline(false)
	if again, err := c.Fetch(t.Context(), set); err != nil || again.Root != tree.Root {
		t.Errorf("without a network: %+v, %v", again, err)
	}
	set.Packages = []string{"another"}
	if _, err := c.Fetch(t.Context(), set); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("another without a network = %v, want why the lists are old", err)
	}
}

func FuzzSources(f *testing.F) {
	f.Add(deb822)
	f.Add(oneLine)
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) ([]source, error){
			func(s string) ([]source, error) { return parseList(strings.NewReader(s)) },
			func(s string) ([]source, error) { return parseDeb822(strings.NewReader(s)) },
		} {
			sources, err := parse(text)
			if err != nil {
				continue
			}
			for _, s := range sources {
				for _, suite := range s.suites {
					if m, err := chooseMirror(sources, suite); err == nil && (m.uri == "" || m.signedBy == "") {
						t.Errorf("chooseMirror(%q) = %+v", suite, m)
					}
				}
			}
		}
		_, _ = parseURIs(strings.NewReader(text)) // does not panic
	})
}
