// The command nixos-change-password.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	changepassword "nixos-go/tools/change_password"
)

func main() { os.Exit(clikit.Main(changepassword.App())) }
