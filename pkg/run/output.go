package run

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

const (
	// tailSize is how much of a program's output an error carries, in bytes.
	tailSize = 8 << 10
	// maxStdout bounds what is kept of a standard output, in bytes. The
	// largest real answer, the JSON of a whole configuration, has a few MB.
	maxStdout = 256 << 20
)

var errTooMuch = errors.New("the program wrote more than 256 MB")

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > tailSize {
		t.buf = append(t.buf[:0], t.buf[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String is the last tailSize bytes, from the start of a line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, cut := t.buf, t.cut
	if over := len(b) - tailSize; over > 0 {
		b, cut = b[over:], true
	}
	if !cut {
		return string(b)
	}
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return "…\n" + string(b)
}

// bounded is a buffer that refuses to grow without end.
type bounded struct {
	bytes.Buffer
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxStdout {
		return 0, errTooMuch
	}
	return b.Buffer.Write(p)
}

// liner passes whole lines on, redacted, so that a secret is never cut in two
// and lines of two streams never mix. A carriage return ends a line as well:
// progress bars become lines.
type liner struct {
	mu     *sync.Mutex
	to     io.Writer
	redact *Redactor
	line   []byte
}

func (l *liner) Write(p []byte) (int, error) {
	for _, c := range p {
		if c == '\n' || c == '\r' {
			l.flush()
			continue
		}
		l.line = append(l.line, c)
	}
	return len(p), nil
}

// flush passes on what is there of a line; blank lines are dropped.
func (l *liner) flush() {
	if len(bytes.TrimSpace(l.line)) == 0 {
		l.line = l.line[:0]
		return
	}
	text := l.redact.Text(string(l.line)) + "\n"
	l.line = l.line[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	// A screen that is gone must not stop the work.
	_, _ = io.WriteString(l.to, text)
}
