// Command nixos-install-go: see its package.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	"nixos-go/tools/install"
)

func main() { os.Exit(clikit.Main(install.App())) }
