// Package nixos is the lane with a real NixOS: its installer is booted, reached
// over the serial console and then ssh, gets the flake, and installs the host
// VM-TEST on an empty disk by nixos-install-go; then the disk boots.
//
// It needs nix and a network, takes most of an hour and some 20 GiB the first
// time, and runs when VM_GUEST=nixos is in the environment. Its steps are data
// ([Steps]) over two small interfaces, [Console] and [Remote]; a test runs them
// against a console and a shell that were written down.
package nixos
