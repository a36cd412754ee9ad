package history

import (
	"bytes"
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

func isNoSymlink(n node) bool { return n.kind != unix.S_IFLNK }

func chmod(g *Generator) {
	if n, ok := g.inode(isNoSymlink); ok {
		mode := pick[uint32](g, 0o600, 0o644, 0o4755, 0o400, 0)
		if n.isDir() {
			mode = pick[uint32](g, 0o700, 0o755, 0o1777, 0o2750)
		}

		g.do(Op{Kind: Chmod, Path: n.path, Mode: mode})
	}
}

func chown(g *Generator) {
	if n, ok := g.inode(anywhere); ok {
		g.do(Op{Kind: Chown, Path: n.path, UID: pick[uint32](g, 0, 1000, 1001), GID: pick[uint32](g, 0, 100, 65534)})
	}
}

func changeTime(g *Generator) {
	if n, ok := g.inode(anywhere); ok {
		g.do(Op{Kind: SetTime, Path: n.path, Time: g.time()})
	}
}

func setXattr(g *Generator) {
	n, ok := g.inode(anywhere)
	if !ok {
		return
	}

	name := "trusted.t"
	if n.isDir() || n.isFile() {
		name = pick(g, "user.a", "user.b", "trusted.t", "btrfs.compression")
	}

	value := pick(g, "", "1", "\x00\xff", strings.Repeat("v", 3000))

	if name == "btrfs.compression" {
		if n.flags&btrfs.FlagNoCOW != 0 {
			return
		}

		value = pick(g, "zstd", "lzo", "zlib")
	}

	g.do(Op{Kind: SetXattr, Path: n.path, Name: name, Value: value})
}

func delXattr(g *Generator) {
	n, ok := g.inode(anywhere)
	if !ok || g.err != nil {
		return
	}

	var names []string

	if names, g.err = xattrNames(g.root, n.path); len(names) > 0 {
		g.do(Op{Kind: DelXattr, Path: n.path, Name: pick(g, names...)})
	}
}

func xattrNames(root, path string) (names []string, err error) {
	p, err := find(root, path)
	if err != nil {
		return nil, err
	}
	defer p.close()

	list := make([]byte, 64<<10) // XATTR_LIST_MAX

	err = p.byPath(func(path string) error {
		n, err := unix.Listxattr(path, list)
		list = list[:max(n, 0)]

		return err
	})

	return strings.FieldsFunc(string(list), func(r rune) bool { return r == 0 }), err
}

// setACL gives one more user rights (acl(5); struct posix_acl_xattr_header and
// posix_acl_xattr_entry of linux/posix_acl_xattr.h).
func setACL(g *Generator) {
	n, ok := g.inode(isNoSymlink)
	if !ok {
		return
	}

	name := "system.posix_acl_access"
	if n.isDir() && g.chance(50) {
		name = "system.posix_acl_default"
	}

	const (
		version                                 = 2
		userObj, user, groupObj, mask, otherObj = 0x01, 0x02, 0x04, 0x10, 0x20
		undefined                               = ^uint32(0)
	)

	var b bytes.Buffer

	number := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a buffer takes all
	entry := func(tag, rights uint16, id uint32) { number(tag); number(rights); number(id) }

	number(uint32(version))
	entry(userObj, 7, undefined)
	entry(user, uint16(g.src.IntN(8)), pick[uint32](g, 1000, 1001))
	entry(groupObj, 5, undefined)
	entry(mask, uint16(g.src.IntN(8)), undefined)
	entry(otherObj, uint16(g.src.IntN(6)), undefined)

	g.do(Op{Kind: SetXattr, Path: n.path, Name: name, Value: b.String()})
}

// setCapability is setcap(8) (struct vfs_cap_data, revision 2, effective).
func setCapability(g *Generator) {
	if n, ok := g.file(); ok {
		value := "\x01\x00\x00\x02" + pick(g, "\x00\x04\x00\x00", "\x00\x20\x00\x00") + strings.Repeat("\x00", 12)
		g.do(Op{Kind: SetXattr, Path: n.path, Name: "security.capability", Value: value})
	}
}

func setFlags(g *Generator) {
	if n, ok := g.inode(func(n node) bool { return n.isDir() || n.isFile() }); ok {
		flags := g.flags(n)
		if n.path == "" {
			flags &^= locks // a volume's root must stay one that can be renamed
		}

		g.do(Op{Kind: SetFlags, Path: n.path, Flags: flags})
	}
}
