// The command gpu-vfio.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	gpuvfio "nixos-go/tools/gpu_vfio"
)

func main() { os.Exit(clikit.Main(gpuvfio.App())) }
