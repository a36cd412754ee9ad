package reset

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
	"nixos-go/pkg/keep"
)

// The order of steps, for all volumes together:
//
//	snapshot   NEXT from live; commits                           live = OLD
//	apply      NEXT becomes N
//	sync       N is on disk
//	exchange   live <-> NEXT                                      live = N
//	moves      nested subvolumes below kept paths follow
//	rotate     PENULTIMATE -> AGED, PREVIOUS -> PENULTIMATE, NEXT -> PREVIOUS
//	current    old CURRENT -> AGED, CURRENT from live; commits all since the sync
//
// All between the sync and the last commit is one transaction unless the kernel
// happens to commit in between, and its steps reach the disk in this order, so a
// crash leaves a prefix of them. finishEarlier tells every prefix from the others.

// exchange swaps live and NEXT and does what has to follow. What goes wrong after
// the swap is left for the next run to finish, and told.
func (v *volume) exchange(mode Mode) error {
	if mode == ModeSnapshotOnly {
		return v.afterSnapshot()
	}
	err := v.step("exchange", func() error {
		return v.withRoom(func() error {
			return pathError("exchange", v.spec.Name, unix.Renameat2(
				int(v.top.Fd()), v.spec.Name, int(v.dir.Fd()), NameNext, unix.RENAME_EXCHANGE))
		})
	})
	if err != nil {
		return v.dropNext(err)
	}
	if err := v.afterExchange(mode); err != nil {
		v.warnf("the new state is in place, the rest is left to the next run: %v", explainSpace(err))
	}
	return nil
}

// afterSnapshot puts the snapshot of snapshot-only into history. As long as nothing
// there has moved, it can as well go.
func (v *volume) afterSnapshot() error {
	v.renamed = false // what finished an earlier run does not count
	err := v.keepSnapshot()
	if err != nil && v.renamed {
		v.warnf("the snapshot is taken, the rest is left to the next run: %v", explainSpace(err))
		return nil
	}
	return v.dropNext(err)
}

// dropNext drops NEXT because of an error, if it is one.
func (v *volume) dropNext(err error) error {
	if err == nil {
		return nil
	}
	if dropErr := v.discardNext(); dropErr != nil {
		return fmt.Errorf("%w; drop the new state: %w", err, dropErr)
	}
	return err
}

// maxRoomTries is how often a change is tried on a full disk.
const maxRoomTries = 4

// withRoom makes a change that needs little room, and must not fail for what is
// reserved at that moment: on a disk without any left, a commit gives reserved room
// back.
func (v *volume) withRoom(change func() error) error {
	err := change()
	for try := 1; try < maxRoomTries && errors.Is(err, unix.ENOSPC); try++ {
		if err := btrfs.Sync(v.top); err != nil {
			return err
		}
		err = change()
	}
	return err
}

func (v *volume) afterExchange(mode Mode) error {
	live, err := v.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	if err := v.moveNested(live, keep.NewMatcher(v.rules...)); err != nil {
		return err
	}
	if mode.restores() {
		return v.putAside()
	}
	if err := v.finishReset(); err != nil {
		return err
	}
	v.result.finished = true
	return nil
}
