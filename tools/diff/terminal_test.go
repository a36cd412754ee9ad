package diff

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/reset"
	"nixos-go/pkg/run"
	"nixos-go/pkg/testx"
	"nixos-go/pkg/testx/tooltest"
	"nixos-go/pkg/ui"
)

// smallMachine has one file changed and one directory added.
func smallMachine(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, testx.NewFilesystem(t, 256<<20, testx.WithMountOptions("noatime")), "@root")
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(m.live(), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/hosts", "one\n")
	m.takeClean()
	m.rules([]string{"/etc/ssh"}, nil)
	write("etc/hosts", "two\n")
	write("var/\x1b[2Jevil", "x")
	return m
}

// TestColours: on a terminal the table's head and the lines of a text diff have colours,
// elsewhere and under NO_COLOR nothing has; a name from the disk sends nothing to it.
func TestColours(t *testing.T) {
	m := smallMachine(t)
	work := tooltest.Unpack(t, map[string]string{"standin/x": ""})
	plan, err := os.ReadFile(filepath.Join(m.root, "etc/immutability/plan.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "plan.json"), plan, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		env   []string
		head  string
		added string
	}{
		{nil, "\x1b[1mKIND", "\x1b[32m+two\x1b[0m"},
		{[]string{"NO_COLOR=1"}, "KIND", "+two\r\n"},
		{[]string{"TERM=dumb"}, "KIND", "+two\r\n"},
	} {
		c := tooltest.Terminal(t, work, test.env, "nixos-diff", "--plan", "plan.json", "--pattern", "*evil", "--pattern", "hosts")
		c.Expect(`"/var/\x1b[2Jevil"`)
		if status := c.Wait(); status != 0 {
			t.Errorf("%q: status %d", test.env, status)
		}
		if !strings.Contains(c.Raw(), test.head) || strings.Contains(c.Raw(), "\x1b[2J") || test.env != nil && strings.Contains(c.Raw(), "\x1b[") {
			t.Errorf("%q: the terminal got %q", test.env, c.Raw())
		}
		c = tooltest.Terminal(t, work, test.env, "nixos-diff", "--plan", "plan.json", "--content", "/etc/hosts")
		c.Expect("+two\n")
		c.Wait()
		if !strings.Contains(c.Raw(), test.added) {
			t.Errorf("%q: the terminal got %q, want %q in it", test.env, c.Raw(), test.added)
		}
	}
}

// TestInterrupted: Ctrl-C ends a comparison, and the walk through directories.
func TestInterrupted(t *testing.T) {
	m := smallMachine(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&run.InterruptedError{Signal: syscall.SIGINT})
	var out, messages bytes.Buffer
	env := clikit.System()
	env.UI = ui.New(&out, &messages, ui.Options{})
	env.Host.Files = run.Below(m.root)
	env.UID = 0
	if status := clikit.Run(ctx, newApp(env), nil, env.UI); status != clikit.StatusFailed || out.Len() > 0 {
		t.Errorf("interrupted: status %d, output %q", status, out.String())
	}
	if !strings.Contains(messages.String(), "interrupt") {
		t.Errorf("interrupted: messages %q", messages.String())
	}

	top := m.top()
	defer top.Close()
	volumes, err := reset.Preview(top, &m.plan, reset.PreviewOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tgt := &target{plan: &m.plan, volumes: volumes}
	defer func() {
		for _, v := range volumes {
			v.Close()
		}
	}()
	if v, err := (tool{env}).look(ctx, request{}, tgt, &filter{}); !errors.Is(err, context.Canceled) && !errors.As(err, new(*run.InterruptedError)) {
		t.Errorf("look() = %v, %v, want an interruption", v, err)
	}
}
