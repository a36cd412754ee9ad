package snapshot

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"nixos-go/pkg/clikit"
)

// absolutePaths makes arguments paths of the mounted system: relative ones begin at the
// working directory. A component that leads upwards is refused, since what it leads to
// depends on symlinks.
func absolutePaths(args []string) ([]string, error) {
	out := make([]string, 0, len(args))
	for _, arg := range args {
		if arg == "" || slices.Contains(strings.Split(arg, "/"), "..") {
			return nil, clikit.Usagef("%q: write the path without \"..\"", arg)
		}
		name, err := filepath.Abs(arg)
		if err != nil {
			return nil, err
		}
		out = append(out, path.Clean(name))
	}
	return out, nil
}
