module nixos-go/initrd-reset

go 1.26.0

require nixos-go v0.0.0

replace nixos-go => ../
