// Package btrfs speaks to the btrfs driver of the kernel by its ioctls, without
// btrfs-progs and without cgo.
//
// Every call takes an open *os.File, keeps no state of its own and owns no
// descriptor that it did not return. Errors are *os.PathError values around the
// errno, so errors.Is(err, unix.ENOSPC) works through every wrapping. Names are
// checked before the kernel sees them and never cut. Tree searches and most
// changes need CAP_SYS_ADMIN.
//
// The kernel structures stand in abi.go, each held to its size by a test; their
// source is include/uapi/linux/btrfs.h and btrfs_tree.h of Linux 6.18.
package btrfs
