package reset

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// create makes what CLEAN has at a path, in NEXT: in the trash folder first, then
// by a rename into its directory.
func (a *applier) create(path string, dir *os.File, name string) error {
	trash, err := a.trashFor(path)
	if err != nil {
		return err
	}
	a.counter++
	temporary := strconv.Itoa(a.counter)
	src, cleanName, err := a.openCleanParent(path)
	if err != nil {
		return err
	}
	isDir, err := a.copyOne(src, cleanName, trash.dir, temporary, path)
	if err != nil {
		return err
	}
	if isDir {
		if err := a.copyTree(path, trash.path+"/"+temporary); err != nil {
			return err
		}
	}
	if err := unix.Renameat2(int(trash.dir.Fd()), temporary, int(dir.Fd()), name, unix.RENAME_NOREPLACE); err != nil {
		return &os.PathError{Op: "put in place", Path: name, Err: err}
	}
	return nil
}

// copyTree fills a new directory with what CLEAN has in its directory at path and
// does not keep. It works from a list, not by recursion: the depth has no bound,
// the number of open files has.
func (a *applier) copyTree(path, made string) error {
	type pair struct{ path, made string }
	list := []pair{{path, made}}
	for i := 0; i < len(list); i++ {
		dirs, err := a.copyEntries(list[i].path, list[i].made)
		if err != nil {
			return err
		}
		for _, name := range dirs {
			list = append(list, pair{list[i].path + "/" + name, list[i].made + "/" + name})
		}
	}
	// The times come last, once nothing is made in the directories any more.
	for _, made := range slices.Backward(list) {
		if err := a.finishDir(made.path, made.made); err != nil {
			return fmt.Errorf("%q: %w", made.path, err)
		}
	}
	return nil
}

// copyEntries copies the entries of one directory and names the directories among
// them, which are still empty.
func (a *applier) copyEntries(path, made string) (dirs []string, err error) {
	src, err := openDir(a.clean, path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if isStub(&st) {
		return nil, nil
	}
	dst, err := openDir(a.next, made)
	if err != nil {
		return nil, err
	}
	defer dst.Close()
	state := stateAt(a.plan.matcher, path)
	names, err := src.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		child := path + "/" + name
		if state.Step(name).Kept() {
			continue
		}
		if to := a.plan.links[child]; to != "" {
			a.links = append(a.links, link{child, to})
			continue
		}
		isDir, err := a.copyOne(src, name, dst, name, child)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", child, err)
		}
		if isDir {
			dirs = append(dirs, name)
		}
	}
	return dirs, nil
}

// isStub reports whether a directory of CLEAN stands for a nested subvolume: then
// the new state gets a plain empty directory, 0755 root.
func isStub(st *unix.Stat_t) bool {
	return st.Mode&modeType == modeDir && (st.Ino == btrfs.EmptyDirID || st.Ino == rootInode)
}

// copyOne copies one entry; a directory stays empty and gets its metadata later.
func (a *applier) copyOne(src *os.File, name string, dst *os.File, made, path string) (isDir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(src.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	fd := int(dst.Fd())
	switch st.Mode & modeType {
	case unix.S_IFDIR:
		err = unix.Mkdirat(fd, made, 0o700)
		if err == nil && isStub(&st) {
			err = unix.Fchmodat(fd, made, 0o755, 0)
		}
		return true, pathError("make directory", path, err)
	case unix.S_IFREG:
		locks, err := copyFile(src, name, dst, made, path, &st)
		if locks != 0 {
			a.locked[path] = locks
		}
		return false, err
	}
	return false, copySpecial(src, name, dst, made, path, &st)
}

// copySpecial copies what is neither a directory nor a regular file.
func copySpecial(src *os.File, name string, dst *os.File, made, path string, st *unix.Stat_t) error {
	fd := int(dst.Fd())
	if st.Mode&modeType == unix.S_IFLNK {
		target, err := readLink(src, name, st.Size)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, fd, made); err != nil {
			return pathError("make symlink", path, err)
		}
	} else if err := unix.Mknodat(fd, made, st.Mode&(modeType|0o7777), int(st.Rdev)); err != nil {
		return pathError("make special file", path, err)
	}
	return copyMetadataAt(src, name, dst, made, st)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

func readLink(dir *os.File, name string, size int64) (string, error) {
	for buf := make([]byte, size+1); ; buf = make([]byte, 2*len(buf)) {
		n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
		if err != nil {
			return "", &os.PathError{Op: "read symlink", Path: name, Err: err}
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
	}
}

// copyFile makes a regular file that shares its extents with CLEAN's. It gives the
// flags that forbid changes, which are left to set at the end.
func copyFile(srcDir *os.File, name string, dstDir *os.File, made, path string, st *unix.Stat_t) (locks uint32, err error) {
	src, err := openRegular(srcDir, name)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	fd, err := unix.Openat(int(dstDir.Fd()), made, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return 0, &os.PathError{Op: "create", Path: path, Err: err}
	}
	dst := os.NewFile(uintptr(fd), path)
	defer dst.Close()
	flags, err := btrfs.Flags(src)
	if err != nil {
		return 0, err
	}
	// NOCOW can only be set while the file is empty, and cloning wants both files
	// to agree on it.
	if flags&^lockFlags != 0 {
		if err := btrfs.SetFlags(dst, flags&^lockFlags); err != nil {
			return 0, err
		}
	}
	if st.Size > 0 {
		if err := cloneOrCopy(dst, src, st.Size); err != nil {
			return 0, err
		}
	}
	if flags&lockFlags != 0 {
		locks = flags
	}
	return locks, copyMetadataToNew(src, dst, st)
}

// cloneOrCopy shares the extents, or where that is impossible copies the data and
// leaves the holes.
func cloneOrCopy(dst, src *os.File, size int64) error {
	err := btrfs.Clone(dst, src)
	if err == nil || errors.Is(err, unix.ENOSPC) {
		return err
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole to the end
		}
		if err != nil {
			return &os.PathError{Op: "seek", Path: src.Name(), Err: err}
		}
		end, err := unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return &os.PathError{Op: "seek", Path: src.Name(), Err: err}
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, start), io.NewSectionReader(src, start, end-start)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// finishDir gives a directory that apply made CLEAN's metadata.
func (a *applier) finishDir(path, made string) error {
	src, err := openDir(a.clean, path)
	if err != nil {
		return err
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if isStub(&st) {
		return nil
	}
	dst, err := openDir(a.next, made)
	if err != nil {
		return err
	}
	defer dst.Close()
	flags, err := btrfs.Flags(src)
	if err != nil {
		return err
	}
	if flags&^lockFlags != 0 {
		if err := btrfs.SetFlags(dst, flags&^lockFlags); err != nil {
			return err
		}
	}
	if flags&lockFlags != 0 {
		a.locked[path] = flags
	}
	return copyMetadata(src, dst, &st)
}
