package reset

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// Fields says in what two versions of a path differ.
type Fields uint16

// What can differ.
const (
	FieldType    Fields = 1 << iota // file, directory, symlink, device …
	FieldContent                    // data, symlink target or device number
	FieldSize
	FieldOwner
	FieldMode
	FieldMTime
	FieldXattrs // access control lists and file capabilities among them
	FieldFlags  // those of chattr
	FieldLinks  // which names share the inode
)

var fieldNames = []string{"type", "content", "size", "owner", "mode", "mtime", "xattrs", "flags", "links"}

// Names lists the fields as words.
func (f Fields) Names() []string {
	var out []string
	for i, name := range fieldNames {
		if f&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// String gives the fields as words, with commas.
func (f Fields) String() string { return strings.Join(f.Names(), ",") }

// compareInodes finds the differences that the inodes show by themselves: all but
// content that needs reading, and links.
func compareInodes(old, clean *inode) Fields {
	if old.kind() != clean.kind() {
		return FieldType
	}
	var f Fields
	switch old.kind() {
	case unix.S_IFREG, unix.S_IFLNK:
		if old.Size != clean.Size {
			f |= FieldSize | FieldContent
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		if old.Rdev != clean.Rdev {
			f |= FieldContent
		}
	}
	if old.UID != clean.UID || old.GID != clean.GID {
		f |= FieldOwner
	}
	if old.Mode != clean.Mode {
		f |= FieldMode
	}
	if old.MTime != clean.MTime && !clean.stub {
		f |= FieldMTime
	}
	// Symlinks and special files inherit flags that nobody can see or change.
	chattr := old.isDir() || old.kind() == unix.S_IFREG
	if chattr && (old.Flags^clean.Flags)&btrfs.InodeFlagsSettable != 0 {
		f |= FieldFlags
	}
	if !sameXattrs(old.xattrs, clean.xattrs) {
		f |= FieldXattrs
	}
	return f
}

func sameXattrs(a, b []btrfs.DirItem) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name || !bytes.Equal(a[i].Data, b[i].Data) {
			return false
		}
	}
	return true
}
