package reset

import (
	"fmt"

	"golang.org/x/sys/unix"

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
		return v.keepSnapshot()
	}
	err := v.step("exchange", func() error {
		return pathError("exchange", v.spec.Name, unix.Renameat2(
			int(v.top.Fd()), v.spec.Name, int(v.dir.Fd()), NameNext, unix.RENAME_EXCHANGE))
	})
	if err != nil {
		if dropErr := v.discardNext(); dropErr != nil {
			err = fmt.Errorf("%w; drop the new state: %w", err, dropErr)
		}
		return err
	}
	if err := v.afterExchange(mode); err != nil {
		v.warnf("the new state is in place, the rest is left to the next run: %v", err)
	}
	return nil
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
