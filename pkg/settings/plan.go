package settings

import (
	"errors"
	"fmt"
	"io/fs"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
)

// ReadPlan reads a plan of the reset, [PlanFile] of a generation or the running
// system's; nil where there is none, since nothing is reset there.
func ReadPlan(files run.Files, name string) (*reset.PlanFile, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // a system without a reset is none that failed to be read
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plan, err := reset.ParsePlanFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return plan, nil
}
