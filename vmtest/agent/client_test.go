package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"testing"
)

// guest is a guest by hand.
type guest struct {
	t        *testing.T
	conn     net.Conn
	requests chan Request
}

func dial(t *testing.T) (*Client, *guest) {
	t.Helper()
	host, conn := net.Pipe()
	g := &guest{t: t, conn: conn, requests: make(chan Request, 64)}
	go func() {
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			var r Request
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				t.Errorf("the client sends %q: %v", lines.Text(), err)
			}
			g.requests <- r
		}
	}()
	c := NewClient(host)
	t.Cleanup(func() {
		_ = c.Close()
		_ = conn.Close()
	})
	return c, g
}

func (g *guest) says(text string) {
	if _, err := io.WriteString(g.conn, text); err != nil {
		g.t.Error(err)
	}
}

func (g *guest) replies(r Reply) {
	b, err := json.Marshal(r)
	if err != nil {
		g.t.Error(err)
	}
	g.says(string(b) + "\n")
}

// What is left of another connection is skipped.
func TestLeftovers(t *testing.T) {
	c, g := dial(t)
	go func() {
		<-g.requests
		g.says(`xit":{"status":0},"done":true}` + "\n")
		g.replies(Reply{ID: 77, Done: true})
		g.replies(Reply{Hello: &Hello{Boot: "one"}})
	}()
	if hello, err := c.Hello(t.Context()); err != nil || hello.Boot != "one" {
		t.Errorf("Hello = %+v, %v", hello, err)
	}
}

// A guest that boots again ends what waits for the boot before.
func TestRebooted(t *testing.T) {
	c, g := dial(t)
	go func() {
		<-g.requests
		g.replies(Reply{Hello: &Hello{Boot: "one"}})
		r := <-g.requests
		for r.Op == OpHello {
			r = <-g.requests
		}
		g.replies(Reply{ID: r.ID, Stdout: []byte("some")})
		g.replies(Reply{Hello: &Hello{Boot: "two"}})
	}()
	if _, err := c.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	result, err := c.Run(t.Context(), Command{Argv: []string{"sleep", "1000"}})
	if !errors.Is(err, ErrRebooted) || string(result.Stdout) != "some" {
		t.Errorf("Run = %+v, %v, want what came until the reboot, and ErrRebooted", result, err)
	}
	hello, err := c.WaitBoot(t.Context(), "one")
	if err != nil || hello.Boot != "two" {
		t.Errorf("WaitBoot = %+v, %v", hello, err)
	}
}

// The end of the connection ends every wait.
func TestClosed(t *testing.T) {
	c, g := dial(t)
	ended := make(chan error, 2)
	go func() {
		_, err := c.Hello(t.Context())
		ended <- err
	}()
	go func() {
		_, err := c.Output(t.Context(), "sleep", "1000")
		ended <- err
	}()
	seen := map[Op]bool{}
	for len(seen) < 2 {
		seen[(<-g.requests).Op] = true
	}
	_ = g.conn.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a wait at the end = %v, want ErrClosed", err)
		}
	}
	if _, err := c.Output(t.Context(), "true"); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after the end = %v, want ErrClosed", err)
	}
}

// A guest that has stopped reading holds nobody up, and what was cut off in the
// middle does not spoil what comes after it.
func TestTorn(t *testing.T) {
	host, conn := net.Pipe()
	c := NewClient(host)
	t.Cleanup(func() {
		_ = c.Close()
		_ = conn.Close()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		buf := make([]byte, 10)
		_, _ = io.ReadFull(conn, buf) // the beginning of a line, and no more
		cancel()
	}()
	if _, err := c.Output(ctx, "true"); !errors.Is(err, context.Canceled) {
		t.Errorf("Run in a guest that does not read = %v, want Canceled", err)
	}
	go func() { _ = c.write(t.Context(), Request{ID: 5, Op: OpGet}) }()
	lines := bufio.NewScanner(conn)
	var r Request
	for lines.Scan() {
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			break
		}
	}
	if r.ID != 5 || r.Op != OpGet {
		t.Errorf("the request after it = %+v, want one that can be read", r)
	}
}
