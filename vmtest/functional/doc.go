// Package functional holds the tests of whole machines: a real kernel, systemd
// in the initrd with the unit that the NixOS modules install, an encrypted disk,
// the real reset and the real tools. What they stand on is [full.Guest].
//
// They run when VM=full is in the environment (`just vm`), since each boots a
// machine several times, under emulation for half a minute each.
package functional
