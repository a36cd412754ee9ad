package history

import (
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
