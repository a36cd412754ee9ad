package diff

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/ui"
)

// maxContent bounds the files that are compared line by line.
const maxContent = 16 << 20

// version is a file as one of the two trees has it.
type version struct {
	entry *reset.Entry // nil: there is none
	text  []byte
}

// comparison is the result of --content.
type comparison struct {
	ui.Path

	Kept   bool           `json:"kept"`
	Base   string         `json:"base"`   // what it is compared with
	Before *versionReport `json:"before"` // null: there is none
	After  *versionReport `json:"after"`
	Same   bool           `json:"same"`
	Binary bool           `json:"binary"`
	Diff   string         `json:"diff"` // unified
}

type versionReport struct {
	Type   string   `json:"type"`
	Size   uint64   `json:"size"`
	Mode   string   `json:"mode"`
	Owner  string   `json:"owner"`
	MTime  string   `json:"mtime"`
	Target *ui.Path `json:"target,omitempty"`
}

// content shows how one file differs.
func (t tool) content(r request, tgt *target) error {
	volume, rel, err := tgt.at(r.content)
	if err != nil {
		if tgt.failed() {
			return clikit.ErrReported
		}
		return err
	}
	before, err := readVersion(volume.Base, r.content, rel)
	if err != nil {
		return err
	}
	after, err := readVersion(volume.Live, r.content, rel)
	if err != nil {
		return err
	}
	if before.entry == nil && after.entry == nil {
		return &fs.PathError{Op: "--content", Path: r.content, Err: unix.ENOENT}
	}
	c := comparison{Path: ui.JSONPath(r.content), Kept: volume.Kept(rel), Base: tgt.plan.Clean}
	if r.sinceBoot {
		c.Base = reset.NameCurrent
	}
	c.fill(r.content, before, after)
	if r.json {
		return t.env.UI.JSON(c)
	}
	return t.showContent(r.content, c)
}

// readVersion reads a file, or the target of a symlink.
func readVersion(side *reset.Side, path, rel string) (version, error) {
	e, err := side.Stat(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return version{}, nil
	}
	if err != nil {
		return version{}, err
	}
	v := version{entry: e}
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return v, clikit.WithHint(&fs.PathError{Op: "--content", Path: path, Err: unix.EISDIR}, "--children looks into a directory")
	case unix.S_IFLNK:
		v.text = []byte(e.Target + "\n")
	case unix.S_IFREG:
		if e.Size > maxContent {
			return v, fmt.Errorf("%s has %s, which is too much to compare line by line", path, ui.Size(int64(e.Size)))
		}
		f, err := side.Open(rel)
		if err != nil {
			return v, err
		}
		defer f.Close()
		if v.text, err = io.ReadAll(io.LimitReader(f, maxContent)); err != nil {
			return v, err
		}
	}
	return v, nil
}

func (c *comparison) fill(path string, before, after version) {
	c.Before, c.After = before.report(), after.report()
	c.Binary = bytes.IndexByte(before.text, 0) >= 0 || bytes.IndexByte(after.text, 0) >= 0
	c.Same = before.entry != nil && after.entry != nil && bytes.Equal(before.text, after.text) && c.Before.like(c.After)
	if !c.Binary {
		// The first line repeats the names.
		_, text, _ := bytes.Cut(diff.Diff(c.Base+path, before.text, "now"+path, after.text), []byte("\n"))
		c.Diff = string(text)
	}
}

func (v version) report() *versionReport {
	e := v.entry
	if e == nil {
		return nil
	}
	out := &versionReport{
		Type: reset.TypeName(e.Mode), Size: e.Size, Mode: fmt.Sprintf("%04o", e.Mode&0o7777),
		Owner: fmt.Sprintf("%d:%d", e.UID, e.GID),
		MTime: time.Unix(e.MTime.Sec, int64(e.MTime.Nsec)).UTC().Format(time.RFC3339Nano),
	}
	if e.Target != "" {
		target := ui.JSONPath(e.Target)
		out.Target = &target
	}
	return out
}

// like compares all but the target, which is the text of a symlink.
func (r *versionReport) like(o *versionReport) bool {
	return r.Type == o.Type && r.Size == o.Size && r.Mode == o.Mode && r.Owner == o.Owner && r.MTime == o.MTime
}

// showContent writes a comparison for people.
func (t tool) showContent(path string, c comparison) error {
	shown := ui.Printable(path)
	switch {
	case c.Same:
		t.env.UI.Infof("%s is as %s has it", shown, c.Base)
	case c.Before == nil:
		t.env.UI.Infof("%s is not in %s", shown, c.Base)
	case c.After == nil:
		t.env.UI.Infof("%s is in %s alone", shown, c.Base)
	default:
		for _, f := range [...][3]string{
			{"type", c.Before.Type, c.After.Type},
			{"mode", c.Before.Mode, c.After.Mode},
			{"owner", c.Before.Owner, c.After.Owner},
			{"mtime", c.Before.MTime, c.After.MTime},
		} {
			if f[1] != f[2] {
				t.env.UI.Infof("%s: %s in %s, %s now", f[0], f[1], c.Base, f[2])
			}
		}
	}
	if c.Kept {
		t.env.UI.Infof("%s is kept: the next boot leaves it as it is", shown)
	}
	if c.Binary {
		if !c.Same {
			t.env.UI.Infof("binary content is not shown")
		}
		return nil
	}
	var b strings.Builder
	for line := range strings.Lines(c.Diff) {
		b.WriteString(t.env.UI.Out(lineStyle(line), visible(strings.TrimSuffix(line, "\n"))) + "\n")
	}
	return t.env.UI.Print(b.String())
}

// lineStyle is the colour of a line of a unified diff.
func lineStyle(line string) ui.Style {
	switch {
	case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
		return ui.Bold
	case strings.HasPrefix(line, "+"):
		return ui.Green
	case strings.HasPrefix(line, "-"):
		return ui.Red
	case strings.HasPrefix(line, "@@"):
		return ui.Blue
	}
	return ui.Plain
}

// visible shows what a terminal would obey, and bytes that are not UTF-8, as escapes:
// the file may be anyone's, and root looks at it.
func visible(line string) string {
	var b strings.Builder
	for len(line) > 0 {
		r, size := utf8.DecodeRuneInString(line)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, line[0])
		case r == '\t':
			b.WriteByte('\t')
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r >= 0x80 && r < 0xa0, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			fmt.Fprintf(&b, `\u%04x`, r) // C1 controls; marks that turn the order of text
		default:
			b.WriteString(line[:size])
		}
		line = line[size:]
	}
	return b.String()
}
