// Command nixos-update: see its package.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	"nixos-go/tools/update"
)

func main() { os.Exit(clikit.Main(update.App())) }
