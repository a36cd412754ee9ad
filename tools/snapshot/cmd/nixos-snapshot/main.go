// Command nixos-snapshot: see its package.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	"nixos-go/tools/snapshot"
)

func main() { os.Exit(clikit.Main(snapshot.App())) }
