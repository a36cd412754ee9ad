package nix_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// attributes are the names in nixpkgs of Debian's packages, where they differ.
var attributes = map[string]string{
	"cryptsetup-bin":     "cryptsetup",
	"groff-base":         "groff",
	"qemu-system-arm":    "qemu",
	"qemu-system-common": "qemu",
	"qemu-system-x86":    "qemu",
	"qemu-utils":         "qemu",
	"tar":                "gnutar",
	"xz-utils":           "xz",
	"zbar-tools":         "zbar",
}

// onlyDebian are packages that no script asks for elsewhere: files, not programs.
var onlyDebian = regexp.MustCompile(`^(ovmf|libtss2-.*)$`)

// What the scripts install on Debian, the flake's shell has on NixOS.
func TestShellHasWhatScriptsNeed(t *testing.T) {
	flake, err := os.ReadFile("../flake.nix")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob("../scripts/*")
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^ *(?:.*\|\| )?need (.*)$`).FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(line[1])
			for i := 1; i < len(words); i += 2 {
				name := words[i]
				if onlyDebian.MatchString(name) {
					continue
				}
				if other, differs := attributes[name]; differs {
					name = other
				}
				packages++
				if !regexp.MustCompile(`pkgs\.` + regexp.QuoteMeta(name) + `\b`).Match(flake) {
					t.Errorf("%s needs %s: the flake's shell has no pkgs.%s", script, words[i], name)
				}
			}
		}
	}
	if packages < 20 {
		t.Errorf("%d packages found in the scripts, want all of them", packages)
	}
}

// The units start programs that take what they are started with.
func TestUnitsStartWhatExists(t *testing.T) {
	for unit, test := range map[string]struct{ module, says string }{
		"immutability":         {"../initrd-reset", "/etc/immutability/plan.json"},
		"immutability-cleanup": {"../tools/snapshot/cmd/nixos-snapshot", "nixos-snapshot gc: delete what the resets put aside"},
	} {
		text, err := os.ReadFile("tests/golden/" + unit + ".service")
		if err != nil {
			t.Fatal(err)
		}
		line := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(string(text))
		if line == nil {
			t.Fatalf("%s.service starts nothing", unit)
		}
		args := strings.Fields(line[1])[1:]
		if unit == "immutability" {
			args = append(args, "--dry-run") // there is no plan here, which is another error than a flag that is unknown
		} else {
			args = append(args, "--help")
		}
		out, err := run(t, test.module, args...)
		if err != nil && unit != "immutability" {
			t.Errorf("%s: %v\n%s", line[1], err, out)
		}
		if !strings.Contains(out, test.says) {
			t.Errorf("%s: want %q in:\n%s", line[1], test.says, out)
		}
	}
}

// run builds a program of this repository and runs it.
func run(t *testing.T, module string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"run", module}, args...)...).CombinedOutput()
	return string(out), err
}
