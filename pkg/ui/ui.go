// Package ui is how the tools speak.
//
// Messages go to standard error: what happens ([UI.Infof]), what went well
// ([UI.Donef]), warnings, errors, and hints that say what to do next. Results go
// to standard output, as text, as a [Table], or as JSON. Colour marks the first
// word of a message and nothing else, on a terminal alone, never under
// NO_COLOR (https://no-color.org) or TERM=dumb; no message needs it to be
// understood. Names found on disk pass through [Printable], so that none can
// send the terminal an escape sequence.
package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// Options describe the two streams.
type Options struct {
	// ColorOut and ColorErr allow colour on the streams.
	ColorOut, ColorErr bool
	// Live says that messages go to a terminal, where a line can be redrawn.
	Live bool
	// Width is the terminal's width in columns; 0 is unknown and unbounded.
	Width int
}

// UI speaks on two streams. Its methods may be called by several goroutines.
type UI struct {
	mu       sync.Mutex
	out, err io.Writer
	options  Options
	drawn    bool // a progress line stands on the terminal
}

// New speaks on two writers.
func New(out, err io.Writer, options Options) *UI {
	return &UI{out: out, err: err, options: options}
}

// ForTerminal speaks on the process's streams and finds out what they are.
func ForTerminal(out, err *os.File, getenv func(string) string) *UI {
	color := getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	outIsTerminal, errIsTerminal := term.IsTerminal(int(out.Fd())), term.IsTerminal(int(err.Fd()))
	options := Options{
		ColorOut: color && outIsTerminal,
		ColorErr: color && errIsTerminal,
		Live:     errIsTerminal && getenv("TERM") != "dumb",
	}
	if outIsTerminal {
		if width, _, sizeErr := term.GetSize(int(out.Fd())); sizeErr == nil {
			options.Width = width
		}
	}
	return New(out, err, options)
}

// Style is a colour or weight (ECMA-48, select graphic rendition).
type Style string

// The styles in use.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "1;31"
	Green  Style = "32"
	Yellow Style = "33"
	Blue   Style = "1;34"
)

func paint(allowed bool, style Style, text string) string {
	if !allowed || style == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

// Out paints text for a result.
func (u *UI) Out(style Style, text string) string { return paint(u.options.ColorOut, style, text) }

// message writes one message; lines after the first are indented under it.
func (u *UI) message(style Style, mark, text string) {
	text = strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
	if mark != "" {
		mark = paint(u.options.ColorErr, style, mark) + " "
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.eraseLine()
	_, _ = fmt.Fprintf(u.err, "%s%s\n", mark, text)
}

// Infof says what happens.
func (u *UI) Infof(format string, args ...any) { u.message(Plain, "", fmt.Sprintf(format, args...)) }

// Stepf announces a part of a longer work.
func (u *UI) Stepf(format string, args ...any) { u.message(Blue, "==>", fmt.Sprintf(format, args...)) }

// Donef says what went well.
func (u *UI) Donef(format string, args ...any) { u.message(Green, "ok:", fmt.Sprintf(format, args...)) }

// Warnf says what the owner should know; the work goes on.
func (u *UI) Warnf(format string, args ...any) {
	u.message(Yellow, "warning:", fmt.Sprintf(format, args...))
}

// Errorf says what failed.
func (u *UI) Errorf(format string, args ...any) {
	u.message(Red, "error:", fmt.Sprintf(format, args...))
}

// Hintf says what to do next.
func (u *UI) Hintf(format string, args ...any) { u.message(Dim, "hint:", fmt.Sprintf(format, args...)) }

// Print writes a result as it is, with a newline at its end.
func (u *UI) Print(text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return u.Raw(text)
}

// Raw writes a result exactly as it is.
func (u *UI) Raw(text string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.eraseLine()
	_, err := io.WriteString(u.out, text)
	return err
}

// Printf writes a result.
func (u *UI) Printf(format string, args ...any) error { return u.Print(fmt.Sprintf(format, args...)) }

// JSON writes a result as indented JSON; <, > and & stay as they are.
func (u *UI) JSON(value any) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.eraseLine()
	encoder := json.NewEncoder(u.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// Live is where the lines of a running program go: dimmed, among the messages.
func (u *UI) Live() io.Writer { return liveWriter{u} }

type liveWriter struct{ ui *UI }

// Write takes whole lines.
func (w liveWriter) Write(p []byte) (int, error) {
	for line := range strings.SplitSeq(strings.TrimRight(string(p), "\n"), "\n") {
		w.ui.message(Plain, "", paint(w.ui.options.ColorErr, Dim, "  "+line))
	}
	return len(p), nil
}

// IsLive tells whether messages go to a terminal.
func (u *UI) IsLive() bool { return u.options.Live }
