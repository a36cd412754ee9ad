package console

import (
	"regexp"
	"strconv"
	"strings"
)

// sequence is a control sequence of a terminal (ECMA-48, 5.4), or another
// escape that draws nothing.
var sequence = regexp.MustCompile(`^\x1b(?:\[([0-9;?]*)([a-zA-Z])|[()][A-B]|[=>]|([78]))`)

// Rendered is what stands on the screen in the end: what was overwritten or
// erased is gone, unlike in [Console.Screen]. Lines are as long as they were
// printed, and none scrolls away.
func (c *Console) Rendered() string {
	s := screen{}
	raw := c.Raw()
	for len(raw) > 0 {
		if match := sequence.FindStringSubmatch(raw); match != nil {
			s.control(match[1], match[2]+match[3])
			raw = raw[len(match[0]):]
			continue
		}
		r := []rune(raw[:min(len(raw), 4)])[0]
		s.put(r)
		raw = raw[len(string(r)):]
	}
	lines := make([]string, len(s.lines))
	for i, line := range s.lines {
		lines[i] = strings.TrimRight(string(line), " ")
	}
	return strings.Join(lines, "\n")
}

// style is a control sequence that sets a colour or a weight (SGR).
var style = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// Coloured tells whether anything on the screen has a colour or a weight.
func (c *Console) Coloured() bool { return style.MatchString(c.Raw()) }

// screen is a grid of characters and a cursor, and where the cursor was saved.
type screen struct {
	lines             [][]rune
	row, column       int
	oldRow, oldColumn int
}

func (s *screen) put(r rune) {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, nil)
	}
	switch r {
	case '\r':
		s.column = 0
	case '\n':
		s.row++
	case '\b':
		s.column = max(s.column-1, 0)
	default:
		for len(s.lines[s.row]) <= s.column {
			s.lines[s.row] = append(s.lines[s.row], ' ')
		}
		s.lines[s.row][s.column] = r
		s.column++
	}
}

// control does what a control sequence asks for: movements of the cursor and
// erasing; colours and modes draw nothing.
func (s *screen) control(parameters, final string) {
	n, err := strconv.Atoi(parameters)
	count := max(n, 1)
	if err != nil {
		n = 0
	}
	switch final {
	case "A":
		s.row = max(s.row-count, 0)
	case "B":
		s.row += count
	case "C":
		s.column += count
	case "D":
		s.column = max(s.column-count, 0)
	case "G":
		s.column = count - 1
	case "7": // DECSC and DECRC, of the VT100
		s.oldRow, s.oldColumn = s.row, s.column
	case "8":
		s.row, s.column = s.oldRow, s.oldColumn
	case "J":
		s.lines = s.lines[:min(len(s.lines), s.row+1)]
		s.erase(0)
	case "K":
		s.erase(n)
	}
}

// erase erases in the line of the cursor: 0 what follows, 1 what is before, 2
// all of it.
func (s *screen) erase(what int) {
	if s.row >= len(s.lines) {
		return
	}
	line := s.lines[s.row]
	for i := range line {
		if what == 2 || (what == 0 && i >= s.column) || (what == 1 && i <= s.column) {
			line[i] = ' '
		}
	}
}
