package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 18, "minor": 2, "major": 7}, "package": "Debian 7.2"}, "capabilities": ["oob"]}}`

// fake is QEMU's side: it answers as told, one line for each command.
type fake struct {
	t       *testing.T
	conn    net.Conn
	answers map[string][]string // by command; ID stands for the id
	seen    chan map[string]any
}

func start(t *testing.T, answers map[string][]string) (*Client, *fake) {
	t.Helper()
	host, guest := net.Pipe()
	f := &fake{t: t, conn: guest, answers: answers, seen: make(chan map[string]any, 16)}
	t.Cleanup(func() { _ = guest.Close() })
	go f.serve()
	c, err := New(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, f
}

func (f *fake) serve() {
	_, _ = f.conn.Write([]byte(greeting + "\r\n"))
	lines := bufio.NewScanner(f.conn)
	for lines.Scan() {
		var request map[string]any
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			f.t.Errorf("the client sends %q: %v", lines.Text(), err)
			return
		}
		command, _ := request["execute"].(string)
		if command != "qmp_capabilities" {
			f.seen <- request
		}
		id, _ := json.Marshal(request["id"])
		answers := f.answers[command]
		if command == "qmp_capabilities" {
			answers = []string{`{"return": {}, "id": ID}`}
		}
		for _, answer := range answers {
			for i := range len(answer) - 1 {
				if answer[i:i+2] == "ID" {
					answer = answer[:i] + string(id) + answer[i+2:]
					break
				}
			}
			if _, err := f.conn.Write([]byte(answer + "\r\n")); err != nil {
				return
			}
		}
		if command == "die" {
			_ = f.conn.Close()
			return
		}
	}
}

func TestDo(t *testing.T) {
	c, f := start(t, map[string][]string{
		"query-status": {
			`{"event": "STOP", "data": {}, "timestamp": {"seconds": 5, "microseconds": 7}}`,
			`{"return": {"status": "paused"}, "id": "another's"}`,
			`{"return": {"status": "running"}, "id": ID}`,
		},
		"savevm": {`{"error": {"class": "GenericError", "desc": "no room"}, "id": ID}`},
	})
	if got := c.Version.String(); got != "7.2.18 (Debian 7.2)" {
		t.Errorf("Version = %q", got)
	}
	var status struct{ Status string }
	if err := c.Do(t.Context(), "query-status", nil, &status); err != nil || status.Status != "running" {
		t.Errorf("Do(query-status) = %+v, %v", status, err)
	}
	if request := <-f.seen; len(request) != 2 {
		t.Errorf("request = %v: QEMU refuses arguments that are null", request)
	}
	events := c.Events()
	if len(events) != 1 || events[0].Name != "STOP" || !events[0].Time().Equal(time.Unix(5, 7000)) {
		t.Errorf("Events = %+v", events)
	}
	err := c.Do(t.Context(), "savevm", map[string]any{"name": "x"}, nil)
	var failed *Error
	if !errors.As(err, &failed) || failed.Command != "savevm" || failed.Description != "no room" {
		t.Errorf("Do(savevm) = %v, want QEMU's error", err)
	}
	if request := <-f.seen; request["arguments"].(map[string]any)["name"] != "x" {
		t.Errorf("request = %v", request)
	}
}

func TestWait(t *testing.T) {
	c, _ := start(t, map[string][]string{"go": {
		`{"event": "RESET", "timestamp": {"seconds": 1, "microseconds": 0}}`,
		`{"event": "SHUTDOWN", "timestamp": {"seconds": 2, "microseconds": 0}}`,
		`{"return": {}, "id": ID}`,
	}})
	found := make(chan Event, 1)
	go func() {
		e, err := c.Wait(t.Context(), 0, "SHUTDOWN", "POWERDOWN")
		if err != nil {
			t.Error(err)
		}
		found <- e
	}()
	if err := c.Do(t.Context(), "go", nil, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-found; e.Name != "SHUTDOWN" {
		t.Errorf("Wait = %v", e)
	}
	// What has come before the mark does not count.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx, len(c.Events()), "SHUTDOWN"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait for a second one = %v, want the end of the context", err)
	}
}

// The end of QEMU ends every wait.
func TestClosed(t *testing.T) {
	c, _ := start(t, nil)
	ended := make(chan error, 2)
	go func() {
		_, err := c.Wait(t.Context(), 0, "SHUTDOWN")
		ended <- err
	}()
	go func() { ended <- c.Do(t.Context(), "die", nil, nil) }()
	for range 2 {
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("a wait at the end = %v, want ErrClosed", err)
		}
	}
	<-c.Done()
	if err := c.Do(t.Context(), "query-status", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after the end = %v, want ErrClosed", err)
	}
}

func TestNoGreeting(t *testing.T) {
	for _, text := range []string{"", "{}\n", "SSH-2.0\n"} {
		host, guest := net.Pipe()
		go func() {
			_, _ = guest.Write([]byte(text))
			_ = guest.Close()
		}()
		if _, err := New(t.Context(), host); err == nil {
			t.Errorf("New over a connection that begins %q succeeds", text)
		}
	}
	host, _ := net.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, host); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("New over a silent connection = %v, want the end of the context", err)
	}
}
