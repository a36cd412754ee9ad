package diff

import (
	"context"
	"errors"
	"io/fs"

	"nixos-go/pkg/reset"
)

// expansion walks a directory that is wiped or brought back as a whole, and finds the
// top-most paths in it that are to be shown: the directory itself unless the filter, or
// --children, asks for something inside.
type expansion struct {
	*looker

	change *reset.Change
	known  bool // the last run has listed the directory
	stack  []*folder
}

// folder is a directory on the way to the entry that is looked at.
type folder struct {
	entry   *reset.Entry
	shown   bool // it is a row of its own, or part of one
	row     bool // it is a row of its own
	empty   bool
	visible int64 // files in it that count
	hidden  int64
	size    uint64
}

// expand looks into a directory.
func (l *looker) expand(c *reset.Change, side *reset.Side, known bool) error {
	x := &expansion{looker: l, change: c, known: known}
	start := c.Path
	if l.children != "" && below(l.children, absolutePath(l.volume, c.Path)) {
		start = pathInVolume(l.volume, l.children)
	}
	err := side.Walk(start, x.visit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for len(x.stack) > 0 {
		x.leave()
	}
	return nil
}

// inScope tells whether an entry is part of the change: what is kept below a directory
// that comes back does not, and what is excluded below a kept one is not kept. Nothing
// that is kept exists below a directory that is wiped.
func (x *expansion) inScope(e *reset.Entry) bool {
	if e.Path == x.change.Path || !x.request.kept && x.change.Kind != reset.KindDeleted {
		return true
	}
	return x.volume.Kept(e.Path) == x.request.kept
}

// isShown decides about an entry by itself, and about all below it.
func (x *expansion) isShown(e *reset.Entry, abs string) bool {
	if x.children != "" && depth(abs) < x.request.deepest() && e.IsDir() || abs == x.children {
		return false
	}
	if x.known && (x.change.Kind == reset.KindDeleted || !x.last.isNew(x.volume, e)) {
		return false
	}
	return x.filter.selects(abs)
}

func (x *expansion) visit(e *reset.Entry) error {
	if x.walked++; x.walked%1024 == 0 {
		if err := context.Cause(x.ctx); err != nil {
			return err
		}
	}
	for len(x.stack) > 0 && !below(e.Path, x.top().entry.Path) {
		x.leave()
	}
	abs := absolutePath(x.volume, e.Path)
	switch {
	case !x.filter.leadsTo(abs):
		return fs.SkipDir
	case !x.inScope(e):
		if x.request.kept {
			return nil // something below may be kept again
		}
		return fs.SkipDir
	case x.filter.ignores(abs):
		x.view.hidden.Ignored++
		return fs.SkipDir
	}
	within := len(x.stack) > 0 && x.top().shown
	shown := within || x.isShown(e, abs)
	if len(x.stack) > 0 {
		x.top().empty = false
	}
	if e.IsDir() {
		x.stack = append(x.stack, &folder{entry: e, shown: shown, row: shown && !within, empty: true})
		return nil
	}
	x.file(e, shown, within)
	return nil
}

// file takes in what is no directory.
func (x *expansion) file(e *reset.Entry, shown, within bool) {
	switch {
	case !shown:
	case x.hides(e):
		x.view.hidden.Symlinks++
		if len(x.stack) > 0 {
			x.top().hidden++
		}
	case within:
		x.top().visible++
		x.top().size += x.size(e)
	default:
		x.add(x.change, e, x.size(e), 1)
	}
}

func (x *expansion) top() *folder { return x.stack[len(x.stack)-1] }

// leave ends a directory: it becomes a row, or part of the one above.
func (x *expansion) leave() {
	f := x.top()
	x.stack = x.stack[:len(x.stack)-1]
	onlyHidden := f.visible == 0 && f.hidden > 0
	abs := absolutePath(x.volume, f.entry.Path)
	switch {
	case f.row:
		if !onlyHidden {
			x.add(x.change, f.entry, f.size, f.visible)
		}
		return
	case !f.shown && f.empty && abs != x.children && !x.known && x.filter.selects(abs):
		// --children looks through directories down to a depth; an empty one ends
		// before.
		x.add(x.change, f.entry, 0, 0)
	}
	if len(x.stack) > 0 {
		up := x.top()
		up.visible += f.visible
		up.hidden += f.hidden
		up.size += f.size
	}
}
