package reset

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// Side is one of the two trees that a preview compares, for looking at what a change
// stands for. What lies in nested subvolumes of the live volume belongs to it. It is
// for one goroutine.
type Side struct {
	root   *os.File
	tree   *tree
	nested map[dirName]uint64
	listed map[uint64]bool // trees of which nested holds the children
}

// Entry is one path of a Side.
type Entry struct {
	Path   string // from the volume's root, with a leading slash
	Mode   uint32 // st_mode
	UID    uint32
	GID    uint32
	Size   uint64 // bytes; of directories 0
	MTime  btrfs.Timespec
	Target string // of a symlink

	// Subvolume and Inode tell whether two names are of one inode, if there is more
	// than one link.
	Subvolume uint64 // tree id
	Inode     uint64
	Links     uint32

	// Named is the transaction that gave the path its name: what was created, moved
	// or linked there later than a transaction has a higher one.
	Named uint64
	// Nested says that it is the root of a nested subvolume, or the stub of one.
	Nested bool
}

// IsDir reports whether something can lie below the entry.
func (e *Entry) IsDir() bool { return e.Mode&modeType == modeDir }

func newSide(root *os.File, id uint64) *Side {
	return &Side{root: root, tree: newTree(root, id), nested: map[dirName]uint64{}, listed: map[uint64]bool{}}
}

// reopenSide is a Side with a descriptor of its own.
func reopenSide(root *os.File) (*Side, error) {
	f, err := openDir(root, "")
	if err != nil {
		return nil, err
	}
	info, err := btrfs.ReadInfo(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return newSide(f, info.ID), nil
}

// located is a name in a directory of the tree.
type located struct {
	*entry

	path string // "" for the root
	dir  place
}

// Stat looks one path up. That there is none is fs.ErrNotExist.
func (s *Side) Stat(path string) (*Entry, error) {
	l, err := s.locate(path)
	if err != nil {
		return nil, err
	}
	return s.read(l)
}

// Walk visits a path and all below it, each directory before what it holds, in no
// other order. visit may return fs.SkipDir. What vanishes meanwhile is left out.
func (s *Side) Walk(path string, visit func(*Entry) error) error {
	l, err := s.locate(path)
	if err != nil {
		return err
	}
	return s.walk(l, visit)
}

// Open opens a regular file for reading. No symlink is followed.
func (s *Side) Open(path string) (*os.File, error) {
	f, err := openRegular(s.root, path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&modeType != unix.S_IFREG {
		f.Close()
		return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: errNotRegular}, err)
	}
	return f, nil
}

var errNotRegular = errors.New("not a regular file")

func (s *Side) walk(l located, visit func(*Entry) error) error {
	e, err := s.read(l)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := visit(e); err != nil || !e.IsDir() {
		if errors.Is(err, fs.SkipDir) {
			return nil
		}
		return err
	}
	dir, err := s.below(l)
	if err != nil || !dir.exists() {
		return err
	}
	entries, err := dir.entries(dir.dir)
	if err != nil {
		return err
	}
	numbers := make([]uint64, 0, len(entries))
	for i := range entries {
		if !entries[i].subvolume {
			numbers = append(numbers, entries[i].inode)
		}
	}
	if err := dir.fetch(numbers); err != nil {
		return err
	}
	for i := range entries {
		if err := s.walk(located{&entries[i], l.path + "/" + entries[i].name, dir}, visit); err != nil {
			return err
		}
	}
	return nil
}

// locate goes down to a path.
func (s *Side) locate(path string) (located, error) {
	l := located{dir: place{s.tree, 0}, entry: &entry{inode: rootInode}}
	for _, name := range splitComponents(path) {
		dir, err := s.below(l)
		if err != nil {
			return l, err
		}
		var found *entry
		if dir.exists() {
			// A file has no entries.
			if found, err = dir.find(dir.dir, name); err != nil {
				return l, err
			}
		}
		if found == nil {
			return l, &os.PathError{Op: "look up", Path: path, Err: unix.ENOENT}
		}
		l = located{found, l.path + "/" + name, dir}
	}
	return l, nil
}

// below is the directory that a name leads to; none for a stub.
func (s *Side) below(l located) (place, error) {
	if !l.subvolume {
		return place{l.dir.tree, l.inode}, nil
	}
	id, err := s.nestedAt(l)
	if err != nil || id == 0 {
		return place{}, err
	}
	return place{l.dir.nested(id), rootInode}, nil
}

// nestedAt is the tree of the subvolume that lies under a name; 0 for a stub.
func (s *Side) nestedAt(l located) (uint64, error) {
	in := l.dir.tree
	if !s.listed[in.id] {
		children, err := btrfs.Children(s.root, in.id)
		if err != nil {
			return 0, err
		}
		for _, c := range children {
			s.nested[dirName{in.id, c.DirID, c.Name}] = c.ID
		}
		s.listed[in.id] = true
	}
	return s.nested[dirName{in.id, l.dir.dir, l.name}], nil
}

// read reads what a name is.
func (s *Side) read(l located) (*Entry, error) {
	e := &Entry{Path: l.path, Named: l.transID, Nested: l.subvolume}
	if l.path == "" {
		e.Path = "/"
	}
	in, number := l.dir.tree, l.inode
	if l.subvolume {
		dir, err := s.below(l)
		if err != nil {
			return nil, err
		}
		if !dir.exists() { // the stub that a snapshot shows
			e.Mode, e.Inode, e.Subvolume, e.Links = modeDir|0o755, btrfs.EmptyDirID, in.id, 1
			return e, nil
		}
		in, number = dir.tree, rootInode
	}
	n, err := in.read(number)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: l.path, Err: err}
	}
	e.Mode, e.UID, e.GID, e.Size, e.MTime = n.Mode, n.UID, n.GID, fileSize(n), n.MTime
	e.Subvolume, e.Inode, e.Links = in.id, number, n.Links
	if n.kind() == unix.S_IFLNK {
		for x, err := range in.extents(number) {
			if err != nil {
				return nil, err
			}
			e.Target = x.inline
		}
	}
	return e, nil
}
