package ui

import (
	"strings"
	"unicode/utf8"
)

// Table is a result in columns. Cells are shown as they are: names from disk
// go through [Printable] first.
type Table struct {
	// Head names the columns; a name that begins with ">" sets its column
	// flush right.
	Head []string
	rows [][]string
}

// Row adds a row; it may be shorter than the head.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Table writes a table to standard output. The last column is neither padded
// nor cut.
func (u *UI) Table(t *Table) error {
	head := make([]string, len(t.Head))
	right := make([]bool, len(t.Head))
	widths := make([]int, len(t.Head))
	for i, name := range t.Head {
		head[i], right[i] = strings.CutPrefix(name, ">")
		widths[i] = utf8.RuneCountInString(head[i])
	}
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	line := func(cells []string, style Style) {
		var l strings.Builder
		for i, cell := range cells {
			if i > 0 {
				l.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case right[i]:
				l.WriteString(pad + cell)
			case i == len(cells)-1:
				l.WriteString(cell)
			default:
				l.WriteString(cell + pad)
			}
		}
		b.WriteString(u.Out(style, strings.TrimRight(l.String(), " ")))
		b.WriteByte('\n')
	}
	line(head, Bold)
	for _, row := range t.rows {
		line(row, Plain)
	}
	return u.Print(b.String())
}
