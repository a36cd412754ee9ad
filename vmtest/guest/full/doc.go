// Package full makes a guest that boots as a NixOS machine of this project does:
// an encrypted disk with an EFI partition and the subvolumes of DESIGN.md,
// systemd in the initrd, there the very unit of the reset that the NixOS modules
// install, and a whole system after it. What is not NixOS is the system itself:
// Debian, since that can be had wherever the tests run.
//
// [Build] makes it and caches each part by what it is made from: the tree by the
// versions of its packages, the rest by the tree and by this package's source.
// Nothing of it needs a device mapper or a virtual machine: the disk is
// encrypted here, sector by sector.
package full
