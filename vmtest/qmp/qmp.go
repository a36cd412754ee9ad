// Package qmp speaks the QEMU Machine Protocol over a connection.
//
// A command is answered by its return value or an [*Error]; events that arrive
// in between are kept and can be waited for. Methods may be called by several
// goroutines; commands go out one after the other. Source: QEMU's "QEMU Machine
// Protocol Specification" (docs/interop/qmp-spec).
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ErrClosed says that the connection has ended, most often with QEMU itself.
var ErrClosed = errors.New("qmp: the connection is closed")

// Error is what QEMU answers to a command that it cannot carry out.
type Error struct {
	// Command is the command that failed.
	Command string `json:"-"`
	// Class is QEMU's class of the error, "GenericError" nearly always.
	Class string `json:"class"`
	// Description is for people.
	Description string `json:"desc"`
}

// Error names the command and what QEMU says of it.
func (e *Error) Error() string { return fmt.Sprintf("qmp: %s: %s", e.Command, e.Description) }

// Event is something that happened to the machine.
type Event struct {
	// Name is "SHUTDOWN", "RESET", "STOP", …
	Name string `json:"event"`
	// Data depends on the name.
	Data json.RawMessage `json:"data"`
	// Timestamp is the host's clock.
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// Time is when the event happened.
func (e Event) Time() time.Time {
	return time.Unix(e.Timestamp.Seconds, e.Timestamp.Microseconds*int64(time.Microsecond))
}

// Version is what the greeting says of QEMU.
type Version struct {
	Major, Minor, Micro int
	// Package is the distribution's name of the build.
	Package string
}

// String is "7.2.18 (Debian 1:7.2…)".
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
	if v.Package != "" {
		s += " (" + v.Package + ")"
	}
	return s
}

// Client is one session.
type Client struct {
	// Version is QEMU's.
	Version Version

	conn io.ReadWriteCloser
	send sync.Mutex // commands go out whole

	mu      sync.Mutex
	next    uint64
	waiting map[string]chan answer
	events  []Event
	changed chan struct{} // closed and replaced at each event and at the end
	err     error         // why the session has ended; nil as long as it lasts
	done    chan struct{} // closed at the end
}

type answer struct {
	value json.RawMessage
	err   *Error
}

// message is everything that QEMU sends.
type message struct {
	Event

	QMP *struct {
		Version struct {
			QEMU struct {
				Major int `json:"major"`
				Minor int `json:"minor"`
				Micro int `json:"micro"`
			} `json:"qemu"`
			Package string `json:"package"`
		} `json:"version"`
	} `json:"QMP"`
	ID     string          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
}

// New reads the greeting, negotiates, and serves the session until the
// connection ends. It closes the connection where it fails.
func New(ctx context.Context, conn io.ReadWriteCloser) (*Client, error) {
	c := &Client{conn: conn, waiting: map[string]chan answer{}, changed: make(chan struct{}), done: make(chan struct{})}
	greeted := make(chan error, 1)
	go c.serve(greeted)
	select {
	case err := <-greeted:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("no greeting: %w", err), conn.Close())
		}
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("qmp: no greeting: %w", context.Cause(ctx)), conn.Close())
	}
	if err := c.Do(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// serve reads until the connection ends.
func (c *Client) serve(greeted chan<- error) {
	lines := json.NewDecoder(bufio.NewReader(c.conn))
	var m message
	err := lines.Decode(&m)
	if err == nil && m.QMP == nil {
		err = errors.New("the first message is another")
	}
	if err != nil {
		c.end(err)
		greeted <- c.err
		return
	}
	q := m.QMP.Version.QEMU
	c.Version = Version{Major: q.Major, Minor: q.Minor, Micro: q.Micro, Package: m.QMP.Version.Package}
	greeted <- nil
	for {
		var m message
		if err := lines.Decode(&m); err != nil {
			c.end(err)
			return
		}
		c.take(m)
	}
}

func (c *Client) take(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Name != "" {
		c.events = append(c.events, m.Event)
		c.wake()
		return
	}
	if ch, ok := c.waiting[m.ID]; ok {
		delete(c.waiting, m.ID)
		ch <- answer{value: m.Return, err: m.Error}
	}
}

// wake is called under the lock.
func (c *Client) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = ErrClosed
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	for id, ch := range c.waiting {
		delete(c.waiting, id)
		close(ch)
	}
	c.wake()
	close(c.done)
}

// Done is closed when the session has ended: with [Client.Close], or with QEMU.
func (c *Client) Done() <-chan struct{} { return c.done }

// Do runs a command. Arguments are anything that marshals to a JSON object, nil
// for none; the return value is stored in result unless that is nil.
func (c *Client) Do(ctx context.Context, command string, arguments, result any) error {
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return fmt.Errorf("%s: %w", command, c.err)
	}
	c.next++
	id := strconv.FormatUint(c.next, 10)
	c.waiting[id] = ch
	c.mu.Unlock()

	if err := c.write(id, command, arguments); err != nil {
		c.forget(id)
		return fmt.Errorf("qmp: %s: %w", command, err)
	}
	select {
	case a, ok := <-ch:
		switch {
		case !ok:
			return fmt.Errorf("%s: %w", command, c.err) // set before the channel was closed
		case a.err != nil:
			a.err.Command = command
			return a.err
		case result == nil:
			return nil
		}
		if err := json.Unmarshal(a.value, result); err != nil {
			return fmt.Errorf("qmp: answer to %s: %w", command, err)
		}
		return nil
	case <-ctx.Done():
		c.forget(id)
		return fmt.Errorf("qmp: %s: %w", command, context.Cause(ctx))
	}
}

func (c *Client) write(id, command string, arguments any) error {
	request := map[string]any{"execute": command, "id": id}
	if arguments != nil { // QEMU refuses a null
		request["arguments"] = arguments
	}
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	c.send.Lock()
	defer c.send.Unlock()
	_, err = c.conn.Write(append(line, '\n'))
	return err
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// Human runs a command of the human monitor, for what has no other interface.
// What it prints is its answer, an error's text too.
func (c *Client) Human(ctx context.Context, line string) (string, error) {
	var text string
	err := c.Do(ctx, "human-monitor-command", map[string]any{"command-line": line}, &text)
	return text, err
}

// Events are all events so far, in order.
func (c *Client) Events() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Event(nil), c.events...)
}

// Wait waits for the first event of one of the names among those that come
// after the first `after` ones (len(Events()) of an earlier moment; 0: any).
func (c *Client) Wait(ctx context.Context, after int, names ...string) (Event, error) {
	for {
		c.mu.Lock()
		events, changed, err := c.events, c.changed, c.err
		c.mu.Unlock()
		for ; after < len(events); after++ {
			if slices.Contains(names, events[after].Name) {
				return events[after], nil
			}
		}
		if err != nil {
			return Event{}, fmt.Errorf("waiting for %v: %w", names, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("qmp: waiting for %v: %w", names, context.Cause(ctx))
		}
	}
}

// Close ends the session; QEMU goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.end(nil)
	return err
}
