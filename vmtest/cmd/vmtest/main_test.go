package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"

	"nixos-go/pkg/testx/tooltest"
	"nixos-go/vmtest"
)

func TestMain(m *testing.M) { tooltest.Main(m, tooltest.Tools{name: app}) }

// project is the environment in which the command finds its project from
// anywhere, and keeps its machines in a folder of the test.
func project(t *testing.T, p *testscript.Params) {
	t.Helper()
	root, err := vmtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := vmtest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	before := p.Setup
	p.Setup = func(env *testscript.Env) error {
		if before != nil {
			if err := before(env); err != nil {
				return err
			}
		}
		state := vmtest.Dir(t)
		variables := []string{vmtest.StateVariable + "=" + state, "NIXOS_GO_VM_CACHE=" + cache, "PROJECT=" + root}
		// Go's own caches, for the agent is built.
		for _, variable := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS", "GOPATH"} {
			out, err := exec.Command("go", "env", variable).Output()
			if err != nil {
				return err
			}
			variables = append(variables, variable+"="+strings.TrimSpace(string(out)))
		}
		env.Vars = append(env.Vars, variables...)
		env.Vars = append(env.Vars, "PATH="+os.Getenv("PATH"))
		env.Defer(func() { // whatever the script has come to
			clean := exec.Command(name, "clean")
			clean.Dir, clean.Env = root, append(os.Environ(), variables...)
			if out, err := clean.CombinedOutput(); err != nil {
				t.Errorf("vmtest clean: %v\n%s", err, out)
			}
		})
		return nil
	}
}

// TestVM_Command is the life of a machine by the command.
func TestVM_Command(t *testing.T) {
	vmtest.Need(t, "qemu-system-x86_64", "qemu-img")
	vmtest.Cache(t)
	tooltest.Scripts(t, "testdata", func(p *testscript.Params) { project(t, p) })
}

// TestTalk joins a terminal and a console, until the key to leave.
func TestTalk(t *testing.T) {
	keyboard, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer terminal.Close()
	answers, fromGuest := io.Pipe()
	var typed bytes.Buffer
	guest := struct {
		io.Reader
		io.Writer
	}{answers, io.MultiWriter(&typed, fromGuest)} // it echoes
	var screen bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := keyboard.WriteString("ls\n\x1d\n"); err != nil {
		t.Fatal(err)
	}
	if err := talk(ctx, guest, terminal, &screen); err != nil {
		t.Fatalf("talk = %v", err)
	}
	if got := typed.String(); got != "ls\n" {
		t.Errorf("the guest has read %q, want what was typed before the key to leave", got)
	}
	_ = fromGuest.Close()
}
