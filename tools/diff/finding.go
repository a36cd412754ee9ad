package diff

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// mixed is the kind of a row that sums up findings of several kinds.
const mixed = reset.Kind("mixed")

// row is one line of the result: a path, and what stands behind it.
type row struct {
	volume string
	path   string // absolute
	kind   reset.Kind
	fields reset.Fields
	mode   uint32 // st_mode of what would be lost; of what comes back for deleted
	was    uint32 // of CLEAN's side, for type
	nested bool   // a subvolume
	target string // of a symlink
	size   uint64 // bytes of all files in it
	files  int64  // what is in it that is no directory; 1 for a file
	sums   map[reset.Kind]int
}

func (r *row) isDir() bool { return r.mode&unix.S_IFMT == unix.S_IFDIR }

// view is what is shown.
type view struct {
	rows   []row
	totals map[string]*total // by volume
	hidden hidden
}

// total counts findings by kind.
type total struct {
	number map[reset.Kind]int
	size   map[reset.Kind]uint64
}

// hidden counts what a view leaves out.
type hidden struct {
	Times    int64 `json:"directoryTimes"`
	Symlinks int64 `json:"storeSymlinks"`
	Ignored  int64 `json:"ignored"`
}

// changes are all of a volume's: also the stubs of subvolumes, which a reset removes
// without a word, since nothing can be in one.
func changes(v *reset.VolumePreview) []reset.Change {
	list := slices.Clone(v.Plan.Changes)
	for _, path := range v.Plan.Stubs() {
		list = append(list, reset.Change{Path: path, Kind: reset.KindAdded, Mode: unix.S_IFDIR})
	}
	return list
}

// look makes the view that a request asks for.
func (t tool) look(ctx context.Context, r request, tgt *target, f *filter) (*view, error) {
	v := &view{totals: map[string]*total{}}
	for _, volume := range tgt.volumes {
		if volume.Err != nil {
			continue
		}
		l := &looker{ctx: ctx, request: r, filter: f, volume: volume, view: v, linked: map[inode]bool{}}
		if f.memory != nil {
			l.last = f.memory.volume(r.question(), volume.Volume.Name)
		}
		if r.children != "" {
			l.children = r.children
		}
		if err := l.look(); err != nil {
			return nil, err
		}
		if l.walked >= manyFiles {
			t.env.UI.Infof("%s: looked at %d files and directories for their sizes", volume.Volume.Name, l.walked)
		}
	}
	if r.children != "" {
		if err := checkChildren(r, tgt, v); err != nil {
			return nil, err
		}
	}
	for _, p := range r.paths {
		if volume, rel, err := tgt.at(p); err == nil && !exists(volume, rel) {
			t.env.UI.Warnf("there is no %s, and there was none", ui.Printable(p))
		}
	}
	v.count()
	v.sum(r.deepest())
	slices.SortStableFunc(v.rows, func(a, b row) int { return comparePaths(a.path, b.path) })
	return v, nil
}

// manyFiles is from when on the number of files that were walked is told.
const manyFiles = 100_000

// deepest is how many components a row's path has at most; 0 is no bound.
func (r request) deepest() int {
	switch {
	case r.children != "":
		return depth(r.children) + max(r.depth, 1)
	default:
		return r.depth
	}
}

func depth(abs string) int {
	if abs == "/" {
		return 0
	}
	return strings.Count(abs, "/")
}

// checkChildren explains an empty answer about a directory.
func checkChildren(r request, tgt *target, v *view) error {
	if len(v.rows) > 0 || v.hidden != (hidden{}) {
		return nil
	}
	volume, rel, err := tgt.at(r.children)
	if err != nil {
		return err
	}
	var found *reset.Entry
	for _, side := range []*reset.Side{volume.Live, volume.Base} {
		e, err := side.Stat(rel)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && (found == nil || e.IsDir()) {
			found = e
		}
	}
	switch {
	case found == nil:
		return &fs.PathError{Op: "--children", Path: r.children, Err: unix.ENOENT}
	case !found.IsDir():
		return &fs.PathError{Op: "--children", Path: r.children, Err: unix.ENOTDIR}
	}
	return nil
}

// exists tells whether either tree has a path.
func exists(volume *reset.VolumePreview, rel string) bool {
	for _, side := range []*reset.Side{volume.Live, volume.Base} {
		if _, err := side.Stat(rel); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// inode tells hard links apart from copies.
type inode struct{ subvolume, number uint64 }

// looker turns the changes of one volume into rows.
type looker struct {
	ctx      context.Context
	request  request
	filter   *filter
	volume   *reset.VolumePreview
	view     *view
	last     *lastRunVolume
	children string // the one directory that is shown, if any
	linked   map[inode]bool
	walked   int64
}

func (l *looker) look() error {
	for _, c := range changes(l.volume) {
		if err := context.Cause(l.ctx); err != nil {
			return err
		}
		if err := l.change(&c); err != nil {
			return err
		}
	}
	return nil
}

// change decides about one change.
func (l *looker) change(c *reset.Change) error {
	abs := absolutePath(l.volume, c.Path)
	if l.children != "" && !below(abs, l.children) && !below(l.children, abs) || !l.filter.leadsTo(abs) {
		return nil
	}
	side, e, err := l.entry(c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it vanished meanwhile
	}
	if err != nil {
		return err
	}
	known := l.filter.recent && l.last.knows(c.Path, c.Kind)
	if isWhole(c.Kind) && e.IsDir() {
		return l.expand(c, side, known)
	}
	if l.children != "" && (abs == l.children || !below(abs, l.children)) {
		return nil // the directory itself is not one of its entries
	}
	switch {
	case known || !l.filter.selects(abs):
	case c.OnlyTime() && !l.filter.times:
		l.view.hidden.Times++
	case l.filter.ignores(abs):
		l.view.hidden.Ignored++
	case l.hides(e):
		l.view.hidden.Symlinks++
	default:
		l.add(c, e, e.Size, 1)
	}
	return nil
}

// isWhole tells whether a change stands for all that is in a directory.
func isWhole(kind reset.Kind) bool {
	return kind == reset.KindAdded || kind == reset.KindDeleted || kind == reset.KindType
}

// entry is what a change is about, and the tree that has it. What the plan says suffices
// for most: looking it up again would take longer than to find it.
func (l *looker) entry(c *reset.Change) (*reset.Side, *reset.Entry, error) {
	side := l.volume.Live
	if c.Kind == reset.KindDeleted {
		side = l.volume.Base
	}
	e := &reset.Entry{Path: c.Path, Mode: c.Mode, Size: c.Size}
	if isWhole(c.Kind) && e.IsDir() || c.Kind == reset.KindType || c.Mode&unix.S_IFMT == unix.S_IFLNK || c.IsSubvolume() {
		var err error
		e, err = side.Stat(c.Path)
		return side, e, err
	}
	return side, e, nil
}

// hides tells whether a symlink is one that the configuration makes.
func (l *looker) hides(e *reset.Entry) bool {
	return !l.filter.symlinks && e.Mode&unix.S_IFMT == unix.S_IFLNK && leadsToStore(e.Target)
}

func (l *looker) add(c *reset.Change, e *reset.Entry, size uint64, files int64) {
	r := row{
		volume: l.volume.Volume.Name, path: absolutePath(l.volume, e.Path), kind: c.Kind,
		mode: e.Mode, nested: e.Nested, target: e.Target, size: size, files: files,
	}
	if e.Path == c.Path {
		r.fields = c.Fields
		if c.Kind == reset.KindType {
			if base, err := l.volume.Base.Stat(c.Path); err == nil {
				r.was = base.Mode
			}
		}
	}
	l.view.rows = append(l.view.rows, r)
}

// size counts the bytes of a file once, however many names it has.
func (l *looker) size(e *reset.Entry) uint64 {
	if e.Links > 1 && !e.IsDir() {
		key := inode{e.Subvolume, e.Inode}
		if l.linked[key] {
			return 0
		}
		l.linked[key] = true
	}
	return e.Size
}

// comparePaths orders paths component by component.
func comparePaths(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// count fills the totals.
func (v *view) count() {
	for _, r := range v.rows {
		all := v.totals[r.volume]
		if all == nil {
			all = &total{number: map[reset.Kind]int{}, size: map[reset.Kind]uint64{}}
			v.totals[r.volume] = all
		}
		all.number[r.kind]++
		all.size[r.kind] += r.size
	}
}

// sum puts rows that lie deeper than a depth together, in the directory of that depth
// above them.
func (v *view) sum(deepest int) {
	if deepest == 0 {
		return
	}
	var rows []row
	at := map[string]int{}
	for _, r := range v.rows {
		components := strings.Split(r.path, "/")
		if len(components)-1 <= deepest {
			if i, there := at[r.path]; there {
				rows[i].merge(r)
				continue
			}
			at[r.path] = len(rows)
			rows = append(rows, r)
			continue
		}
		path := strings.Join(components[:deepest+1], "/")
		i, there := at[path]
		if !there {
			i = len(rows)
			at[path] = i
			rows = append(rows, row{volume: r.volume, path: path, mode: unix.S_IFDIR, sums: map[reset.Kind]int{}})
		}
		rows[i].merge(r)
	}
	v.rows = rows
}

// merge takes another row into this one, which then stands for both.
func (r *row) merge(other row) {
	if r.sums == nil {
		own := *r
		r.sums, r.fields, r.size, r.files = map[reset.Kind]int{}, 0, 0, 0
		r.take(own)
	}
	r.take(other)
	r.kind = mixed
	if len(r.sums) == 1 {
		for kind := range r.sums {
			r.kind = kind
		}
	}
}

// take counts another row in.
func (r *row) take(other row) {
	if other.sums == nil {
		r.sums[other.kind]++
	}
	for kind, n := range other.sums {
		r.sums[kind] += n
	}
	if other.kind != reset.KindMetadata { // no content is at stake
		r.size += other.size
		r.files += other.files
	}
}
