package main

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"nixos-go/pkg/keep"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/testx/model"
	"nixos-go/pkg/ui"
)

// teller writes the story, in at most width columns.
type teller struct {
	*ui.UI

	chapters int
}

const width = 80

// chapter begins a part of the story.
func (t *teller) chapter(title string) {
	t.chapters++
	_ = t.Printf("\n%s", t.Out(ui.Bold, fmt.Sprintf("%d. %s", t.chapters, title)))
}

// sayf writes a paragraph.
func (t *teller) sayf(format string, args ...any) {
	for _, line := range wrap(fmt.Sprintf(format, args...), width-3) {
		_ = t.Printf("   %s", line)
	}
}

// wrap breaks a text into lines.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}

// row writes a line with a mark, a text, and something on the right.
func (t *teller) row(style ui.Style, mark, text, right string) {
	pad := max(1, width-4-len(mark)-utf8.RuneCountInString(text)-utf8.RuneCountInString(right))
	line := fmt.Sprintf("   %s %s", t.Out(style, mark), text)
	if right != "" {
		line += strings.Repeat(" ", pad) + t.Out(ui.Dim, right)
	}
	_ = t.Print(line)
}

// ran shows a command and what it said.
func (t *teller) ran(b boot) {
	t.row(ui.Dim, "$", t.Out(ui.Bold, b.command), "")
	for _, line := range b.lines {
		style := ui.Plain
		if strings.HasPrefix(line, "warning: ") {
			style = ui.Yellow
		}
		for i, part := range wrap(line, width-4) {
			_ = t.Printf("    %s%s", strings.Repeat(" ", 2*min(i, 1)), t.Out(style, part))
		}
	}
}

// duration is a time for people.
func duration(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// grouped is a number with commas between thousands.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (a amount) String() string { return files(a.files) + ", " + ui.Size(a.bytes) }

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return grouped(n) + " files"
}

// The signs of the kinds of changes, as nixos-diff has them: seen from the side of
// what the boot does.
var signs = map[string]struct {
	mark  string
	style ui.Style
	what  string
}{
	string(reset.KindAdded):    {"-", ui.Red, "wiped"},
	string(reset.KindModified): {"~", ui.Yellow, "changed back"},
	string(reset.KindMetadata): {"~", ui.Yellow, "changed back"},
	string(reset.KindType):     {"~", ui.Yellow, "changed back"},
	string(reset.KindDeleted):  {"+", ui.Green, "brought back"},
}

// previewed shows the changes of one volume.
func (t *teller) previewed(v reset.PlanFileVolume, changes []change, old, next model.Tree) {
	for _, c := range changes {
		sign := signs[c.Kind]
		right := sign.what
		if lost := lostBelow(c.Path, old, next); c.Kind == string(reset.KindAdded) && lost.files > 1 {
			right = lost.String() + " " + right
		}
		if c.Kind == string(reset.KindMetadata) {
			right = strings.Join(c.Fields, ", ") + " " + right
		}
		t.row(sign.style, sign.mark, ui.Printable(path.Join(v.MountPoint, c.Path)), right)
	}
}

// lostBelow counts the files at and below a path that the new state does not have.
func lostBelow(at string, old, next model.Tree) amount {
	var a amount
	at = strings.TrimPrefix(at, "/")
	for p, e := range old {
		if _, stays := next[p]; !stays && e.Type == unix.S_IFREG && (p == at || strings.HasPrefix(p, at+"/")) {
			a = a.plus(e.Size)
		}
	}
	return a
}

// lost counts the files of a state that another does not have.
func lost(old, next state) amount {
	var a amount
	for name := range old {
		for p, e := range old[name] {
			if _, stays := next[name][p]; !stays && e.Type == unix.S_IFREG {
				a = a.plus(e.Size)
			}
		}
	}
	return a
}

// keptFiles gives the files of a state that lie at or below kept paths.
func (d *disk) keptFiles(s state) (state, amount, error) {
	out, total := state{}, amount{}
	for _, v := range d.plan.Volumes {
		rules, err := keep.NewSet(v.Keep, v.Exclude)
		if err != nil {
			return nil, amount{}, err
		}
		matcher := keep.NewMatcher(rules)
		out[v.Name] = model.Tree{}
		for p, e := range s[v.Name] {
			if e.Type == unix.S_IFREG && matcher.Kept("/"+p) {
				out[v.Name][p] = e
				total = total.plus(e.Size)
			}
		}
	}
	return out, total, nil
}

// survived counts which of the files are in a state as they were.
func survived(files, now state) (same, gone int) {
	for name := range files {
		for p, e := range files[name] {
			n, there := now[name][p]
			if there && n.Hash == e.Hash && n.Mode == e.Mode && n.UID == e.UID && n.GID == e.GID && n.MTime == e.MTime {
				same++
			} else {
				gone++
			}
		}
	}
	return same, gone
}
