package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"nixos-go/pkg/run"
)

// stateFile says how far an installation came. It is in memory: after a reboot
// of the live system the disk has to be looked at anew.
const stateFile = "/run/nixos-go/install.json"

// state is an unfinished installation.
type state struct {
	Version int `json:"version"`
	// Flake is the folder that is installed from.
	Flake  string     `json:"flake"`
	Host   string     `json:"host"`
	Device string     `json:"device"`
	Done   []stepName `json:"done"`
	// Working is the step that was begun.
	Working stepName `json:"working"`
}

const stateVersion = 1

// readState reads the state; nil where no installation is unfinished.
func readState(files run.Files) (*state, error) {
	text, err := files.ReadFile(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no unfinished installation is the usual case
	}
	if err != nil {
		return nil, err
	}
	var st state
	if err := json.Unmarshal(text, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("%s: version %d is not known", stateFile, st.Version)
	}
	return &st, nil
}

// write keeps the state.
func (st *state) write(files run.Files) error {
	text, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := files.MkdirAll("/run/nixos-go", 0o700); err != nil {
		return err
	}
	return files.WriteFile(stateFile, append(text, '\n'), 0o600)
}

// next is the first step that is not done.
func (st *state) next() stepName {
	for _, name := range allSteps {
		if !slices.Contains(st.Done, name) {
			return name
		}
	}
	return stepFinish
}

// begin and finish note a step.
func (st *state) begin(files run.Files, name stepName) error {
	st.Working = name
	return st.write(files)
}

func (st *state) finish(files run.Files, name stepName) error {
	st.Working = ""
	if !slices.Contains(st.Done, name) {
		st.Done = append(st.Done, name)
	}
	return st.write(files)
}
