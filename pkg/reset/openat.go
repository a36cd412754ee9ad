package reset

import (
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// openBeneath opens a path below an open directory. No component may be a
// symlink, and nothing can lead out of the directory. The path may be longer than
// PATH_MAX. A leading slash means the directory itself.
func openBeneath(dir *os.File, path string, flags int) (*os.File, error) {
	return resolveBeneath(dir, path, flags, 0)
}

// openMounted is openDir for a mounted volume: it refuses mount points on the way, and
// one that the path leads to, with EXDEV.
func openMounted(root *os.File, path string) (*os.File, error) {
	return resolveBeneath(root, path, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV)
}

// resolveBeneath is openBeneath with more conditions (openat2(2), RESOLVE_*).
func resolveBeneath(dir *os.File, path string, flags int, resolve uint64) (*os.File, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		path = "."
	}
	at := dir
	for len(path) >= maxStep {
		cut := strings.LastIndexByte(path[:maxStep], '/')
		if cut < 0 {
			return nil, &os.PathError{Op: "open", Path: path[:64] + "…", Err: unix.ENAMETOOLONG}
		}
		next, err := openStep(at, path[:cut], unix.O_PATH|unix.O_DIRECTORY, resolve)
		if at != dir {
			at.Close()
		}
		if err != nil {
			return nil, err
		}
		at, path = next, path[cut+1:]
	}
	f, err := openStep(at, path, flags, resolve)
	if at != dir {
		at.Close()
	}
	return f, err
}

// maxStep is how many bytes of a path one system call gets: less than PATH_MAX.
const maxStep = 4000

func openStep(dir *os.File, path string, flags int, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), path, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue // EAGAIN: a rename elsewhere raced with the walk
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: dir.Name() + "/" + path, Err: err}
		}
		return os.NewFile(uintptr(fd), dir.Name()+"/"+path), nil
	}
}

// openName opens one name in an open directory, no symlink.
func openName(dir *os.File, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// openDir opens a directory below another for reading and for the *at calls.
func openDir(dir *os.File, path string) (*os.File, error) {
	return openBeneath(dir, path, unix.O_RDONLY|unix.O_DIRECTORY)
}

// openRegular opens a regular file for reading; O_NONBLOCK, in case it is none.
func openRegular(dir *os.File, path string) (*os.File, error) {
	return openBeneath(dir, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME)
}

// splitPath gives the parent ("" for the root) and the name of a path.
func splitPath(path string) (parent, name string) {
	cut := strings.LastIndexByte(path, '/')
	return path[:cut], path[cut+1:]
}

// sameBytes compares two files from an offset on.
func sameBytes(a, b *os.File, from int64) (bool, error) {
	const chunk = 128 << 10
	bufA, bufB := make([]byte, chunk), make([]byte, chunk)
	for {
		n, errA := io.ReadFull(io.NewSectionReader(a, from, chunk), bufA)
		m, errB := io.ReadFull(io.NewSectionReader(b, from, chunk), bufB)
		if n != m || string(bufA[:n]) != string(bufB[:m]) {
			return false, nil
		}
		endA, endB := atEnd(errA), atEnd(errB)
		switch {
		case errA != nil && !endA:
			return false, errA
		case errB != nil && !endB:
			return false, errB
		case endA && endB:
			return true, nil
		case endA != endB:
			return false, nil
		}
		from += chunk
	}
}

func atEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// splitComponents gives the names that a path is made of.
func splitComponents(path string) []string {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}
