package history

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A place is a name in an open directory.
type place struct {
	dir  *os.File
	name string
}

// find opens the directory that a path is in, one component at a time and
// without following anything.
func find(root, path string) (place, error) {
	dir, err := openAt(unix.AT_FDCWD, root, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return place{}, err
	}

	if path == "" {
		return place{dir: dir, name: "."}, nil
	}

	names := strings.Split(path, "/")

	for _, name := range names[:len(names)-1] {
		if err := checkName(name); err != nil {
			_ = dir.Close() // read only

			return place{}, err
		}

		sub, err := openAt(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY)
		_ = dir.Close() // read only

		if err != nil {
			return place{}, err
		}

		dir = sub
	}

	p := place{dir: dir, name: names[len(names)-1]}
	if err := checkName(p.name); err != nil {
		p.close()

		return place{}, err
	}

	return p, nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." {
		return &os.PathError{Op: "open", Path: name, Err: unix.EINVAL}
	}

	return nil
}

func openAt(dirfd int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: name, Err: err}
	}

	return os.NewFile(uintptr(fd), name), nil
}

func (p place) close() { _ = p.dir.Close() } // read only

func (p place) fd() int { return int(p.dir.Fd()) }

// open opens what is at the place, with flags of openat(2).
func (p place) open(flags int) (*os.File, error) { return openAt(p.fd(), p.name, flags) }

// stat never follows.
func (p place) stat() (unix.Stat_t, error) {
	var st unix.Stat_t

	err := unix.Fstatat(p.fd(), p.name, &st, unix.AT_SYMLINK_NOFOLLOW)

	return st, err
}

// byPath calls f with a path of the thing itself, a symlink included, for calls
// that take nothing else (proc(5)).
func (p place) byPath(f func(path string) error) error {
	file, err := p.open(unix.O_PATH)
	if err != nil {
		return err
	}
	defer file.Close()

	return f(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
}
