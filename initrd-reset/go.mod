module nixos-go/initrd-reset

go 1.26.0

require (
	golang.org/x/sys v0.50.0
	nixos-go v0.0.0
)

replace nixos-go => ../
