package history

import "slices"

// Shrink cuts a log that makes a test fail down to one that still does and of
// which no single operation can be left out. The function says whether a log
// fails, on a fresh volume; operations that a shorter log makes impossible are
// its to skip.
func Shrink(ops []Op, fails func([]Op) bool) []Op {
	for size := len(ops) / 2; size > 0; size /= 2 {
		for shorter := true; shorter; {
			shorter = false

			for at := 0; at < len(ops); {
				rest := slices.Delete(slices.Clone(ops), at, min(at+size, len(ops)))
				if fails(rest) {
					ops, shorter = rest, true
				} else {
					at += size
				}
			}
		}
	}

	return ops
}
