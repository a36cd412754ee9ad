// Package powercut cuts the power of a btrfs disk at every instant that matters.
//
// It records what a program writes to a disk, replays prefixes of that record
// onto a copy of the disk as it was before, and asks of every such crash image
// what must hold: the file system checks clean and mounts, the scenario's
// invariants hold, and the program, started again, finishes the work.
//
// # What a crash can leave
//
// A disk has a volatile cache. A write that has completed may be on the medium
// or not, in any order, until the device was told to flush; a flush makes
// durable all that completed before it; a FUA write is durable when it
// completes, and says nothing of the writes before it. So, at the instant after
// entry E of the log, the disk holds all writes before the last flush, all FUA
// writes, and any subset of the others (the pending ones). Two pending writes of
// the same sectors take effect in the order in which they completed, if both do.
// A write is torn at a multiple of 4096 bytes, never within: that is the
// physical sector of a disk, and the size of a btrfs superblock, the only block
// that btrfs writes in place. A discard is a write of zeros that may be late like
// any other: discarded sectors promise nothing, and zeros are the least helpful
// answer.
//
// The crash points are taken from that:
//
//   - start: nothing of the record is on disk.
//   - flush: after a flush or a FUA write, with what is durable and nothing
//     else, the least that any disk holds from here on.
//   - write: after any single write or discard, with everything before it in
//     order: a disk without a cache.
//   - subset: anywhere between two flushes, with a random subset of the pending
//     writes: a disk that reorders. The seed that chose it is part of the
//     point's name, so it can be repeated.
//
// Copying the file behind a mounted loop device, or killing an emulator, models
// none of this: the kernel's page cache survives both.
//
// # How it is recorded
//
// qemu-storage-daemon serves a copy of the disk through its blklogwrites driver
// as a FUSE file, a loop device on that file is the disk that the program gets.
// The daemon serves one request after the other, and the loop driver submits
// them in the order of the file system, so the log is the order of completion.
// A write that completed in the daemon but was not yet reported to the file
// system when it asked for a flush is in the log before that flush, although no
// disk owes its durability; btrfs waits for its writes before it flushes, so no
// such write is lost sight of. The loop device knows no FUA: the block layer
// turns it into a write and a flush, and the model above covers both.
//
// The program commits when it has to; the kernel may at any other moment. Commit
// forces that, and package steptrace stops a program after each change that it
// makes, so that a recording can have a commit after every one.
//
// # How a point is tried
//
// The image is made from the disk before and the log, which costs a comparison of
// the disk's data and the writes up to the point. btrfs check looks at it, data
// checksums included; it is mounted and the scenario's checker looks at it; it is
// made anew, the next run works on it, then check, mount and checker again; and the
// same for one more run. What a checker accepts after these it has learned from runs
// that were not cut off. Images get a file system id of their own, or the kernel
// would mix up two of one recording.
//
// A recording is only believed if the replay of its whole log gives, byte for
// byte, the disk that the program left.
package powercut
