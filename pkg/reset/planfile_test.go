package reset

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/keep"
)

// goodPlan is the example of section 7 of the design.
const goodPlan = `{
  "version": 1,
  "device": "/dev/mapper/root",
  "snapshots": "@snapshots",
  "clean": "CLEAN",
  "mode": "reset",
  "revision": 1773122722,
  "volumes": [
    {"name": "@root", "mountPoint": "/",     "keep": ["/etc/ssh", "/etc/machine-id"], "exclude": []},
    {"name": "@home", "mountPoint": "/home", "keep": ["/*/Downloads"],                "exclude": []}
  ]
}`

func TestParsePlanFile(t *testing.T) {
	got, err := ParsePlanFile(strings.NewReader(goodPlan))
	if err != nil {
		t.Fatal(err)
	}
	want := &PlanFile{
		Version: 1, Device: "/dev/mapper/root", Snapshots: "@snapshots", Clean: "CLEAN", Mode: ModeReset, Revision: 1773122722,
		Volumes: []PlanFileVolume{
			{Name: "@root", MountPoint: "/", Keep: []string{"/etc/ssh", "/etc/machine-id"}, Exclude: []string{}},
			{Name: "@home", MountPoint: "/home", Keep: []string{"/*/Downloads"}, Exclude: []string{}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParsePlanFile (-want +got):\n%s", diff)
	}
	short, err := ParsePlanFile(strings.NewReader(`{"version":1,"volumes":[{"name":"v","mountPoint":"/","keepNothing":true}]}` + "\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	if short.Snapshots != "@snapshots" || short.Clean != "CLEAN" || short.Mode != "" || !short.Volumes[0].KeepNothing {
		t.Errorf("defaults = %+v, want @snapshots, CLEAN and no mode", short)
	}
}

// Everything that is wrong is an error of one line that names it.
func TestParsePlanFileErrors(t *testing.T) {
	for _, tt := range []struct{ name, old, text, says string }{
		{"empty", goodPlan, "", "it is empty"},
		{"blank", goodPlan, "\n \t\n", "it is empty"},
		{"null", goodPlan, "null", `field "version" is 0`},
		{"list", goodPlan, "[]", "the document is a array, want an object"},
		{"text", goodPlan, `"plan"`, "the document is a string, want an object"},
		{"not JSON", `"version"`, `version`, "not JSON at byte 5: invalid character 'v'"},
		{"cut off", goodPlan, goodPlan[:len(goodPlan)-1], "cut off"},
		{"trailing", "\n}", "\n} {}", "something follows the JSON document"},
		{"trailing text", "\n}", "\n}x", "something follows the JSON document"},
		{"unknown field", `"device"`, `"devices"`, `unknown field "devices"`},
		{"unknown field of a volume", `"exclude"`, `"excludes"`, `unknown field "excludes"`},
		{"unknown field with a newline", `"device"`, `"de\nvice"`, `unknown field "de\nvice"`},
		{"field in capitals", `"keep": ["/etc`, `"Keep": ["/etc`, `unknown field "Keep"`},
		{"field twice", `"exclude": []}`, `"exclude": [], "keep": []}`, `field "keep" is there twice`},
		{"version twice", `"device"`, `"version": 1, "device"`, `field "version" is there twice`},
		{"version", `"version": 1`, `"version": 2`, `field "version" is 2, this program reads version 1`},
		{"no version", `"version": 1,`, ``, `field "version" is 0, this program reads version 1`},
		{"version as text", `"version": 1`, `"version": "1"`, `field "version" is a string, want int`},
		{"fraction", `1773122722`, `1773122722.5`, `field "revision" is a number 1773122722.5, want int64`},
		{"rules as text", `["/*/Downloads"]`, `"/*/Downloads"`, `field "volumes.keep" is a string, want []string`},
		{"rule as number", `"/etc/ssh"`, `7`, `field "volumes.keep" is a number, want string`},
		{"keepNothing as text", `"exclude": []}`, `"exclude": [], "keepNothing": "yes"}`, `field "volumes.keepNothing" is a string, want bool`},
		{"mode", `"mode": "reset"`, `"mode": "rest"`, `field "mode": unknown mode "rest": use one of reset,`},
		{"snapshots with a slash", `"@snapshots"`, `"a/b"`, `field "snapshots": "a/b" cannot be the name of a subvolume: invalid argument`},
		{"snapshots dots", `"@snapshots"`, `".."`, `field "snapshots": ".." cannot be`},
		{"clean with a slash", `"CLEAN"`, `"a/b"`, `field "clean": "a/b" cannot be`},
		{"clean is PREVIOUS", `"CLEAN"`, `"PREVIOUS"`, `field "clean": "PREVIOUS" is the name of another snapshot`},
		{"clean is NEXT", `"CLEAN"`, `"NEXT"`, `field "clean": "NEXT" is the name of another snapshot`},
		{"clean is AGED", `"CLEAN"`, `"AGED-1"`, `field "clean": "AGED-1" begins with "AGED-"`},
		{"no volumes", goodPlan, `{"version": 1}`, `field "volumes" names no volume`},
		{"no volume", goodPlan, `{"version": 1, "volumes": []}`, `field "volumes" names no volume`},
		{"volume is null", goodPlan, `{"version": 1, "volumes": [null]}`, `volume 1 (""): it has no name`},
		{"volume without a name", `"name": "@home", `, ``, `volume 2 (""): it has no name`},
		{"volume with a slash", `"@home"`, `"a/home"`, `volume 2 ("a/home"): "a/home" cannot be the name of a subvolume: invalid argument`},
		{"volume with newline and slash", `"@home"`, `"a\n/b"`, `volume 2 ("a\n/b"): "a\n/b" cannot be`},
		{"volume with NUL", `"@home"`, `"a\u0000"`, `volume 2 ("a\x00"): "a\x00" cannot be`},
		{"volume too long", `"@home"`, `"` + strings.Repeat("h", 256) + `"`, `cannot be the name of a subvolume: file name too long`},
		{"volume is the snapshots", `"@home"`, `"@snapshots"`, `volume 2 ("@snapshots"): it is the subvolume of the snapshots`},
		{"volume twice", `"@home"`, `"@root"`, `volume "@root" is named twice`},
		{"mount point", `"/home"`, `"home"`, `volume 2 ("@home"): mount point "home" is not an absolute path`},
		{"no mount point", `"mountPoint": "/home", `, ``, `volume 2 ("@home"): mount point "" is not an absolute path`},
		{"rule with dots", `"/etc/ssh"`, `"/etc/../ssh"`, `volume 1 ("@root"): rule "/etc/../ssh": the path contains a "." or ".." component`},
		{"relative rule", `"/etc/ssh"`, `"etc/ssh"`, `rule "etc/ssh": the path does not begin with a slash`},
		{"empty rule", `"/etc/ssh"`, `""`, `rule "": the path is empty`},
		{"rule with newline and dots", `"/etc/ssh"`, `"/a\n/.."`, `rule "/a\n/.."`},
		{"rule of the root", `"/etc/ssh"`, `"/"`, `rule "/": the path is a volume's own mount point`},
		{"rule of the toolkit's own", `"/etc/ssh"`, `"/.boot-ready"`, `rule "/.boot-ready": the name is reserved`},
		{"exclude with dots", `"exclude": []`, `"exclude": ["/a/./b"]`, `volume 1 ("@root"): rule "/a/./b"`},
		{"not UTF-8", `/etc/ssh`, "/etc/caf\xe9", "it is not UTF-8"},
	} {
		plan, err := ParsePlanFile(strings.NewReader(strings.Replace(goodPlan, tt.old, tt.text, 1)))
		switch {
		case err == nil:
			t.Errorf("%s: no error, want %q", tt.name, tt.says)
		case !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), "plan file: ") || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: error %q, want one line with %q", tt.name, err, tt.says)
		case !errors.Is(err, ErrPlanFile) || plan != nil:
			t.Errorf("%s: error %v does not wrap ErrPlanFile, or a plan comes with it: %+v", tt.name, err, plan)
		}
	}
}

func TestParsePlanFileErrorsWrap(t *testing.T) {
	parse := func(old, text string) error {
		_, err := ParsePlanFile(strings.NewReader(strings.Replace(goodPlan, old, text, 1)))
		return err
	}
	for name, c := range map[string]struct{ err, want error }{
		"rule":     {parse(`"/etc/ssh"`, `"/a/.."`), keep.ErrDots},
		"mode":     {parse(`"mode": "reset"`, `"mode": "x"`), ErrMode},
		"name":     {parse(`"@home"`, `"a/b"`), unix.EINVAL},
		"too long": {parse(`"@home"`, `"`+strings.Repeat("h", 256)+`"`), unix.ENAMETOOLONG},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("error of %s = %v, want one that wraps %v", name, c.err, c.want)
		}
	}
	if _, err := ParsePlanFile(brokenReader{}); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, ErrPlanFile) {
		t.Errorf("ParsePlanFile of a reader that fails = %v", err)
	}
	if _, err := ParsePlanFile(endlessReader{}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("ParsePlanFile of an endless reader = %v, want that it is too long", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

type endlessReader struct{}

func (endlessReader) Read(b []byte) (int, error) {
	return copy(b, bytes.Repeat([]byte(" "), len(b))), nil
}

// What is read is valid, means the same when it is written and read again, and an
// error is one line.
func FuzzParsePlanFile(f *testing.F) {
	f.Add([]byte(goodPlan))
	f.Add([]byte(`{"version":1,"volumes":[{"name":"v","mountPoint":"/","keepNothing":true,"keep":["/a*/b//c/"]}]}`))
	f.Add([]byte(`{"version":1,"volumes":[{"name":"v","mountPoint":"/","KEEP":["/a"]}]}`))
	f.Add([]byte(`{"version":1,"volumes":[{"name":"a\n/","mountPoint":"/"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePlanFile(bytes.NewReader(text))
		if err != nil {
			if p != nil || !errors.Is(err, ErrPlanFile) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("ParsePlanFile(%q) = %v, %q, want one line that wraps ErrPlanFile", text, p, err)
			}
			return
		}
		if p.Version != PlanFileVersion || len(p.Volumes) == 0 || p.Snapshots == "" || p.Clean == "" {
			t.Fatalf("ParsePlanFile(%q) = %+v, which is not valid", text, p)
		}
		for _, v := range p.Volumes {
			if v.Name == "" || strings.ContainsAny(v.Name, "/\x00") || !strings.HasPrefix(v.MountPoint, "/") {
				t.Fatalf("ParsePlanFile(%q) = volume %+v, which is not valid", text, v)
			}
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		second, err := ParsePlanFile(bytes.NewReader(again))
		if err != nil {
			t.Fatalf("ParsePlanFile(%q), the same plan written again, = %v", again, err)
		}
		if diff := cmp.Diff(p, second); diff != "" {
			t.Errorf("the plan written and read again (-first +second):\n%s", diff)
		}
	})
}
