// Command nixos-diff: see its package.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	"nixos-go/tools/diff"
)

func main() { os.Exit(clikit.Main(diff.App())) }
