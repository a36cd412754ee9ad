// Command nixos-eval: see its package.
package main

import (
	"os"

	"nixos-go/pkg/clikit"
	"nixos-go/tools/eval"
)

func main() { os.Exit(clikit.Main(eval.App())) }
