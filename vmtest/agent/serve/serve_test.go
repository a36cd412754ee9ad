package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nixos-go/vmtest/agent"
)

// dial gives a client whose guest is this machine, without a VM between them.
func dial(t *testing.T, power func(agent.Power) error) *agent.Client {
	t.Helper()
	host, guest := net.Pipe()
	go func() { _ = (&Server{Power: power}).Serve(guest) }()
	// The end of an old line comes before anything else.
	c := agent.NewClient(host)
	t.Cleanup(func() {
		_ = c.Close()
		_ = guest.Close()
	})
	return c
}

func TestHello(t *testing.T) {
	c := dial(t, nil)
	hello, err := c.Hello(t.Context())
	if err != nil || hello.Boot == "" || hello.Kernel == "" || hello.Machine == "" || hello.UptimeSeconds <= 0 {
		t.Errorf("Hello = %+v, %v", hello, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.WaitBoot(ctx, hello.Boot); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitBoot without a reboot = %v, want the end of the context", err)
	}
}

func TestRun(t *testing.T) {
	c := dial(t, nil)
	var live bytes.Buffer
	result, err := c.Run(t.Context(), agent.Command{
		Argv: []string{"sh", "-c", `cat; echo "$WORD" in "$PWD" >&2; exit 3`}, Env: []string{"WORD=word"}, Dir: "/usr",
		Stdin: []byte("in\x00put"), Stdout: &live,
	})
	var exit *agent.ExitError
	if !errors.As(err, &exit) || exit.Result.Status != 3 || result.Status != 3 {
		t.Errorf("Run = %+v, %v, want exit status 3", result, err)
	}
	if string(result.Stdout) != "in\x00put" || live.String() != "in\x00put" || string(result.Stderr) != "word in /usr\n" {
		t.Errorf("output = %q (live %q), %q", result.Stdout, live.String(), result.Stderr)
	}
	if result.Duration <= 0 {
		t.Errorf("duration = %v", result.Duration)
	}
	_, err = c.Run(t.Context(), agent.Command{Argv: []string{"sh", "-c", "kill -9 $$"}})
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL || exit.Result.Status != -1 {
		t.Errorf("Run of what is killed = %v", err)
	}
	_, err = c.Output(t.Context(), "/no/such/program")
	var remote *agent.RemoteError
	if !errors.As(err, &remote) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Run of nothing = %v, want a RemoteError and ErrNotExist", err)
	}
	if _, err := c.Output(t.Context(), "no-such-program"); !errors.As(err, &remote) {
		t.Errorf("Run of what PATH has not = %v, want a RemoteError", err)
	}
	out, err := c.Shell(t.Context(), `printf '%s|' "$@"`, "a b", "'$x")
	if err != nil || out != "a b|'$x|" {
		t.Errorf("Shell = %q, %v", out, err)
	}
	if _, err := c.Shell(t.Context(), "false; echo on"); err == nil {
		t.Error("Shell goes on after an error")
	}
}

// Large outputs of many programs at a time get where they belong.
func TestConcurrent(t *testing.T) {
	c := dial(t, nil)
	const programs, size = 8, 1 << 20
	errs := make(chan error, programs)
	for i := range programs {
		go func() {
			letter := string(rune('a' + i))
			result, err := c.Run(t.Context(), agent.Command{Argv: []string{"sh", "-c", "head -c 1048576 /dev/zero | tr '\\0' " + letter}})
			if err == nil && string(result.Stdout) != strings.Repeat(letter, size) {
				err = errors.New("output of " + letter + " is another's, or not whole")
			}
			errs <- err
		}()
	}
	for range programs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// The end of the context ends the program and its children.
func TestCancel(t *testing.T) {
	c := dial(t, nil)
	mark := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			if b, err := os.ReadFile(mark); err == nil && len(b) > 0 {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, err := c.Run(ctx, agent.Command{Argv: []string{"sh", "-c", `sleep 1000 & echo $! > "$1"; wait`, "sh", mark}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Run = %v, want Canceled", err)
	}
	b, err := os.ReadFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	stat := "/proc/" + strings.TrimSpace(string(b)) + "/stat"
	deadline := time.Now().Add(10 * time.Second)
	for {
		b, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(b), ") Z ") { // gone, or dead and not waited for
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a child of the program still runs: %s", b)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A program that leaves one in the background does not hold up the reply.
func TestBackground(t *testing.T) {
	c := dial(t, nil)
	out, err := c.Shell(t.Context(), "sleep 1000 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Shell(t.Context(), `kill "$1"`, strings.TrimSpace(out)); err != nil {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	c := dial(t, nil)
	dir := t.TempDir()
	for name, size := range map[string]int{"empty": 0, "small": 10, "chunk": agent.Chunk, "large": 3*agent.Chunk + 1} {
		path := filepath.Join(dir, "new", name)
		content := bytes.Repeat([]byte("x\x00\n\xff"), size/4+1)[:size]
		if err := c.PutBytes(t.Context(), path, 0o751, content); err != nil {
			t.Fatalf("Put %s = %v", name, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o751 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		got, err := c.GetBytes(t.Context(), path)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("Get %s = %d bytes, %v, want the %d that were put", name, len(got), err, size)
		}
	}
	if _, err := c.GetBytes(t.Context(), filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of nothing = %v, want ErrNotExist", err)
	}
	if err := c.PutBytes(t.Context(), filepath.Join(dir, "new", "small", "below"), 0o600, nil); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Put below a file = %v, want ENOTDIR", err)
	}
	// One that breaks off leaves nothing under the name.
	broken := errors.New("broken")
	err := c.Put(t.Context(), filepath.Join(dir, "half"), 0o600, io.MultiReader(bytes.NewReader(make([]byte, 2*agent.Chunk)), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("Put of what cannot be read = %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "half")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after it broke off: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPower(t *testing.T) {
	got := make(chan agent.Power, 1)
	c := dial(t, func(how agent.Power) error {
		got <- how
		return nil
	})
	if err := c.Power(t.Context(), agent.Reboot); err != nil {
		t.Fatal(err)
	}
	if how := <-got; how != agent.Reboot {
		t.Errorf("Power = %s", how)
	}
}

// FuzzServe sends anything: the agent neither ends nor hangs.
func FuzzServe(f *testing.F) {
	for _, line := range []string{`{"id":1,"op":"hello"}`, `{"op":"put","path":""}`, `{"op":"run"}`, `{"op":"kill","target":9}`, "\x00", `{"op":`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// Nothing that does something to this machine.
		if strings.Contains(strings.ToLower(text), "argv") || strings.Contains(strings.ToLower(text), "path") || strings.Contains(text, `\u`) {
			return
		}
		var replies bytes.Buffer
		conn := struct {
			io.Reader
			io.Writer
		}{strings.NewReader(text + "\n" + `{"id":7,"op":"unknown"}` + "\n"), &replies}
		s := &Server{Power: func(agent.Power) error { return nil }}
		if err := s.Serve(conn); err != nil {
			t.Fatal(err)
		}
		s.send.Lock()
		defer s.send.Unlock()
		if !strings.Contains(replies.String(), `unknown request \"unknown\"`) {
			t.Errorf("after %q the agent does not answer any more: %s", text, replies.String())
		}
	})
}
