// Package cpio writes archives in the format newc, which the kernel unpacks as
// an initrd.
//
// Folders above an entry are made by themselves, 0755 root; an entry that is
// there already is an error. Every archive of the same entries is the same:
// owners are root, times are the epoch. Format: Linux,
// Documentation/driver-api/early-userspace/buffer-format.rst.
package cpio

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// File types of st_mode (inode(7)).
const (
	typeFile    = 0o100000
	typeDir     = 0o040000
	typeSymlink = 0o120000
	typeChar    = 0o020000
)

// Writer writes one archive.
type Writer struct {
	w     *bufio.Writer
	size  int64 // written so far
	inode int
	seen  map[string]bool
	err   error // the first one
}

// NewWriter begins an archive.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 1<<20), seen: map[string]bool{".": true}}
}

func (w *Writer) write(b string) {
	if w.err != nil {
		return
	}
	n, err := w.w.WriteString(b)
	w.size += int64(n)
	w.err = err
}

// pad fills up to a multiple of four bytes.
func (w *Writer) pad() { w.write(strings.Repeat("\x00", int(-w.size&3))) }

func (w *Writer) header(name string, mode, links, size, major, minor int) {
	w.inode++
	w.write(fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		w.inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, len(name)+1, 0))
	w.write(name + "\x00")
	w.pad()
}

// add writes an entry and the folders above it.
func (w *Writer) add(name string, mode int, content string, major, minor int) error {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if w.err == nil && w.seen[name] {
		w.err = fmt.Errorf("cpio: %s: %w", name, fs.ErrExist)
	}
	w.parents(name)
	w.seen[name] = true
	w.header(name, mode, 1, len(content), major, minor)
	w.write(content)
	w.pad()
	return w.err
}

func (w *Writer) parents(name string) {
	dir := path.Dir(name)
	if w.seen[dir] {
		return
	}
	w.parents(dir)
	w.seen[dir] = true
	w.header(dir, typeDir|0o755, 2, 0, 0, 0)
}

// Has tells whether there is an entry of a name.
func (w *Writer) Has(name string) bool {
	return w.seen[strings.TrimPrefix(path.Clean("/"+name), "/")]
}

// Dir adds a folder.
func (w *Writer) Dir(name string, perm fs.FileMode) error {
	return w.add(name, typeDir|mode(perm), "", 0, 0)
}

// File adds a file.
func (w *Writer) File(name string, perm fs.FileMode, content []byte) error {
	return w.add(name, typeFile|mode(perm), string(content), 0, 0)
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string) error {
	return w.add(name, typeSymlink|0o777, target, 0, 0)
}

// CharDevice adds a character device.
func (w *Writer) CharDevice(name string, perm fs.FileMode, major, minor int) error {
	return w.add(name, typeChar|mode(perm), "", major, minor)
}

// mode is the bits of a mode as the kernel has them.
func mode(perm fs.FileMode) int {
	m := int(perm.Perm())
	for bit, kernel := range map[fs.FileMode]int{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if perm&bit != 0 {
			m |= kernel
		}
	}
	return m
}

// Close ends the archive; the writer below stays open.
func (w *Writer) Close() error {
	w.inode = -1 // the trailer's is 0
	w.header("TRAILER!!!", 0, 1, 0, 0, 0)
	w.write(strings.Repeat("\x00", int(-w.size&511)))
	if w.err != nil {
		return w.err
	}
	return w.w.Flush()
}
