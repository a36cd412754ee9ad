// Package serve is the guest's side of the agent: it reads requests from a
// connection and carries them out until the connection ends.
package serve

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"nixos-go/vmtest/agent"
)

// maxLine bounds a request, in bytes; the standard input of a program is part
// of one.
const maxLine = 64 << 20

// Server carries out requests.
type Server struct {
	// Power ends the machine.
	Power func(agent.Power) error

	out  io.Writer
	send sync.Mutex // replies go out whole

	mu   sync.Mutex
	pids map[uint64]int // running programs, by request
	puts map[uint64]*os.File
}

// Serve announces the guest on conn and serves it. It returns nil where the
// connection has ended.
func (s *Server) Serve(conn io.ReadWriter) error {
	s.out, s.pids, s.puts = conn, map[uint64]int{}, map[uint64]*os.File{}
	// What came before may have been cut in the middle of a line.
	if _, err := io.WriteString(conn, "\n"); err != nil {
		return err
	}
	s.hello()
	defer s.dropPuts()
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r agent.Request
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			s.dispatch(r)
		}
	}
	return lines.Err()
}

// reply sends one line. An error means that the host is gone; reading says so.
func (s *Server) reply(r agent.Reply) {
	line, err := json.Marshal(r)
	if err != nil {
		return
	}
	s.send.Lock()
	defer s.send.Unlock()
	_, _ = s.out.Write(append(line, '\n'))
}

func (s *Server) fail(id uint64, err error) {
	r := agent.Reply{ID: id, Error: err.Error(), Done: true}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		r.Errno = int(errno)
	} else if errors.Is(err, fs.ErrNotExist) {
		r.Errno = int(unix.ENOENT) // a program that PATH does not have
	}
	s.reply(r)
}

func (s *Server) dispatch(r agent.Request) {
	switch r.Op {
	case agent.OpHello:
		s.hello()
	case agent.OpRun:
		go s.run(r)
	case agent.OpKill:
		s.kill(r.Target)
	case agent.OpPut:
		s.put(r)
	case agent.OpGet:
		go s.get(r)
	case agent.OpPower:
		s.reply(agent.Reply{ID: r.ID, Done: true})
		if err := s.Power(r.How); err != nil {
			s.fail(r.ID, err)
		}
	default:
		s.fail(r.ID, fmt.Errorf("unknown request %q", r.Op))
	}
}

func (s *Server) hello() { s.reply(agent.Reply{Hello: describe()}) }

// describe says what there is to say; what cannot be read stays empty.
func describe() *agent.Hello {
	var h agent.Hello
	h.Boot = line("/proc/sys/kernel/random/boot_id")
	h.Cmdline = line("/proc/cmdline")
	uptime, _, _ := strings.Cut(line("/proc/uptime"), " ")
	h.UptimeSeconds, _ = strconv.ParseFloat(uptime, 64)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
		h.Machine = unix.ByteSliceToString(u.Machine[:])
	}
	return &h
}

func line(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

// dropPuts takes away the files that were never completed.
func (s *Server) dropPuts() {
	for id, f := range s.puts {
		delete(s.puts, id)
		_ = f.Close() // it goes
		_ = os.Remove(f.Name())
	}
}

// put takes one piece of a file. The pieces of one file come in order.
func (s *Server) put(r agent.Request) {
	f := s.puts[r.ID]
	err := func() (err error) {
		if f == nil {
			dir := filepath.Dir(r.Path)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if f, err = os.CreateTemp(dir, ".vm-agent-*"); err != nil {
				return err
			}
			s.puts[r.ID] = f
		}
		if _, err := f.Write(r.Data); err != nil || r.More {
			return err
		}
		return errors.Join(f.Chmod(fs.FileMode(r.Mode).Perm()), f.Close(), os.Rename(f.Name(), r.Path))
	}()
	if err == nil && r.More {
		s.reply(agent.Reply{ID: r.ID})
		return
	}
	delete(s.puts, r.ID)
	if err == nil {
		s.reply(agent.Reply{ID: r.ID, Done: true})
		return
	}
	if f != nil {
		_ = f.Close() // it goes
		_ = os.Remove(f.Name())
	}
	s.fail(r.ID, err)
}

func (s *Server) get(r agent.Request) {
	f, err := os.Open(r.Path)
	if err != nil {
		s.fail(r.ID, err)
		return
	}
	defer f.Close()
	buf := make([]byte, agent.Chunk)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			s.reply(agent.Reply{ID: r.ID, Data: buf[:n]})
		}
		switch {
		case errors.Is(err, io.EOF):
			s.reply(agent.Reply{ID: r.ID, Done: true})
			return
		case err != nil:
			s.fail(r.ID, err)
			return
		}
	}
}
