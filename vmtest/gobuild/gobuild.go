// Package gobuild builds the project's own static programs for guests.
package gobuild

import (
	"context"
	"fmt"

	"nixos-go/pkg/run"
)

// Build builds the main package at an import path, statically, for an
// architecture, into a file. Go's build cache makes the second time cheap. The
// working directory has to be inside the project.
func Build(ctx context.Context, arch, importPath, out string) error {
	command := run.New("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, importPath)
	command.Env = []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch}
	if _, err := (&run.Local{}).Run(ctx, command); err != nil {
		return fmt.Errorf("build %s for %s: %w", importPath, arch, err)
	}
	return nil
}
