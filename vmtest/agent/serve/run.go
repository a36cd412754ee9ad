package serve

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nixos-go/vmtest/agent"
)

// straggle is how long the output stays open after a program's end, for what it
// has left running in the background.
const straggle = time.Second

// stream sends what is written to it as replies.
type stream struct {
	send func([]byte)
}

func (s stream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), agent.Chunk)
		s.send(rest[:n])
		rest = rest[n:]
	}
	return len(p), nil
}

// run runs one program to its end.
func (s *Server) run(r agent.Request) {
	if len(r.Argv) == 0 || r.Argv[0] == "" {
		s.fail(r.ID, errors.New("no program to run"))
		return
	}
	c := exec.Command(r.Argv[0], r.Argv[1:]...)
	c.Dir = r.Dir
	if c.Dir == "" {
		c.Dir = "/"
	}
	c.Env = append(os.Environ(), r.Env...)
	c.Stdin = bytes.NewReader(r.Stdin)
	c.Stdout = stream{func(b []byte) { s.reply(agent.Reply{ID: r.ID, Stdout: b}) }}
	c.Stderr = stream{func(b []byte) { s.reply(agent.Reply{ID: r.ID, Stderr: b}) }}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = straggle
	start := time.Now()
	if err := c.Start(); err != nil {
		s.fail(r.ID, err)
		return
	}
	s.remember(r.ID, c.Process.Pid)
	err := c.Wait()
	s.remember(r.ID, 0)
	if c.ProcessState == nil {
		s.fail(r.ID, err)
		return
	}
	exit := &agent.Exit{Status: c.ProcessState.ExitCode(), Duration: time.Since(start)}
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = int(status.Signal())
	}
	s.reply(agent.Reply{ID: r.ID, Exit: exit, Done: true})
}

// remember notes the program of a request; pid 0 forgets it.
func (s *Server) remember(id uint64, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid == 0 {
		delete(s.pids, id)
		return
	}
	s.pids[id] = pid
}

func (s *Server) kill(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pid := s.pids[id]; pid != 0 {
		_ = unix.Kill(-pid, unix.SIGKILL) // it may just have ended
	}
}
