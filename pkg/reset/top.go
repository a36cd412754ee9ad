package reset

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// OpenTop opens the top level (subvolid=5) of a file system: where it is mounted, if
// device is a directory, else by mounting it where nobody sees it. The mount goes
// with the returned directory.
func OpenTop(device string, readOnly bool) (*os.File, error) {
	st, err := os.Stat(device)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return os.Open(device)
	}
	// A paused balance would go on now and hold up the boot.
	options := btrfs.MountOptions{ReadOnly: readOnly, Flags: []string{"skip_balance"}}
	top, err := btrfs.Mount(device, options)
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%w (is it btrfs, and are all of its devices there?)", err)
	}
	return top, err
}
