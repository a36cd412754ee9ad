// Command nixos-fix-permissions: see its package.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	fixpermissions "nixos-go/tools/fix_permissions"
)

func main() { os.Exit(clikit.Main(fixpermissions.App())) }
