// The command nixos-tpm2.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	tpm2tool "nixos-go/tools/tpm2"
)

func main() { os.Exit(clikit.Main(tpm2tool.App())) }
