package btrfs

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOptions says how Mount mounts.
type MountOptions struct {
	ReadOnly bool
	// Flags and Values are further options of btrfs(5), such as skip_balance.
	Flags  []string
	Values map[string]string
}

// Mount mounts the top level (subvolid=5) of the file system on a device, without
// a mount point: nothing else sees the mount, and it is undone when the returned
// directory is closed, or the process ends however it ends. nosuid, nodev and
// noexec always; noatime, so that reading changes nothing.
//
// The error wraps the errno of fsconfig(2) or fsmount(2) and has the driver's own
// message where it left one.
func Mount(device string, options MountOptions) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &os.PathError{Op: "mount", Path: device, Err: err}
	}
	ctx, err := unix.Fsopen("btrfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(ctx)

	set := func(err error) error {
		if message := contextMessages(ctx); err != nil && message != "" {
			return fmt.Errorf("%w (%s)", err, message)
		}
		return err
	}
	if err := set(unix.FsconfigSetString(ctx, "source", device)); err != nil {
		return fail(err)
	}
	if err := set(unix.FsconfigSetString(ctx, "subvolid", "5")); err != nil {
		return fail(err)
	}
	flags := options.Flags
	attributes := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOATIME
	if options.ReadOnly {
		flags = append(slices.Clip(flags), "ro")
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	for _, flag := range flags {
		if err := set(unix.FsconfigSetFlag(ctx, flag)); err != nil {
			return fail(err)
		}
	}
	for name, value := range options.Values {
		if err := set(unix.FsconfigSetString(ctx, name, value)); err != nil {
			return fail(err)
		}
	}
	if err := set(unix.FsconfigCreate(ctx)); err != nil {
		return fail(err)
	}
	mount, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attributes)
	if err := set(err); err != nil {
		return fail(err)
	}
	defer unix.Close(mount) // the directory below holds the mount
	// The descriptor of fsmount is O_PATH, which no ioctl takes.
	root, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	return os.NewFile(uintptr(root), device), nil
}

// contextMessages reads what the driver wrote into the mount context's log.
func contextMessages(ctx int) string {
	var lines []string
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(ctx, buf)
		if err != nil || n <= 0 {
			return strings.Join(lines, "; ")
		}
		// "e message": the first letter is the level, error, warning or info.
		text := strings.TrimSpace(string(buf[:n]))
		if len(text) > 2 && text[1] == ' ' {
			text = text[2:]
		}
		lines = append(lines, text)
	}
}
