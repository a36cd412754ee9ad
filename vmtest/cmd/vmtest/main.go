// Command vmtest sets up, runs and looks into the virtual machines of the tests.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
)

func main() { os.Exit(clikit.Main(app(clikit.System()))) }
