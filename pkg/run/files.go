package run

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/atomicfile"
)

// Files are the files of one machine: of this one ([Here]) or of one whose
// root is mounted somewhere ([Below]). Names are absolute paths as that
// machine sees them. Symlinks resolve inside the machine, absolute ones and
// those that lead upwards included (openat2(2), RESOLVE_IN_ROOT): on an
// installed NixOS /etc/nixos-go/settings.json leads to /nix/store/….
type Files struct {
	root string
}

// Here are the files of this machine.
func Here() Files { return Files{root: "/"} }

// Below are the files of the machine whose root is mounted at dir.
func Below(dir string) Files { return Files{root: filepath.Clean(dir)} }

// Root is where the machine's root is, as seen from this process.
func (f Files) Root() string {
	if f.root == "" {
		return "/"
	}
	return f.root
}

// Path is a name of the machine as seen from this process, for messages and
// for programs that run outside. It resolves nothing.
func (f Files) Path(name string) string { return filepath.Join(f.Root(), path.Clean("/"+name)) }

// open resolves name inside the root.
func (f Files) open(op, name string, flags int) (*os.File, error) {
	root, err := unix.Open(f.Root(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: f.Root(), Err: err}
	}
	defer func() { _ = unix.Close(root) }()
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(root, path.Clean("/"+name), &how)
		// EAGAIN: a directory on the way was renamed meanwhile.
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: op, Path: f.Path(name), Err: err}
		}
		return os.NewFile(uintptr(fd), f.Path(name)), nil
	}
}

// Open opens a file for reading.
func (f Files) Open(name string) (*os.File, error) {
	return f.open("open", name, unix.O_RDONLY)
}

// ReadFile is the whole content of a file.
func (f Files) ReadFile(name string) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// ReadDir lists a directory, sorted by name.
func (f Files) ReadDir(name string) ([]fs.DirEntry, error) {
	dir, err := f.open("open", name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// os.ReadDir of the descriptor would lose the order.
	return fs.ReadDir(os.DirFS(fmt.Sprintf("/proc/self/fd/%d", dir.Fd())), ".")
}

// Stat describes what a name leads to; Lstat the name itself.
func (f Files) Stat(name string) (fs.FileInfo, error) {
	file, err := f.open("stat", name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Stat()
}

// Lstat describes a name, not following a symlink that it is.
func (f Files) Lstat(name string) (fs.FileInfo, error) {
	file, err := f.open("lstat", name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Stat()
}

// Resolve is where a name leads, all symlinks followed, as seen from this
// process.
func (f Files) Resolve(name string) (string, error) {
	file, err := f.open("resolve", name, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer file.Close()
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(file.Fd())))
}

// Exists tells whether a name leads to something.
func (f Files) Exists(name string) bool {
	_, err := f.Stat(name)
	return err == nil
}

// parent opens the directory of a name.
func (f Files) parent(op, name string) (dir *os.File, base string, err error) {
	name = path.Clean("/" + name)
	if name == "/" {
		return nil, "", &fs.PathError{Op: op, Path: f.Root(), Err: unix.EINVAL}
	}
	dir, err = f.open(op, path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY)
	return dir, path.Base(name), err
}

// WriteFile replaces a file atomically ([atomicfile.WriteAt]).
func (f Files) WriteFile(name string, data []byte, perm fs.FileMode) error {
	dir, base, err := f.parent("write", name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return atomicfile.WriteAt(dir, base, data, perm)
}

// Remove removes a file or an empty directory; a missing one is no error.
func (f Files) Remove(name string) error {
	dir, base, err := f.parent("remove", name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	err = unix.Unlinkat(int(dir.Fd()), base, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(int(dir.Fd()), base, unix.AT_REMOVEDIR)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: f.Path(name), Err: err}
	}
	return nil
}

// MkdirAll makes a directory and those above it that are missing, each with
// this mode whatever the umask, owned by the caller. What is there is left as
// it is.
func (f Files) MkdirAll(name string, perm fs.FileMode) error {
	name = path.Clean("/" + name)
	for end := 1; end <= len(name); end++ {
		if end < len(name) && name[end] != '/' {
			continue
		}
		if err := f.mkdir(name[:end], perm); err != nil {
			return err
		}
	}
	return nil
}

func (f Files) mkdir(name string, perm fs.FileMode) error {
	if info, err := f.Stat(name); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: f.Path(name), Err: unix.ENOTDIR}
		}
		return nil
	}
	dir, base, err := f.parent("mkdir", name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mkdirat(int(dir.Fd()), base, uint32(perm.Perm())); err != nil {
		return &fs.PathError{Op: "mkdir", Path: f.Path(name), Err: err}
	}
	made, err := unix.Openat(int(dir.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: f.Path(name), Err: err}
	}
	defer func() { _ = unix.Close(made) }()
	if err := unix.Fchmod(made, uint32(perm.Perm())); err != nil {
		return &fs.PathError{Op: "chmod", Path: f.Path(name), Err: err}
	}
	return nil
}

// Host is a machine: its programs and its files.
type Host struct {
	Runner

	Files Files
}

// LocalHost is this machine.
func LocalHost(local *Local) Host { return Host{Runner: local, Files: Here()} }

// Installation is the machine whose root is mounted at dir; base runs
// nixos-enter.
func Installation(dir string, base Runner) Host {
	return Host{Runner: Chroot{Root: dir, Base: base}, Files: Below(dir)}
}
