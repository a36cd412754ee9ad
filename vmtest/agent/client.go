package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrClosed says that the connection to the guest has ended.
	ErrClosed = errors.New("agent: the connection is closed")
	// ErrRebooted says that the guest has started anew since the request.
	ErrRebooted = errors.New("agent: the guest has booted again meanwhile")
)

// helloInterval is how often a hello is asked for until it comes.
const helloInterval = 250 * time.Millisecond

// maxLine is the longest line of the protocol, in bytes: a chunk in base64 and
// some more.
const maxLine = 4 << 20

// RemoteError is a request that the guest could not carry out.
type RemoteError struct {
	// Op and Object say what was asked for.
	Op     Op
	Object string
	// Text is the guest's message.
	Text string
	// Errno is the system call's reason, 0 where there is none.
	Errno syscall.Errno
}

// Error is what was asked for, of what, and why not.
func (e *RemoteError) Error() string { return fmt.Sprintf("guest: %s %s: %s", e.Op, e.Object, e.Text) }

// Unwrap is the errno, so that errors.Is(err, fs.ErrNotExist) tells.
func (e *RemoteError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Conn is a connection to a guest: a [net.Conn], for example.
type Conn interface {
	io.ReadWriteCloser
	SetWriteDeadline(t time.Time) error
}

// Client speaks with the agent of one guest, across its reboots.
type Client struct {
	conn Conn
	send sync.Mutex // requests go out whole
	torn bool       // the last one did not, under send

	mu    sync.Mutex
	next  uint64
	calls map[uint64]*call
	hello Hello         // the last one
	said  chan struct{} // closed and replaced at each hello and at the end
	err   error         // why the connection has ended; nil as long as it lasts
}

// call is a request that waits for replies.
type call struct {
	replies chan Reply
	gone    chan struct{} // closed when nobody waits any more
	failed  error         // set before replies is closed
}

// NewClient speaks over a connection. The guest need not run yet: what is sent
// before is read when it does.
func NewClient(conn Conn) *Client {
	c := &Client{
		conn: conn,
		// Where another client was cut off, replies to it may still come.
		next:  uint64(rand.Uint32()) << 16, //nolint:gosec // to be different, not to be secret
		calls: map[uint64]*call{},
		said:  make(chan struct{}),
	}
	go c.serve()
	return c
}

// serve reads replies until the connection ends.
func (c *Client) serve() {
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r Reply
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue // the end of a line from before this connection
		}
		c.take(r)
	}
	c.end(lines.Err())
}

func (c *Client) take(r Reply) {
	c.mu.Lock()
	if r.Hello != nil {
		if c.hello.Boot != "" && c.hello.Boot != r.Hello.Boot {
			c.failCalls(ErrRebooted)
		}
		c.hello = *r.Hello
		close(c.said)
		c.said = make(chan struct{})
	}
	called := c.calls[r.ID]
	if called != nil && r.Done {
		delete(c.calls, r.ID)
	}
	c.mu.Unlock()
	if called == nil {
		return
	}
	select {
	case called.replies <- r:
	case <-called.gone:
	}
}

// failCalls ends every call that waits, under the lock.
func (c *Client) failCalls(err error) {
	for id, called := range c.calls {
		delete(c.calls, id)
		called.failed = err
		close(called.replies)
	}
}

func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = ErrClosed
	if err != nil {
		c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	c.failCalls(c.err)
	close(c.said)
	c.said = make(chan struct{})
}

// Close ends the connection; the guest goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.end(nil)
	return err
}

// write sends a request. A guest that has stopped reading does not hold it up
// beyond the context's end.
func (c *Client) write(ctx context.Context, r Request) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	c.send.Lock()
	defer c.send.Unlock()
	if ctx.Err() != nil {
		return fmt.Errorf("agent: send %s: %w", r.Op, context.Cause(ctx))
	}
	if c.torn {
		line = append([]byte{'\n'}, line...)
	}
	if err := c.conn.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("agent: send %s: %w", r.Op, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetWriteDeadline(time.Unix(1, 0)) }) // fails with the connection
	defer stop()
	n, err := c.conn.Write(append(line, '\n'))
	c.torn = err != nil && (n > 0 || c.torn)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("agent: send %s: %w", r.Op, err)
	}
	return nil
}

// begin registers a call and sends its first request.
func (c *Client) begin(ctx context.Context, r *Request) (*call, error) {
	called := &call{replies: make(chan Reply, 16), gone: make(chan struct{})}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.next++
	r.ID = c.next
	c.calls[r.ID] = called
	c.mu.Unlock()
	if err := c.write(ctx, *r); err != nil {
		c.leave(r.ID, called)
		return nil, err
	}
	return called, nil
}

// leave gives a call up.
func (c *Client) leave(id uint64, called *call) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
	close(called.gone)
}

// await passes a call's replies on until the last one.
func (c *Client) await(ctx context.Context, r Request, called *call, object string, each func(Reply) error) error {
	for {
		select {
		case reply, ok := <-called.replies:
			if !ok {
				return fmt.Errorf("%s %s: %w", r.Op, object, called.failed)
			}
			if reply.Error != "" {
				return &RemoteError{Op: r.Op, Object: object, Text: reply.Error, Errno: syscall.Errno(reply.Errno)}
			}
			if err := each(reply); err != nil {
				return err
			}
			if reply.Done {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("agent: %s %s: %w", r.Op, object, context.Cause(ctx))
		}
	}
}

// Hello waits until the guest answers.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	return c.waitHello(ctx, func(Hello) bool { return true })
}

// WaitBoot waits until a guest answers that has another boot id than the given
// one: until it has booted again.
func (c *Client) WaitBoot(ctx context.Context, before string) (Hello, error) {
	c.mu.Lock()
	last := c.hello
	c.mu.Unlock()
	if last.Boot != "" && last.Boot != before {
		return last, nil // it has said so already
	}
	return c.waitHello(ctx, func(h Hello) bool { return h.Boot != before })
}

// waitHello asks until a hello comes that pleases.
func (c *Client) waitHello(ctx context.Context, pleases func(Hello) bool) (Hello, error) {
	for {
		c.mu.Lock()
		said, err := c.said, c.err
		c.mu.Unlock()
		if err != nil {
			return Hello{}, err
		}
		if err := c.write(ctx, Request{Op: OpHello}); err != nil {
			return Hello{}, err
		}
		select {
		case <-said:
			c.mu.Lock()
			hello, err := c.hello, c.err
			c.mu.Unlock()
			if err == nil && pleases(hello) {
				return hello, nil
			}
		case <-time.After(helloInterval):
		case <-ctx.Done():
			return Hello{}, fmt.Errorf("agent: no answer from the guest: %w", context.Cause(ctx))
		}
	}
}

// Power powers the guest off or reboots it, in an orderly way. It returns when
// the guest has begun.
func (c *Client) Power(ctx context.Context, how Power) error {
	r := Request{Op: OpPower, How: how}
	called, err := c.begin(ctx, &r)
	if err != nil {
		return err
	}
	defer c.leave(r.ID, called)
	err = c.await(ctx, r, called, string(how), func(Reply) error { return nil })
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrRebooted) {
		return nil // faster than its answer
	}
	return err
}

// Put writes what content holds to a file of the guest, making the folders
// above it. The file appears complete or not at all.
func (c *Client) Put(ctx context.Context, path string, mode fs.FileMode, content io.Reader) error {
	r := Request{Op: OpPut, Path: path, Mode: uint32(mode.Perm())}
	buf := make([]byte, Chunk)
	var called *call
	for {
		n, err := io.ReadFull(content, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("put %s: %w", path, err)
		}
		r.Data, r.More = buf[:n], err == nil
		if called == nil {
			if called, err = c.begin(ctx, &r); err != nil {
				return err
			}
			defer c.leave(r.ID, called)
		} else if err := c.write(ctx, r); err != nil {
			return err
		}
		// One chunk after the other: the guest answers each.
		if err := c.chunk(ctx, r, called); err != nil {
			return err
		}
		if !r.More {
			return nil
		}
	}
}

// chunk waits for the answer to one piece of a file.
func (c *Client) chunk(ctx context.Context, r Request, called *call) error {
	select {
	case reply, ok := <-called.replies:
		switch {
		case !ok:
			return fmt.Errorf("put %s: %w", r.Path, called.failed)
		case reply.Error != "":
			return &RemoteError{Op: r.Op, Object: r.Path, Text: reply.Error, Errno: syscall.Errno(reply.Errno)}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("agent: put %s: %w", r.Path, context.Cause(ctx))
	}
}

// PutBytes is [Client.Put] of what is in memory.
func (c *Client) PutBytes(ctx context.Context, path string, mode fs.FileMode, content []byte) error {
	return c.Put(ctx, path, mode, bytes.NewReader(content))
}

// Get copies a file of the guest.
func (c *Client) Get(ctx context.Context, path string, to io.Writer) error {
	r := Request{Op: OpGet, Path: path}
	called, err := c.begin(ctx, &r)
	if err != nil {
		return err
	}
	defer c.leave(r.ID, called)
	return c.await(ctx, r, called, path, func(reply Reply) error {
		_, err := to.Write(reply.Data)
		return err
	})
}

// GetBytes is [Client.Get] into memory.
func (c *Client) GetBytes(ctx context.Context, path string) ([]byte, error) {
	var b bytes.Buffer
	err := c.Get(ctx, path, &b)
	return b.Bytes(), err
}
