// Command initrd-reset puts the volumes of a machine back into their factory state
// at boot, before they are mounted, except for the paths that their owner keeps.
//
// It is the only program of the reset in the initrd: static, without a shell or
// btrfs-progs. It reads the plan file, mounts the top level of the file system where
// nobody sees it, lets pkg/reset work, and reports. A failure never stops the boot:
// the volume stays as it was, and the journal, the report and the message at login
// say so.
//
// Exit status: 0 done, or nothing to do; 1 a volume was left as it was; 2 the call or
// the plan is wrong, and nothing was touched.
package main
