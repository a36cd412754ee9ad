package reset

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Wiped is something that a reset wiped or changed back: a top-most path as
// wiped.jsonl has it, or what lay below one.
type Wiped struct {
	Volume string
	Path   string // in the volume
	Kind   Kind
	Type   string // as TypeName
	Fields []string
	Size   uint64
	Depth  int // levels below the top-most path
}

// maxWipedLine bounds a line: a path of PATH_MAX bytes, in base64 or with escapes, is
// far shorter.
const maxWipedLine = 1 << 20

// ReadWiped reads wiped.jsonl.
func ReadWiped(r io.Reader) ([]Wiped, error) {
	var out []Wiped
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxWipedLine)
	for line := 1; scanner.Scan(); line++ {
		w, err := parseWiped(scanner.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		out = append(out, w)
	}
	return out, scanner.Err()
}

func parseWiped(line []byte) (Wiped, error) {
	var j changeJSON
	if err := json.Unmarshal(line, &j); err != nil {
		return Wiped{}, explainJSON(err)
	}
	path := j.Path
	if j.PathBase64 != "" {
		b, err := base64.StdEncoding.DecodeString(j.PathBase64)
		if err != nil {
			return Wiped{}, fmt.Errorf("field \"pathBase64\": %w", err)
		}
		path = string(b)
	}
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "\x00") {
		return Wiped{}, fmt.Errorf("%q is no path of a volume", path)
	}
	return Wiped{Volume: j.Volume, Path: path, Kind: j.Kind, Type: j.Type, Fields: j.Fields, Size: j.Size}, nil
}

// holdsMore reports whether what lay below went with the path.
func (w *Wiped) holdsMore() bool {
	return w.Type == TypeName(modeDir) && (w.Kind == KindAdded || w.Kind == KindType)
}

// Expand lists what lay below a wiped directory, so many levels deep (-1 is all), as
// PREVIOUS still has it; the directory itself comes first. In order, parents first.
func (w *Wiped) Expand(ctx context.Context, previous *os.File, depth int) ([]Wiped, error) {
	out := []Wiped{*w}
	if !w.holdsMore() {
		return out, nil
	}
	for i := 0; i < len(out); i++ {
		at := out[i]
		if at.Type != TypeName(modeDir) || depth >= 0 && at.Depth >= depth {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		below, err := at.entries(previous)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	slices.SortFunc(out, func(a, b Wiped) int { return comparePaths(a.Path, b.Path) })
	return out, nil
}

func (w *Wiped) entries(previous *os.File) ([]Wiped, error) {
	dir, err := openDir(previous, w.Path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil // PREVIOUS is of another boot
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	out := make([]Wiped, 0, len(names))
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, &os.PathError{Op: "stat", Path: name, Err: err}
		}
		below := Wiped{Volume: w.Volume, Path: w.Path + "/" + name, Kind: KindAdded, Type: TypeName(st.Mode), Depth: w.Depth + 1}
		if st.Mode&modeType != modeDir {
			below.Size = uint64(st.Size)
		}
		out = append(out, below)
	}
	return out, nil
}
