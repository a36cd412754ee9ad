package diff

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/tooltest"
)

func TestMain(m *testing.M) {
	tooltest.Main(m, tooltest.Tools{"nixos-diff": newApp})
}

// TestScripts runs whole command lines on a machine of a loop disk. Beside the usual
// commands they have
//
//	disk   makes a btrfs file system: $DEVICE, its top level mounted at $TOP, with the
//	       subvolumes @root, @home and @snapshots/{@root,@home}; and fills the device
//	       in where a plan below $WORK has DEVICE
//	clean  takes CLEAN of both volumes
//	boot   resets the volumes by root/etc/immutability/plan.json
func TestScripts(t *testing.T) {
	tooltest.Scripts(t, "testdata", func(p *testscript.Params) {
		p.Cmds["disk"] = disk
		p.Cmds["clean"] = clean
		p.Cmds["boot"] = boot
	})
}

func disk(ts *testscript.TestScript, _ bool, _ []string) {
	fs := testx.NewFilesystem(tooltest.TB(ts), 512<<20, testx.WithMountOptions("noatime"))
	ts.Setenv("DEVICE", fs.Device)
	ts.Setenv("TOP", fs.Mount)
	ts.Check(ts.Exec("sh", "-ec", `cd "$TOP"
		for v in @root @home @snapshots; do btrfs -q subvolume create $v; done
		mkdir -m 0700 @snapshots/@root @snapshots/@home`))
	ts.Check(filepath.WalkDir(ts.Getenv("WORK"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "plan.json" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "DEVICE", fs.Device)), 0o644)
	}))
}

func clean(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(ts.Exec("sh", "-ec", `cd "$TOP"
		for v in @root @home; do btrfs -q subvolume snapshot -r $v @snapshots/$v/CLEAN; done`))
}

func boot(ts *testscript.TestScript, _ bool, _ []string) {
	f, err := os.Open(ts.MkAbs("root/etc/immutability/plan.json"))
	ts.Check(err)
	defer f.Close()
	plan, err := reset.ParsePlanFile(f)
	ts.Check(err)
	top, err := os.Open(ts.Getenv("TOP"))
	ts.Check(err)
	defer top.Close()
	report, err := reset.Run(top, plan, reset.Options{})
	ts.Check(err)
	if report.Failed() {
		ts.Fatalf("reset: %+v", report)
	}
}
