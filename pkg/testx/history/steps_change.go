package history

import (
	"golang.org/x/sys/unix"
)

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
