package reset

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// ErrCheck says that a run refused to start: nothing was written.
var ErrCheck = errors.New("nothing was touched")

// checkFilesystem checks what concerns every volume.
func checkFilesystem(top *os.File, dryRun bool) error {
	on, err := btrfs.IsBtrfs(top)
	if err != nil {
		return err
	}
	if !on {
		return fmt.Errorf("%q is not on btrfs", top.Name())
	}
	info, err := btrfs.ReadInfo(top)
	if err != nil {
		return err
	}
	if info.ID != btrfs.TopLevelID {
		return fmt.Errorf("%q is subvolume %d, not the top level: mount it with subvolid=5", top.Name(), info.ID)
	}
	if is, err := btrfs.IsSubvolume(top); err != nil || !is {
		return errors.Join(fmt.Errorf("%q is a folder, not the top level: name the mount point (subvolid=5)", top.Name()), err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(top.Fd()), &st); err != nil {
		return &os.PathError{Op: "statfs", Path: top.Name(), Err: err}
	}
	if st.Flags&unix.ST_RDONLY != 0 && !dryRun {
		return fmt.Errorf("%q is mounted read-only: look for errors of the disk in the kernel log", top.Name())
	}
	fs, err := btrfs.ReadFilesystem(top)
	if err != nil {
		return err
	}
	for _, d := range fs.Devices {
		if d.Missing() {
			return fmt.Errorf("the file system is degraded, its device %d is missing: replace it with `btrfs replace` first", d.ID)
		}
	}
	return nil
}

// openSnapshots opens and locks the snapshots subvolume. The lock goes with the
// descriptor, so it never outlives its process.
func openSnapshots(top *os.File, name string) (*os.File, error) {
	f, err := openSnapshotsUnlocked(top, name)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another run is at work on this file system: wait for it")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	return f, nil
}

// openSnapshotsUnlocked opens the snapshots subvolume for who only looks.
func openSnapshotsUnlocked(top *os.File, name string) (*os.File, error) {
	f, err := openDir(top, name)
	if err != nil {
		return nil, fmt.Errorf("snapshots subvolume %q: %w", name, err)
	}
	if is, err := btrfs.IsSubvolume(f); err != nil || !is {
		f.Close()
		return nil, errors.Join(fmt.Errorf("%q is not a subvolume: create it with `btrfs subvolume create`", name), err)
	}
	return f, nil
}

// check looks at everything that concerns this volume alone. Without a list of
// mounts it may be mounted, which is all right for who only looks.
func (v *volume) check(snapshots *os.File, mode Mode, mountInfo io.Reader) error {
	live, err := v.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	if is, err := btrfs.IsSubvolume(live); err != nil || !is {
		return errors.Join(fmt.Errorf("%q is a plain directory, not a subvolume: move it away, "+
			"`btrfs subvolume create` one of that name and move the files there", v.spec.Name), err)
	}
	if err := checkFlags(live, v.spec.Name); err != nil {
		return err
	}
	if v.dir, err = openDir(snapshots, v.spec.Name); err != nil {
		return fmt.Errorf("its snapshots (take the first with `nixos-snapshot init`): %w", err)
	}
	if err := v.checkSnapshots(mode); err != nil {
		return err
	}
	if len(v.spec.Keep) == 0 && !v.spec.KeepNothing && mode == ModeReset {
		return errors.New("its rules keep nothing: if that is meant, say \"keepNothing\": true in the plan")
	}
	info, err := btrfs.ReadInfo(live)
	if err != nil {
		return err
	}
	if mode == ModeSnapshotOnly {
		return nil
	}
	return v.checkExchange(live, info, mountInfo)
}

// checkExchange looks at what would stop the exchange, or make it useless.
func (v *volume) checkExchange(live *os.File, info btrfs.Info, mountInfo io.Reader) error {
	id, err := btrfs.DefaultID(v.top)
	if err != nil {
		return err
	}
	if id == info.ID {
		return errors.New("it is the default subvolume of the file system, which would go on pointing at the old state: " +
			"run `btrfs subvolume set-default 5` on it, and mount by name")
	}
	if info.ReadOnly {
		return errors.New("it is read-only: run `btrfs property set` on it, with `ro false`")
	}
	if mountInfo == nil {
		return nil
	}
	where, err := mountedAt(mountInfo, live, info, v.spec.Name)
	if err != nil {
		return err
	}
	if where != "" {
		return fmt.Errorf("it is mounted at %q: the reset works before it is mounted, at boot", where)
	}
	return nil
}

// checkFlags refuses flags on the root of a subvolume that forbid to rename it, and
// any snapshot of it.
func checkFlags(root *os.File, name string) error {
	flags, err := btrfs.Flags(root)
	if err != nil || flags&lockFlags == 0 {
		return err
	}
	cure := "run `chattr -i -a` on it"
	if readOnly, err := btrfs.ReadOnly(root); err == nil && readOnly {
		cure += ", between `btrfs property set` with `ro false` and `ro true`"
	}
	return fmt.Errorf("the root of %q is immutable or append-only: %s", name, cure)
}

// checkSnapshots checks that what stands under the names of snapshots are
// subvolumes, and that the ones the mode needs are there.
func (v *volume) checkSnapshots(mode Mode) error {
	names, err := listSnapshots(v.dir)
	if err != nil {
		return err
	}
	present := map[string]bool{}
	for _, name := range names {
		switch name {
		case v.plan.Clean, NamePrevious, NamePenultimate, NameCurrent, NameNext, NameReplaced:
		default:
			if !IsAged(name) {
				continue
			}
		}
		if err := v.checkSnapshot(name); err != nil {
			return err
		}
		present[name] = true
	}
	if !present[v.plan.Clean] {
		return fmt.Errorf("there is no %s: take one with `nixos-snapshot init`", v.plan.Clean)
	}
	if source := mode.restoreSource(); mode.restores() && !present[source] && !v.pendingPrevious(present, source) {
		return fmt.Errorf("there is no %s to restore", source)
	}
	return nil
}

func (v *volume) checkSnapshot(name string) error {
	f, err := openDir(v.dir, name)
	if err != nil {
		return fmt.Errorf("%q is not a subvolume: move it away: %w", name, err)
	}
	defer f.Close()
	is, err := btrfs.IsSubvolume(f)
	if err != nil || !is {
		return errors.Join(fmt.Errorf("%q is a plain directory, not a subvolume: move it away", name), err)
	}
	if IsAged(name) {
		return nil // is never renamed again, and the cleanup lifts the flags
	}
	return checkFlags(f, name)
}

// pendingPrevious reports whether a run that was cut off will leave the snapshot
// that is missing now.
func (v *volume) pendingPrevious(present map[string]bool, source string) bool {
	return source == NamePrevious && present[NameNext]
}

// mountedAt gives a mount point of a subvolume, or of a part of it, and "" if it is
// mounted nowhere that this process can see (proc_pid_mountinfo(5)). The list may be
// that of another namespace.
func mountedAt(mountInfo io.Reader, live *os.File, info btrfs.Info, name string) (string, error) {
	fs, err := btrfs.ReadFilesystem(live)
	if err != nil {
		return "", err
	}
	scanner := bufio.NewScanner(mountInfo)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		root, point, source, ok := btrfsMount(scanner.Text())
		if !ok || !below(root, "/"+name) {
			continue
		}
		there, err := subvolumeAt(point, fs.ID)
		if err == nil && there == info.ID {
			return point, nil
		}
		if err == nil && there != 0 {
			continue // a subvolume that is nested in it
		}
		// Nothing of the file system is found there, but something may be mounted
		// over it, or the list may be that of another namespace: the device tells.
		// What nothing can tell may well be it.
		ours, known := onDevices(source, fs.Devices)
		if ours || err != nil && !known {
			return point, nil
		}
	}
	return "", scanner.Err()
}

// btrfsMount reads a line of mountinfo, if it is of btrfs: the path in the file
// system, the mount point and the device.
func btrfsMount(line string) (root, point, source string, ok bool) {
	where, what, found := strings.Cut(line, " - ")
	fields, kind := strings.Fields(where), strings.Fields(what)
	if !found || len(fields) < 5 || len(kind) < 2 || kind[0] != "btrfs" {
		return "", "", "", false
	}
	return unescape(fields[3]), unescape(fields[4]), unescape(kind[1]), true
}

// onDevices reports whether the source of a mount is a device of a file system, and
// whether that can be told: the driver gives the same names here as there, but a
// device may have several.
func onDevices(source string, devices []btrfs.Device) (ours, known bool) {
	number, known := deviceNumber(source)
	for _, d := range devices {
		if d.Path == source {
			return true, true
		}
		other, found := deviceNumber(d.Path)
		if found && known && other == number {
			return true, true
		}
		known = known && found
	}
	return false, known
}

func deviceNumber(path string) (number uint64, found bool) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Rdev, err == nil && st.Mode&modeType == unix.S_IFBLK
}

// subvolumeAt gives the tree id of the subvolume that a mount point shows, and 0 if
// it is none of the file system.
func subvolumeAt(point string, fs btrfs.UUID) (uint64, error) {
	f, err := os.OpenFile(point, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if on, err := btrfs.IsBtrfs(f); err != nil || !on {
		return 0, err
	}
	there, err := btrfs.ReadFilesystem(f)
	if err != nil || there.ID != fs {
		return 0, err
	}
	info, err := btrfs.ReadInfo(f)
	return info.ID, err
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	for _, e := range [...][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	return s
}
