package history

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/btrfs"
)

// A node is what stands at a path when a step begins.
type node struct {
	path      string
	kind      uint32 // S_IFREG, …
	inode     uint64
	size      int64
	flags     uint32
	subvolume string // the path of the subvolume that it lies in, "" for the volume
	frozen    bool   // in a read-only subvolume, or the root of one
	nested    bool   // the root of a nested subvolume
	stub      bool
}

func (n node) isDir() bool  { return n.kind == unix.S_IFDIR && !n.stub }
func (n node) isFile() bool { return n.kind == unix.S_IFREG }

// parent returns the directory that a path is in, "" for the volume's root.
func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

func join(dir, name string) string {
	if dir == "" {
		return name
	}

	return dir + "/" + name
}

// within tells whether a path is another one or lies below it.
func within(path, above string) bool {
	return path == above || above == "" || strings.HasPrefix(path, above+"/")
}

// scan lists the volume, its root first, always in the same order. What belongs
// to the reset itself is left out.
func scan(root string) ([]node, error) {
	p, err := find(root, "")
	if err != nil {
		return nil, err
	}
	defer p.close()

	nodes := []node{{kind: unix.S_IFDIR, inode: btrfs.FirstFreeID}}
	if nodes[0].flags, err = btrfs.Flags(p.dir); err != nil {
		return nil, err
	}

	nodes, err = scanBelow(nodes, p.dir, nodes[0])
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", root, err)
	}

	return nodes, nil
}

func scanBelow(nodes []node, dir *os.File, at node) ([]node, error) {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}

	slices.Sort(names)

	for _, name := range names {
		if at.path == "" && (name == ".boot-ready" || name == ".immutability-trash") {
			continue
		}

		n, sub, err := scanOne(place{dir: dir, name: name}, at)
		if err != nil {
			return nil, err
		}

		nodes = append(nodes, n)

		if !n.isDir() {
			continue
		}

		nodes, err = scanBelow(nodes, sub, n)
		_ = sub.Close() // read only

		if err != nil {
			return nil, err
		}
	}

	return nodes, nil
}

// scanOne also returns the open directory, if it is one.
func scanOne(p place, above node) (node, *os.File, error) {
	st, err := p.stat()
	if err != nil {
		return node{}, nil, err
	}

	n := node{
		path:      join(above.path, p.name),
		kind:      st.Mode & unix.S_IFMT,
		inode:     st.Ino,
		size:      st.Size,
		subvolume: above.subvolume, frozen: above.frozen,
	}
	n.stub = n.kind == unix.S_IFDIR && n.inode == btrfs.EmptyDirID

	if !n.isDir() && !n.isFile() {
		return n, nil, nil
	}

	file, err := p.open(unix.O_RDONLY | unix.O_NOATIME)
	if err != nil {
		return node{}, nil, err
	}

	if n.flags, err = btrfs.Flags(file); err == nil && n.isDir() && n.inode == btrfs.FirstFreeID {
		n.nested, n.subvolume = true, n.path

		n.frozen, err = btrfs.ReadOnly(file)
	}

	if err != nil || n.isFile() {
		_ = file.Close() // read only

		return n, nil, err
	}

	return n, file, nil
}

// A state is what one step can choose from.
type state struct {
	nodes  []node
	byPath map[string]*node
}

func newState(root string) (*state, error) {
	nodes, err := scan(root)
	if err != nil {
		return nil, err
	}

	s := &state{nodes: nodes, byPath: map[string]*node{}}
	for i := range nodes {
		s.byPath[nodes[i].path] = &nodes[i]
	}

	return s, nil
}

// where returns the nodes, but for the root, that a test holds for.
func (s *state) where(test func(node) bool) []node {
	var found []node

	for _, n := range s.nodes[1:] {
		if test(n) {
			found = append(found, n)
		}
	}

	return found
}
