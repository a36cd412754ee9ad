// Command powercut cuts the power of resets, on the host, without a virtual machine.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	"nixos-go/vmtest/powercut/resets"
)

func main() {
	if status, called := resets.Helper(os.Args[1:], os.Stderr); called {
		os.Exit(status)
	}
	os.Exit(clikit.Main(app(clikit.System())))
}
