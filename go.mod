module nixos-go

go 1.25.0
