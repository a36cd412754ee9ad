module nixos-go/tools/toolkit

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/urfave/cli/v2 v2.27.7
	nixos-go v0.0.0
	nixos-go/tools/diff v0.0.0
	nixos-go/tools/eval v0.0.0
	nixos-go/tools/fix_permissions v0.0.0
	nixos-go/tools/install v0.0.0
	nixos-go/tools/update v0.0.0
)

require (
	github.com/foxboron/go-uefi v0.0.0-20251010190908-d29549a44f29 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/spf13/afero v1.9.3 // indirect
	golang.org/x/crypto v0.59.0 // indirect
)

require (
	github.com/AlecAivazis/survey/v2 v2.3.7 // indirect
	github.com/cpuguy83/go-md2man/v2 v2.0.7 // indirect
	github.com/creack/pty v1.1.24 // indirect
	github.com/go-crypt/x v0.4.16 // indirect
	github.com/kballard/go-shellquote v0.0.0-20180428030007-95032a82bc51 // indirect
	github.com/mattn/go-colorable v0.1.2 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/mgutz/ansi v0.0.0-20170206155736-9520e82c474b // indirect
	github.com/rogpeppe/go-internal v1.16.0 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/xrash/smetrics v0.0.0-20240521201337-686a1a2994c1 // indirect
	golang.org/x/sys v0.50.0 // indirect
	golang.org/x/term v0.48.0 // indirect
	golang.org/x/text v0.44.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	nixos-go/tools/change_password v0.0.0
	nixos-go/tools/gpu_vfio v0.0.0
	nixos-go/tools/secure_boot v0.0.0
	nixos-go/tools/snapshot v0.0.0
	nixos-go/tools/tpm2 v0.0.0
)

replace nixos-go => ../..

replace nixos-go/tools/diff => ../diff

replace nixos-go/tools/eval => ../eval

replace nixos-go/tools/fix_permissions => ../fix_permissions

replace nixos-go/tools/update => ../update

replace nixos-go/tools/install => ../install

replace nixos-go/tools/change_password => ../change_password

replace nixos-go/tools/gpu_vfio => ../gpu_vfio

replace nixos-go/tools/secure_boot => ../secure_boot

replace nixos-go/tools/tpm2 => ../tpm2

replace nixos-go/tools/snapshot => ../snapshot
