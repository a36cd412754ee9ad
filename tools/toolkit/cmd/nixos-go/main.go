// Command nixos-go is every tool of the toolkit in one program.
package main

import (
	"os"

	"nixos-go/tools/toolkit"
)

func main() { os.Exit(toolkit.Main(os.Args)) }
