// The command nixos-secure-boot.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	secureboottool "nixos-go/tools/secure_boot"
)

func main() { os.Exit(clikit.Main(secureboottool.App())) }
