package snapshot

import (
	"errors"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
)

// undone is the result of rebase --undo.
type undone struct {
	Applied bool `json:"applied"`
	// Clean are the UUIDs of the CLEANs that are in place then, by volume.
	Clean map[string]string `json:"clean"`
}

func (t tool) undo(c *cli.Context) error {
	options := clikit.OptionsOf(c)
	m, names, err := t.openVolumes(c, nextBoot, options.DryRun)
	if err != nil {
		return err
	}
	defer m.close()
	if !c.Args().Present() {
		names = m.undoable(names)
	}
	if len(names) == 0 {
		return clikit.WithHint(errors.New("no factory state before the present one is there any more"),
			"rebase keeps it until a boot has reset to the present one; then gc deletes it")
	}
	result := undone{Applied: !options.DryRun}
	result.Clean, err = reset.UndoCleans(m.top, m.plan, names, reset.CleanOptions{DryRun: options.DryRun})
	if err != nil {
		return err
	}
	if options.JSON {
		return t.env.UI.JSON(result)
	}
	for _, name := range names {
		if options.DryRun {
			t.env.UI.Infof("%s would have the factory state of before again", name)
			continue
		}
		t.env.UI.Donef("%s has the factory state of before again", name)
	}
	return nil
}

// undoable gives the volumes whose CLEAN before the newest one is there.
func (m *machine) undoable(names []string) []string {
	var out []string
	for _, name := range names {
		if _, err := reset.UndoCleans(m.top, m.plan, []string{name}, reset.CleanOptions{DryRun: true}); err == nil {
			out = append(out, name)
		}
	}
	return out
}
