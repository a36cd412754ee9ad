// Package resets is the table of what of this project has its power cut: resets
// in every mode, on a first boot and on a tenth, with and without room on the
// disk, and what goes with them. It is used by the powercut command and by tests.
//
// # What is checked
//
// Everything is compared whole, path by path, with what the slow model of a
// reset reads (pkg/testx/model): content, times, owners, attributes, links.
//
// After a cut, for each volume on its own:
//   - I1: the live volume is the old state or the new one, exactly. Nested
//     subvolumes that follow after the exchange are complete, and in the old
//     state's place or in the new one's.
//   - I3: the old state is there as the live volume, NEXT, PREVIOUS or REPLACED;
//     the earlier history is there too, and where the live volume is still the
//     old state, under its old names. CLEAN is as it was.
//
// After the next run, and after one more (I2): the live volume, the snapshots and
// what is read-only are a state that runs without a cut reached. Which these are
// is learned from such runs, for a disk on which the program had not begun and
// for one on which it was done. What the first of them left is also held against
// the model, so it is not only repeatable but right.
package resets
