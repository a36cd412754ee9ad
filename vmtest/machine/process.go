package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a program that was started and is waited for.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string        // the file with its output
	ended chan struct{} // closed when it has ended
	err   error         // how; to be read after that
}

// startProcess starts a program in a folder with its output in a file there.
// One that is not detached ends with us.
func startProcess(argv []string, dir, logName string, detached bool) (*process, error) {
	path := dir + "/" + logName
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{name: argv[0], log: path, ended: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if detached {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	} else {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// run starts the program and waits for its end, all on one thread: the signal at
// the parent's death comes at the death of the thread that forked.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

// failure says how the program has ended, nil for a clean end. Its chain has
// no *exec.ExitError, which a command line library takes for an order to exit.
func (p *process) failure() error {
	if p.err == nil {
		return nil
	}
	out, err := os.ReadFile(p.log)
	if err != nil {
		return errors.Join(p.err, err)
	}
	text := strings.TrimSpace(string(out))
	return fmt.Errorf("%s has ended: %v\n  %s", p.name, p.err, //nolint:errorlint // see above
		strings.ReplaceAll(text[max(0, len(text)-4096):], "\n", "\n  "))
}

// stop waits for the program's end for a while, and then kills its group.
func (p *process) stop(patience time.Duration) {
	select {
	case <-p.ended:
		return
	case <-time.After(patience):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended meanwhile
	<-p.ended
}
