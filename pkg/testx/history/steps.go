package history

import (
	"bytes"
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// A step is something that happens, as often as its weights say. Where the
// volume has nothing that it needs, nothing happens.
type step struct {
	name             string
	populate, mutate int
	do               func(*Generator)
}

var steps = []step{
	{"make a directory", 12, 8, makeDir},
	{"make a file", 16, 12, makeFile},
	{"make a large file", 1, 2, makeLargeFile},
	{"make a NOCOW file", 2, 2, makeNoCOWFile},
	{"make a sparse file", 1, 2, makeSparseFile},
	{"make a symlink", 4, 5, makeSymlink},
	{"make a fifo, socket or device", 3, 4, makeSpecial},
	{"make a nested subvolume", 3, 5, makeSubvolume},
	{"link", 5, 8, link},
	{"clone", 1, 3, cloneFile},
	{"append", 0, 4, appendTo},
	{"overwrite a part", 1, 4, overwrite},
	{"overwrite all", 0, 4, overwriteAll},
	{"write the same content", 0, 4, rewriteSame},
	{"truncate", 1, 3, truncate},
	{"allocate", 1, 1, allocate},
	{"rename", 1, 12, rename},
	{"rename over another", 0, 4, renameOver},
	{"exchange", 0, 4, exchange},
	{"move a directory and leave a symlink", 0, 3, moveAndLink},
	{"replace by another kind", 0, 6, replace},
	{"delete and make again with the same time", 0, 5, makeAgain},
	{"unlink", 0, 7, unlink},
	{"delete a tree", 0, 4, removeTree},
	{"chmod", 3, 4, chmod},
	{"chown", 3, 4, chown},
	{"set a time", 3, 4, changeTime},
	{"set an xattr", 4, 6, setXattr},
	{"delete an xattr", 0, 3, delXattr},
	{"set an ACL", 3, 3, setACL},
	{"set a file capability", 1, 2, setCapability},
	{"set flags", 4, 6, setFlags},
	{"snapshot a nested subvolume", 0, 1, snapshot},
	{"make a nested subvolume read-only, or not", 0, 2, setReadOnly},
	{"sync", 0, 3, func(g *Generator) { g.do(Op{Kind: Sync}) }},
}

func makeDir(g *Generator) {
	if path, ok := g.fresh(anywhere); ok {
		g.do(Op{Kind: Mkdir, Path: path, Mode: pick[uint32](g, 0o700, 0o755, 0o750)})
	}
}

func makeFile(g *Generator) {
	if path, ok := g.fresh(anywhere); ok {
		g.do(g.write(path))
	}
}

func (g *Generator) write(path string) Op {
	return Op{Kind: Write, Path: path, Size: g.fileSize(), Seed: g.seed(), Mode: pick[uint32](g, 0o600, 0o644, 0o755)}
}

func makeLargeFile(g *Generator) {
	path, ok := g.fresh(anywhere)
	if !ok {
		return
	}

	g.do(Op{Kind: Write, Path: path, Size: 900_000, Seed: g.seed()})

	for range 3 { // each write of its own transaction is an extent of its own
		g.do(Op{Kind: Sync})
		g.do(Op{Kind: WriteAt, Path: path, Offset: int64(g.src.IntN(900_000)), Size: 10_000, Seed: g.seed()})
	}
}

func makeNoCOWFile(g *Generator) {
	if path, ok := g.fresh(anywhere); ok {
		g.do(Op{Kind: Write, Path: path, Mode: 0o600})
		g.do(Op{Kind: SetFlags, Path: path})                         // such as the directory handed down
		g.do(Op{Kind: SetFlags, Path: path, Flags: btrfs.FlagNoCOW}) // no data may be there yet
		g.do(Op{Kind: WriteAt, Path: path, Size: g.fileSize(), Seed: g.seed()})
	}
}

func makeSparseFile(g *Generator) {
	if path, ok := g.fresh(anywhere); ok {
		g.do(Op{Kind: Write, Path: path, Size: g.fileSize(), Seed: g.seed()})
		g.do(Op{Kind: Truncate, Path: path, Size: 2_000_000})
		g.do(Op{Kind: WriteAt, Path: path, Offset: 1_000_000, Size: 5000, Seed: g.seed()})
	}
}

func makeSymlink(g *Generator) {
	if path, ok := g.fresh(anywhere); ok {
		g.do(Op{Kind: Symlink, Path: path, To: g.target()})
	}
}

func makeSpecial(g *Generator) {
	if path, ok := g.fresh(anywhere); ok {
		g.do(g.special(path))
	}
}

func (g *Generator) special(path string) Op {
	o := Op{Kind: Mknod, Path: path, Mode: 0o640 | pick[uint32](g, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK)}
	if o.Mode&unix.S_IFMT == unix.S_IFCHR || o.Mode&unix.S_IFMT == unix.S_IFBLK {
		o.Rdev = pick(g, unix.Mkdev(1, 3), unix.Mkdev(7, 200), unix.Mkdev(0, 0), unix.Mkdev(259, 70_000))
	}

	return o
}

func makeSubvolume(g *Generator) {
	path, ok := g.fresh(anywhere)
	if !ok {
		return
	}

	g.do(Op{Kind: Subvolume, Path: path})

	for range g.src.IntN(3) {
		if inside := join(path, g.name()); g.state.byPath[inside] == nil {
			g.state.byPath[inside] = &node{path: inside, subvolume: path}
			g.do(pick(g, g.write(inside), Op{Kind: Mkdir, Path: inside, Mode: 0o755}, Op{Kind: Subvolume, Path: inside}))
		}
	}
}

func link(g *Generator) {
	n, ok := g.choose(func(n node) bool { return n.kind != unix.S_IFDIR && g.movable(n) })
	if !ok {
		return
	}

	if to, ok := g.fresh(func(dir node) bool { return dir.subvolume == n.subvolume }); ok {
		g.unlock(n.path)
		g.do(Op{Kind: Link, Path: n.path, To: to})
	}
}

func cloneFile(g *Generator) {
	n, ok := g.choose(func(n node) bool { return n.isFile() && n.flags&btrfs.FlagNoCOW == 0 })
	if !ok {
		return
	}

	if to, ok := g.fresh(func(dir node) bool { return dir.flags&btrfs.FlagNoCOW == 0 }); ok {
		g.do(Op{Kind: Clone, Path: n.path, To: to})
	}
}

func (g *Generator) file() (node, bool) { return g.inode(node.isFile) }

func appendTo(g *Generator) {
	if n, ok := g.file(); ok {
		g.do(Op{Kind: Append, Path: n.path, Size: 1 + int64(g.src.IntN(5000)), Seed: g.seed()})
	}
}

func overwrite(g *Generator) {
	if n, ok := g.file(); ok {
		g.do(Op{Kind: WriteAt, Path: n.path, Offset: int64(g.src.IntN(int(n.size) + 1)), Size: 1 + int64(g.src.IntN(5000)), Seed: g.seed()})
	}
}

func overwriteAll(g *Generator) {
	if n, ok := g.file(); ok {
		g.do(Op{Kind: Write, Path: n.path, Size: n.size, Seed: g.seed(), KeepTime: g.chance(50)})
	}
}

func rewriteSame(g *Generator) {
	if n, ok := g.file(); ok {
		g.do(Op{Kind: Rewrite, Path: n.path, KeepTime: g.chance(50)})
	}
}

func truncate(g *Generator) {
	if n, ok := g.file(); ok {
		g.do(Op{Kind: Truncate, Path: n.path, Size: pick(g, 0, n.size/2, n.size+100_000)})
	}
}

func allocate(g *Generator) {
	if n, ok := g.file(); ok {
		g.do(Op{Kind: Allocate, Path: n.path, Size: n.size + 50_000})
	}
}

func rename(g *Generator) {
	n, ok := g.choose(g.movable)
	if !ok {
		return
	}

	if to, ok := g.fresh(func(dir node) bool { return g.canEnter(n, dir) }); ok {
		g.unlockName(n.path)
		g.do(Op{Kind: Rename, Path: n.path, To: to})
	}
}

func renameOver(g *Generator) {
	plain := func(n node) bool { return n.kind != unix.S_IFDIR && g.movable(n) }

	n, ok := g.choose(plain)
	if !ok {
		return
	}

	other, ok := g.choose(func(o node) bool { return plain(o) && o.path != n.path && o.subvolume == n.subvolume })
	if !ok {
		return
	}

	g.unlockName(n.path)
	g.unlockName(other.path)
	g.do(Op{Kind: Rename, Path: n.path, To: other.path})
}

func exchange(g *Generator) {
	n, ok := g.choose(g.movable)
	if !ok {
		return
	}

	other, ok := g.choose(func(o node) bool {
		return g.movable(o) && !within(o.path, n.path) && !within(n.path, o.path) &&
			(g.dir(o).subvolume == g.dir(n).subvolume || o.nested && n.nested)
	})
	if !ok {
		return
	}

	g.unlockName(n.path)
	g.unlockName(other.path)
	g.do(Op{Kind: Exchange, Path: n.path, To: other.path})
}

func moveAndLink(g *Generator) {
	n, ok := g.choose(func(n node) bool { return n.isDir() && g.movable(n) })
	if !ok {
		return
	}

	if to, ok := g.fresh(func(dir node) bool { return g.canEnter(n, dir) }); ok {
		g.unlockName(n.path)
		g.do(Op{Kind: Rename, Path: n.path, To: to})
		g.do(Op{Kind: Symlink, Path: n.path, To: g.target()})
	}
}

func removable(g *Generator) (node, bool) {
	return g.choose(func(n node) bool { return !g.dir(n).frozen })
}

func replace(g *Generator) {
	n, ok := removable(g)
	if !ok {
		return
	}

	g.unlock(parent(n.path))
	g.do(Op{Kind: RemoveAll, Path: n.path})

	switch g.src.IntN(5) {
	case 0:
		g.do(g.write(n.path))
	case 1, 2:
		g.do(Op{Kind: Symlink, Path: n.path, To: g.target()})
	case 3:
		g.do(Op{Kind: Mkdir, Path: n.path, Mode: 0o755})
		g.do(g.write(join(n.path, g.name())))
	default:
		g.do(g.special(n.path))
	}
}

// makeAgain leaves a name, a size and a time that say nothing has happened.
func makeAgain(g *Generator) {
	n, ok := g.choose(func(n node) bool {
		return (n.isFile() || n.kind == unix.S_IFLNK || n.isDir()) && !n.nested && g.movable(n)
	})
	if ok {
		g.unlockName(n.path)
		g.do(Op{Kind: Recreate, Path: n.path, Seed: g.seed()})
	}
}

func unlink(g *Generator) {
	if n, ok := g.choose(func(n node) bool { return n.kind != unix.S_IFDIR && g.movable(n) }); ok {
		g.unlockName(n.path)
		g.do(Op{Kind: Unlink, Path: n.path})
	}
}

func removeTree(g *Generator) {
	if n, ok := removable(g); ok {
		g.unlock(parent(n.path))
		g.do(Op{Kind: RemoveAll, Path: n.path})
	}
}

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

func snapshot(g *Generator) {
	n, ok := g.choose(func(n node) bool { return n.nested })
	if !ok {
		return
	}

	if to, ok := g.fresh(func(dir node) bool { return !within(dir.path, n.path) }); ok {
		g.do(Op{Kind: Snapshot, Path: n.path, To: to})
	}
}

func setReadOnly(g *Generator) {
	if n, ok := g.choose(func(n node) bool { return n.nested }); ok {
		o := Op{Kind: ReadOnly, Path: n.path, Flags: 1}
		if n.frozen {
			o.Flags = 0
		}

		g.do(o)
	}
}
