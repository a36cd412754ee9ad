package powercut

import (
	"os"
	"time"

	"nixos-go/pkg/btrfs"
)

// Commit ends the running transaction of a btrfs without writing the files' data
// first. The kernel does so on its own every thirty seconds, and whenever some
// other program needs it, so a program must survive it at any moment.
func Commit(top *os.File) error {
	const patience = 10 * time.Millisecond
	id, err := btrfs.StartSync(top)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- btrfs.WaitSync(top, id) }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
		}
		// The kernel's transaction thread misses a wakeup that comes just before
		// it goes to sleep, and then sleeps for the thirty seconds.
		if _, err := btrfs.StartSync(top); err != nil {
			return err
		}
	}
}
