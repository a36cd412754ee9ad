package history

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// Apply does the Op in the volume at root. The error wraps the errno and names
// the Op.
func (o Op) Apply(root string) error {
	apply, ok := appliers[o.Kind]
	if !ok {
		return fmt.Errorf("no kind of operation is called %q", o.Kind)
	}

	p, err := find(root, o.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	defer p.close()

	if err := o.apply(apply, root, p); err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}

	return nil
}

func (o Op) apply(do applier, root string, p place) error {
	if o.KeepTime {
		st, err := p.stat()
		if err != nil {
			return err
		}

		o.KeepTime = false
		if err := o.apply(do, root, p); err != nil {
			return err
		}

		return setTime(p, st.Mtim)
	}

	if !usesTo[o.Kind] {
		return do(o, p, place{})
	}

	to, err := find(root, o.To)
	if err != nil {
		return err
	}
	defer to.close()

	return do(o, p, to)
}

// Replay does each Op in turn and stops at the first that fails.
func Replay(root string, ops []Op) error {
	for _, o := range ops {
		if err := o.Apply(root); err != nil {
			return err
		}
	}

	return nil
}

// usesTo has the kinds for which To is a path.
var usesTo = map[Kind]bool{Clone: true, Rename: true, Exchange: true, Link: true, Snapshot: true}

// An applier does an Op at the place of Path, and of To if the kind has one.
type applier func(o Op, p, to place) error

var appliers = map[Kind]applier{
	Mkdir:  func(o Op, p, _ place) error { return unix.Mkdirat(p.fd(), p.name, o.Mode) },
	Deep:   func(o Op, p, _ place) error { return deep(p, o.Size) },
	Write:  func(o Op, p, _ place) error { return write(o, p) },
	Append: func(o Op, p, _ place) error { return writeTo(p, unix.O_WRONLY|unix.O_APPEND, o.content()) },
	WriteAt: func(o Op, p, _ place) error {
		return change(p, unix.O_WRONLY, func(f *os.File) error {
			_, err := f.WriteAt(o.content(), o.Offset)

			return err
		})
	},
	Rewrite: func(_ Op, p, _ place) error { return change(p, unix.O_RDWR, rewrite) },
	Truncate: func(o Op, p, _ place) error {
		return change(p, unix.O_WRONLY, func(f *os.File) error { return f.Truncate(o.Size) })
	},
	Allocate: func(o Op, p, _ place) error {
		return change(p, unix.O_WRONLY, func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 0, o.Size) })
	},
	Clone: func(_ Op, p, to place) error { return clone(p, to) },
	Rename: func(_ Op, p, to place) error {
		return unix.Renameat(p.fd(), p.name, to.fd(), to.name)
	},
	Exchange: func(_ Op, p, to place) error {
		return unix.Renameat2(p.fd(), p.name, to.fd(), to.name, unix.RENAME_EXCHANGE)
	},
	Link: func(_ Op, p, to place) error { return unix.Linkat(p.fd(), p.name, to.fd(), to.name, 0) },
	Symlink: func(o Op, p, _ place) error {
		return unix.Symlinkat(o.To, p.fd(), p.name)
	},
	Mknod:     func(o Op, p, _ place) error { return unix.Mknodat(p.fd(), p.name, o.Mode, int(o.Rdev)) },
	Unlink:    func(_ Op, p, _ place) error { return unix.Unlinkat(p.fd(), p.name, 0) },
	RemoveAll: func(_ Op, p, _ place) error { return removeAll(p) },
	Chmod: func(o Op, p, _ place) error {
		return p.byPath(func(path string) error { return unix.Chmod(path, o.Mode) })
	},
	Chown: func(o Op, p, _ place) error {
		return unix.Fchownat(p.fd(), p.name, int(o.UID), int(o.GID), unix.AT_SYMLINK_NOFOLLOW)
	},
	Recreate: func(o Op, p, _ place) error { return recreate(o, p) },
	SetTime:  func(o Op, p, _ place) error { return setTime(p, unix.NsecToTimespec(o.Time)) },
	SetXattr: func(o Op, p, _ place) error {
		return p.byPath(func(path string) error { return unix.Setxattr(path, o.Name, []byte(o.Value), 0) })
	},
	DelXattr: func(o Op, p, _ place) error {
		return p.byPath(func(path string) error { return unix.Removexattr(path, o.Name) })
	},
	SetFlags: func(o Op, p, _ place) error {
		return change(p, unix.O_RDONLY, func(f *os.File) error { return btrfs.SetFlags(f, o.Flags) })
	},
	Subvolume: func(_ Op, p, _ place) error { return btrfs.Create(p.dir, p.name) },
	Snapshot: func(_ Op, p, to place) error {
		return change(p, unix.O_RDONLY|unix.O_DIRECTORY, func(f *os.File) error {
			return btrfs.Snapshot(f, to.dir, to.name, false)
		})
	},
	ReadOnly: func(o Op, p, _ place) error {
		return change(p, unix.O_RDONLY|unix.O_DIRECTORY, func(f *os.File) error {
			return btrfs.SetReadOnly(f, o.Flags != 0)
		})
	},
	Sync: func(_ Op, p, _ place) error { return btrfs.Sync(p.dir) },
}

// content is made of the seed: a third of all seeds compress well.
func (o Op) content() []byte {
	r := rand.New(rand.NewPCG(o.Seed, 0)) //nolint:gosec // no secret
	b := make([]byte, o.Size)
	repeat := int64(16)

	for i := range b {
		if o.Seed%3 == 0 && int64(i) >= repeat {
			b[i] = b[int64(i)-repeat]
		} else {
			b[i] = byte(r.Uint32())
		}
	}

	return b
}

// change opens what is at a place, lets f work on it and closes it.
func change(p place, flags int, f func(*os.File) error) error {
	file, err := p.open(flags)
	if err != nil {
		return err
	}

	err = f(file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}

	return err
}

func write(o Op, p place) error {
	if err := writeTo(p, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, o.content()); err != nil || o.Mode == 0 {
		return err
	}

	return p.byPath(func(path string) error { return unix.Chmod(path, o.Mode) })
}

func writeTo(p place, flags int, content []byte) error {
	return change(p, flags, func(f *os.File) error {
		_, err := f.Write(content)

		return err
	})
}

func rewrite(f *os.File) error {
	content, err := io.ReadAll(f)
	if err != nil {
		return err
	}

	_, err = f.WriteAt(content, 0)

	return err
}

func clone(p, to place) error {
	return change(p, unix.O_RDONLY, func(from *os.File) error {
		return change(to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(f *os.File) error { return btrfs.Clone(f, from) })
	})
}

func setTime(p place, t unix.Timespec) error {
	return unix.UtimesNanoAt(p.fd(), p.name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

func recreate(o Op, p place) error {
	st, err := p.stat()
	if err != nil {
		return err
	}

	if err := removeAll(p); err != nil {
		return err
	}

	switch o.Size = st.Size; st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = write(o, p)
	case unix.S_IFDIR:
		err = unix.Mkdirat(p.fd(), p.name, 0o755)
	case unix.S_IFLNK:
		err = unix.Symlinkat(strings.Repeat("z", int(o.Size)), p.fd(), p.name)
	default:
		err = unix.EINVAL
	}

	if err != nil {
		return err
	}

	return setTime(p, st.Mtim)
}

// deep makes directories, each in the one before, all of the same name.
func deep(p place, levels int64) error {
	dir, err := p.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if err != nil {
		return err
	}

	for range levels {
		sub, err := deeper(dir)
		_ = dir.Close() // read only

		if err != nil {
			return err
		}

		dir = sub
	}

	return dir.Close()
}

func deeper(dir *os.File) (*os.File, error) {
	if err := unix.Mkdirat(int(dir.Fd()), "d", 0o755); err != nil {
		return nil, err
	}

	return openAt(int(dir.Fd()), "d", unix.O_RDONLY|unix.O_DIRECTORY)
}

// locks are the flags that keep even root from changing a thing.
const locks = btrfs.FlagImmutable | btrfs.FlagAppend

// removeAll deletes what is at a place, with all below.
func removeAll(p place) error {
	st, err := p.stat()
	if err != nil {
		return err
	}

	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	isStub := isDir && st.Ino == btrfs.EmptyDirID
	isSubvolume := isDir && st.Ino == btrfs.FirstFreeID

	if isDir && !isStub {
		if err := change(p, unix.O_RDONLY|unix.O_DIRECTORY, func(f *os.File) error { return empty(f, isSubvolume) }); err != nil {
			return err
		}
	} else if st.Mode&unix.S_IFMT == unix.S_IFREG {
		if err := change(p, unix.O_RDONLY, unlock); err != nil {
			return err
		}
	}

	switch {
	case isSubvolume:
		return btrfs.Destroy(p.dir, p.name)
	case isDir:
		return unix.Unlinkat(p.fd(), p.name, unix.AT_REMOVEDIR)
	default:
		return unix.Unlinkat(p.fd(), p.name, 0)
	}
}

func empty(dir *os.File, isSubvolume bool) error {
	if isSubvolume {
		if err := btrfs.SetReadOnly(dir, false); err != nil {
			return err
		}
	}

	if err := unlock(dir); err != nil {
		return err
	}

	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}

	for _, name := range names {
		if err := removeAll(place{dir: dir, name: name}); err != nil {
			return err
		}
	}

	return nil
}

func unlock(f *os.File) error {
	flags, err := btrfs.Flags(f)
	if err != nil || flags&locks == 0 {
		return err
	}

	return btrfs.SetFlags(f, flags&^locks)
}
