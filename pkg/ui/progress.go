package ui

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// redraw bounds how often a progress line is drawn again.
const redraw = 100 * time.Millisecond

// Progress is a counter that a long work moves on: one line that is redrawn on a
// terminal, nothing elsewhere.
type Progress struct {
	ui    *UI
	label string
	total int64
	done  atomic.Int64
	drawn atomic.Int64 // when, in nanoseconds since the start
	start time.Time
}

// Progress starts a counter; total 0 is unknown.
func (u *UI) Progress(label string, total int64) *Progress {
	p := &Progress{ui: u, label: label, total: total, start: time.Now()}
	p.draw()
	return p
}

// Add moves the counter on.
func (p *Progress) Add(n int64) {
	p.done.Add(n)
	now := time.Since(p.start).Nanoseconds()
	last := p.drawn.Load()
	if now-last >= int64(redraw) && p.drawn.CompareAndSwap(last, now) {
		p.draw()
	}
}

// End takes the line away: what was done, the tool tells.
func (p *Progress) End() {
	p.ui.mu.Lock()
	defer p.ui.mu.Unlock()
	p.ui.eraseLine()
}

func (p *Progress) count() string {
	done := p.done.Load()
	if p.total <= 0 {
		return strconv.FormatInt(done, 10)
	}
	return fmt.Sprintf("%d of %d (%d%%)", done, p.total, done*100/p.total)
}

func (p *Progress) draw() {
	u := p.ui
	if !u.options.Live {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.eraseLine()
	_, _ = fmt.Fprintf(u.err, "%s: %s", p.label, p.count())
	u.drawn = true
}

// eraseLine removes a progress line; the caller holds the lock.
func (u *UI) eraseLine() {
	if u.drawn {
		_, _ = fmt.Fprint(u.err, "\r\x1b[K")
		u.drawn = false
	}
}
