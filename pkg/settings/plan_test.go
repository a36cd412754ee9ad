package settings

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixos-go/pkg/run"
)

func TestReadPlan(t *testing.T) {
	root := t.TempDir()
	if plan, err := ReadPlan(run.Below(root), PlanFile); plan != nil || err != nil {
		t.Errorf("ReadPlan where there is none = %v, %v; want nil, nil", plan, err)
	}
	for text, want := range map[string]string{
		`{"version": 1, "volumes": [{"name": "@root", "mountPoint": "/", "keep": ["/k"]}]}`: "",
		`{"version": 2}`: "version",
		`{"version": 1, "volumes": [{"name": "@root", "mountPoint": "/", "keep": ["/a/../b"]}]}`: "..",
	} {
		name := filepath.Join(root, PlanFile)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		plan, err := ReadPlan(run.Below(root), PlanFile)
		switch {
		case want == "":
			if err != nil || len(plan.Volumes) != 1 || plan.Volumes[0].Name != "@root" {
				t.Errorf("ReadPlan(%s) = %+v, %v", text, plan, err)
			}
		case err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "plan.json"):
			t.Errorf("ReadPlan(%s) = %v, want an error that names the file and %q", text, err, want)
		}
	}
	// A folder that nobody may read is no missing plan.
	if _, err := ReadPlan(run.Below(root), PlanFile+"/below"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadPlan below a file = %v, want an error", err)
	}
}
