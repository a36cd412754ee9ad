// Package reset puts btrfs subvolumes back into their factory state, except for
// the paths that their owner keeps.
//
// It works in three layers. A Plan says, path by path, what differs between the
// live volume and the state that the next boot gives it; MakePlan computes it
// from two or three read-only trees and changes nothing; Preview asks it about
// volumes in use, so nixos-diff and the reset cannot disagree. Applying a plan works on NEXT, a snapshot of the live
// volume, and never on the live volume itself. Run drives the volumes through
// snapshot, plan, apply, one sync, the exchange and the rotation of history, and
// first finishes what an earlier run left undone.
//
// At every instant the live name is a complete subvolume, old or new; see
// DESIGN sections 3 to 6 for the invariants and exchange.go for the order of steps
// that keeps them. Writes stay inside the snapshots subvolume and the volumes
// named in the plan file; no name found on disk is followed through a symlink.
package reset
