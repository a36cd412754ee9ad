module nixos-go/initrd-reset

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	golang.org/x/sys v0.50.0
	nixos-go v0.0.0
)

replace nixos-go => ../
