package reset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// listSnapshots names what stands in the folder of a volume.
func listSnapshots(dir *os.File) ([]string, error) {
	f, err := openDir(dir, "")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// rotate makes room for a new PREVIOUS: PENULTIMATE ages out, PREVIOUS becomes
// PENULTIMATE. Cut off anywhere, it goes on from what is there.
func (v *volume) rotate() error {
	previous, err := v.snapshotInfo(NamePrevious)
	if err != nil || previous == nil {
		return err // rotated already, or the first boot
	}
	if err := v.age(NamePenultimate); err != nil {
		return err
	}
	return v.rename(NamePrevious, NamePenultimate)
}

// takeCurrent makes CURRENT from the live volume, and on a first boot PENULTIMATE
// from CLEAN. Both commit, together; with them all that came before is on disk.
func (v *volume) takeCurrent() error {
	if err := v.age(NameCurrent); err != nil {
		return err
	}
	penultimate, err := v.snapshotInfo(NamePenultimate)
	if err != nil {
		return err
	}
	live, err := v.openLive()
	if err != nil {
		return err
	}
	defer live.Close()
	tasks := []func() error{func() error {
		return v.step("snapshot CURRENT", func() error {
			v.start.meet()
			return btrfs.Snapshot(live, v.dir, NameCurrent, true)
		})
	}}
	if v.start == nil { // finishing an earlier run, each volume for itself
		v.start = newRendezvous(1)
	}
	if penultimate == nil {
		tasks = append(tasks, v.cleanAsPenultimate)
	}
	return together(tasks...)
}

func (v *volume) cleanAsPenultimate() error {
	clean, err := openDir(v.dir, v.plan.Clean)
	if err != nil {
		return err
	}
	defer clean.Close()
	return v.step("snapshot CLEAN as PENULTIMATE", func() error {
		return btrfs.Snapshot(clean, v.dir, NamePenultimate, true)
	})
}

// together runs tasks at the same time, so that their snapshots share a commit, and
// joins their errors.
func together(tasks ...func() error) error {
	switch len(tasks) {
	case 0:
		return nil
	case 1:
		return tasks[0]()
	}
	errs := make([]error, len(tasks))
	done := make(chan struct{})
	for i, task := range tasks {
		go func() {
			errs[i] = task()
			done <- struct{}{}
		}()
	}
	for range tasks {
		<-done
	}
	return errors.Join(errs...)
}

// inParallel does the same to each name, a few at a time, and joins the errors.
func inParallel(names []string, work func(name string) error) error {
	const most = 8
	var tasks []func() error
	for first := range min(most, len(names)) {
		tasks = append(tasks, func() error {
			var errs []error
			for i := first; i < len(names); i += most {
				errs = append(errs, work(names[i]))
			}
			return errors.Join(errs...)
		})
	}
	return together(tasks...)
}

// replaceRecord writes another record over the one in the root of a volume, and leaves
// it as the last thing that changed there. One write, so that it is the old or the new
// one whole, and nothing in the root directory changes; spaces fill up to the old size.
func replaceRecord(root *os.File, record *Record) error {
	f, err := openBeneath(root, ReadyName, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: ReadyName, Err: err}
	}
	if st.Nlink != 1 || st.Mode&modeType != unix.S_IFREG || st.Size > maxRecord {
		return &os.PathError{Op: "replace", Path: ReadyName, Err: unix.EMLINK}
	}
	text, err := record.encode()
	if err != nil {
		return err
	}
	if fill := int(st.Size) - len(text); fill > 0 {
		text = append(text, bytes.Repeat([]byte{' '}, fill)...)
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return touchRecord(root)
}

// writeRecord puts the record into the root of a volume under construction, where
// nothing has its name. The caller puts the root's time back.
// made is the first inode that this run made, or 0: all from it to the record's own,
// the last, lie outside kept paths.
func writeRecord(root *os.File, record *Record, made uint64) error {
	fd, err := unix.Openat(int(root.Fd()), ReadyName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: ReadyName, Err: err}
	}
	f := os.NewFile(uintptr(fd), ReadyName)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: ReadyName, Err: err}
	}
	if made != 0 {
		record.Outside = makeRanges(nil, append(record.Outside, Range{made, st.Ino})...)
	}
	text, err := record.encode()
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, 0, 0); err != nil {
		return &os.PathError{Op: "chown", Path: ReadyName, Err: err}
	}
	if err := removeXattrs(ReadyName, fdXattrs{f}, nil); err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	_, err = f.Write(text)
	return err
}

// touchRecord makes the record the last thing that changed in a live volume.
func touchRecord(live *os.File) error {
	f, err := openRegular(live, ReadyName)
	if err != nil {
		return fmt.Errorf("touch record: %w", err)
	}
	defer f.Close()
	return unix.Futimes(int(f.Fd()), nil)
}
