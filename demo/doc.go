// Command demo shows the reset on a disk of its own: a loop device over a file that
// has no name, mounted where nobody sees it. Nothing is left behind, also on Ctrl-C;
// even a kill leaves no more than a folder with the plan in it.
//
// It lays out the volumes as the installer does, lets a day of work happen, shows what
// the next boot would wipe, runs the real initrd-reset, cuts two resets off half way,
// and goes back to the state of the day before. Whatever it claims it has checked: the
// volumes are read whole, and compared with what pkg/testx/model, which shares no code
// with the reset, makes of the rules.
//
// scripts/demo builds it and runs it as root.
package main
