package prompt

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixos-go/pkg/testx/console"
)

func onTerminal(t *testing.T, kind string) (*Terminal, *console.Console) {
	t.Helper()
	c := console.Open(t)
	return NewTerminal(c.TTY(), c.TTY(), func(name string) string {
		if name == "TERM" {
			return kind
		}
		return ""
	}), c
}

// outcome is what a question gave.
type outcome[T any] struct {
	value T
	err   error
}

func start[T any](ask func() (T, error)) <-chan outcome[T] {
	done := make(chan outcome[T], 1)
	go func() {
		value, err := ask()
		done <- outcome[T]{value, err}
	}()
	return done
}

func TestWithoutTerminalTheFlagIsNamed(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p := NewTerminal(null, null, func(string) string { return "xterm" })
	q := Question{Text: "Which disk", Flag: "--disk NAME"}
	want := `cannot ask "Which disk": there is no terminal; use --disk NAME`
	_, confirm := p.Confirm(t.Context(), q, true)
	_, choose := p.Select(t.Context(), q, []string{"a"}, 0)
	_, input := p.Input(t.Context(), q, "")
	_, password := p.Password(t.Context(), q)
	for name, err := range map[string]error{"Confirm": confirm, "Select": choose, "Input": input, "Password": password} {
		var none *NoTerminalError
		if !errors.As(err, &none) || err.Error() != want {
			t.Errorf("%s() = %v, want %s", name, err, want)
		}
	}
}

func TestQuestionsOnATerminal(t *testing.T) {
	p, c := onTerminal(t, "xterm")
	ctx := t.Context()

	yes := start(func() (bool, error) { return p.Confirm(ctx, Question{Text: "Go on?"}, false) })
	c.Expect("Go on?")
	c.Type("y" + console.Enter)
	if got := <-yes; !got.value || got.err != nil {
		t.Errorf("Confirm() = %v, want true", got)
	}

	chosen := start(func() (int, error) {
		return p.Select(ctx, Question{Text: "Host"}, []string{"one", "two", "three"}, 0)
	})
	c.Expect("three")
	c.Type(console.Down + console.Enter)
	if got := <-chosen; got.value != 1 || got.err != nil {
		t.Errorf("Select() = %v, want 1", got)
	}

	typed := start(func() (string, error) { return p.Input(ctx, Question{Text: "Name"}, "") })
	c.Expect("Name")
	c.Type("nvme0n1" + console.Enter)
	if got := <-typed; got.value != "nvme0n1" || got.err != nil {
		t.Errorf("Input() = %v, want nvme0n1", got)
	}

	interrupted := start(func() (int, error) { return p.Select(ctx, Question{Text: "Disk"}, []string{"sda", "sdb"}, 0) })
	c.Expect("sdb")
	// Before survey takes the keys itself, Ctrl-C is a signal to the process.
	for echoes(t, c.TTY()) {
		time.Sleep(time.Millisecond)
	}
	c.Type(console.CtrlC)
	if got := <-interrupted; !errors.Is(got.err, ErrInterrupted) {
		t.Errorf("Select() after Ctrl-C = %v, want ErrInterrupted", got)
	}
}

func TestQuestionsInLines(t *testing.T) {
	p, c := onTerminal(t, "dumb")
	ctx := t.Context()

	yes := start(func() (bool, error) {
		return p.Confirm(ctx, Question{Text: "Go on?", Help: "It costs nothing."}, true)
	})
	c.Expect("It costs nothing.")
	c.Expect("Go on? [Y/n] ")
	c.Type("maybe" + console.Enter)
	c.Expect("Answer yes or no.")
	c.Type("NO" + console.Enter)
	if got := <-yes; got.value || got.err != nil {
		t.Errorf("Confirm() = %v, want false", got)
	}

	chosen := start(func() (int, error) {
		return p.Select(ctx, Question{Text: "Host"}, []string{"one", "two"}, 0)
	})
	c.Expect("2) two")
	c.Expect("Host [1] ")
	c.Type("3" + console.Enter)
	c.Expect("from 1 to 2")
	c.Type("2" + console.Enter)
	if got := <-chosen; got.value != 1 || got.err != nil {
		t.Errorf("Select() = %v, want 1", got)
	}

	typed := start(func() (string, error) { return p.Input(ctx, Question{Text: "Name"}, "sda") })
	c.Expect("Name [sda]: ")
	c.Type(console.Enter)
	if got := <-typed; got.value != "sda" || got.err != nil {
		t.Errorf("Input() = %v, want the default", got)
	}

	left := start(func() (string, error) { return p.Input(ctx, Question{Text: "Other"}, "") })
	c.Expect("Other: ")
	c.Type(console.CtrlD)
	if got := <-left; !errors.Is(got.err, ErrInterrupted) {
		t.Errorf("Input() after Ctrl-D = %v, want ErrInterrupted", got)
	}
	if raw := c.Raw(); strings.Contains(raw, "\x1b") {
		t.Errorf("a dumb terminal got escape sequences: %q", raw)
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	p, c := onTerminal(t, "xterm")
	typed := start(func() ([]byte, error) { return p.Password(t.Context(), Question{Text: "Passphrase"}) })
	c.Expect("Passphrase: ")
	c.Type("swordfisg\x7fh ü" + console.Enter)
	got := <-typed
	if string(got.value) != "swordfish ü" || got.err != nil {
		t.Errorf("Password() = %q, %v, want \"swordfish ü\"", got.value, got.err)
	}
	if screen := c.Screen(); strings.Contains(screen, "sword") {
		t.Errorf("the screen shows %q", screen)
	}
	if !echoes(t, c.TTY()) {
		t.Error("the terminal stays without echo")
	}
}

func TestPasswordEndsWithTheContext(t *testing.T) {
	p, c := onTerminal(t, "xterm")
	ctx, cancel := context.WithCancel(t.Context())
	typed := start(func() ([]byte, error) { return p.Password(ctx, Question{Text: "Passphrase"}) })
	c.Expect("Passphrase: ")
	c.Type("half")
	cancel()
	if got := <-typed; !errors.Is(got.err, ErrInterrupted) || got.value != nil {
		t.Errorf("Password() = %q, %v, want ErrInterrupted", got.value, got.err)
	}
	if !echoes(t, c.TTY()) {
		t.Error("the terminal stays without echo")
	}
}

func TestContextEndsAChoice(t *testing.T) {
	p, c := onTerminal(t, "xterm")
	ctx, cancel := context.WithCancel(t.Context())
	asked := start(func() (int, error) { return p.Select(ctx, Question{Text: "Host"}, []string{"one", "two"}, 0) })
	c.Expect("two")
	cancel()
	if got := <-asked; !errors.Is(got.err, ErrInterrupted) {
		t.Errorf("Select() = %v, want ErrInterrupted", got)
	}
	if !echoes(t, c.TTY()) {
		t.Error("the terminal stays raw")
	}
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0 && state.Lflag&unix.ICANON != 0
}

func TestNewPassword(t *testing.T) {
	short := errors.New("too short")
	check := func(secret []byte) error {
		if len(secret) < 4 {
			return short
		}
		return nil
	}
	for _, test := range []struct {
		name    string
		entries []string
		want    string
		err     error
		said    []string
	}{
		{name: "at once", entries: []string{"abcd", "abcd"}, want: "abcd"},
		{name: "mistyped", entries: []string{"abcd", "abce", "wxyz", "wxyz"}, want: "wxyz", said: []string{"the two entries differ"}},
		{name: "refused", entries: []string{"ab", "ab", "abcd", "abcd"}, want: "abcd", said: []string{"too short"}},
		{
			name: "never", entries: []string{"a", "b", "a", "a", "a", "b"}, err: ErrMismatch,
			said: []string{"the two entries differ", "too short", "the two entries differ"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var script Scripted
			for i, entry := range test.entries {
				to := "Passphrase"
				if i%2 == 1 {
					to = "(again)"
				}
				script.Answers = append(script.Answers, Answer{To: to, Say: entry})
			}
			var said []string
			got, err := NewPassword(t.Context(), &script, Question{Text: "Passphrase"}, check,
				func(text string) { said = append(said, text) })
			if string(got) != test.want || !errors.Is(err, test.err) || !slices.Equal(said, test.said) {
				t.Errorf("NewPassword() = %q, %v, said %q; want %q, %v, %q", got, err, said, test.want, test.err, test.said)
			}
			if len(script.Answers) != 0 {
				t.Errorf("%d answers were not asked for", len(script.Answers))
			}
		})
	}
	script := Scripted{Answers: []Answer{{Err: ErrInterrupted}}}
	if _, err := NewPassword(t.Context(), &script, Question{}, nil, nil); !errors.Is(err, ErrInterrupted) {
		t.Errorf("NewPassword() = %v, want ErrInterrupted at once", err)
	}
}

func TestScriptedRefusesTheUnexpected(t *testing.T) {
	s := Scripted{Answers: []Answer{{To: "disk", Say: "b"}}}
	if _, err := s.Confirm(t.Context(), Question{Text: "Reboot?"}, true); err == nil {
		t.Error("Confirm() answered a question out of order")
	}
	if got, err := s.Select(t.Context(), Question{Text: "Which disk?"}, []string{"a", "b"}, 0); got != 1 || err != nil {
		t.Errorf("Select() = %d, %v, want 1", got, err)
	}
	if _, err := s.Input(t.Context(), Question{Text: "More?"}, "x"); err == nil {
		t.Error("Input() answered without a script")
	}
}

// helped is a person who counts how often the help is shown.
type helped struct {
	Scripted

	helps []string
}

func (h *helped) Password(ctx context.Context, q Question) ([]byte, error) {
	h.helps = append(h.helps, q.Help)
	return h.Scripted.Password(ctx, q)
}

func TestNewPasswordHelpsOnce(t *testing.T) {
	person := &helped{Scripted: Scripted{Answers: []Answer{{Say: "a"}, {Say: "b"}, {Say: "c"}, {Say: "c"}}}}
	if _, err := NewPassword(t.Context(), person, Question{Text: "PIN", Help: "short"}, nil, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"short", "", "", ""}, person.helps); diff != "" {
		t.Errorf("the help of each question (-want +got):\n%s", diff)
	}
}
