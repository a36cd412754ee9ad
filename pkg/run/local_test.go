package run

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sh(script string) Command { return New("sh", "-c", script) }

func TestLocalKeepsBothStreams(t *testing.T) {
	var local Local
	result, err := local.Run(t.Context(), sh("echo out; echo err >&2"))
	if err != nil {
		t.Fatalf("Run() = %v", err)
	}
	if string(result.Stdout) != "out\n" || result.Tail != "err\n" || result.Status != 0 {
		t.Errorf("Run() = %q, %q, %d, want \"out\\n\", \"err\\n\", 0", result.Stdout, result.Tail, result.Status)
	}
}

// TestFailureIsNoExitCoder: urfave/cli ends the process on any error in the
// chain that has a method ExitCode.
func TestFailureIsNoExitCoder(t *testing.T) {
	var local Local
	_, err := local.Run(t.Context(), sh("echo first; echo broken >&2; exit 7"))
	var failure *Error
	if !errors.As(err, &failure) {
		t.Fatalf("Run() = %v, want an *Error", err)
	}
	if failure.Status != 7 || failure.Cause != nil {
		t.Errorf("Run() = status %d, cause %v, want 7, nil", failure.Status, failure.Cause)
	}
	var coder interface{ ExitCode() int }
	if errors.As(err, &coder) {
		t.Errorf("Run() = %T, which is an ExitCoder", coder)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Error("Run() lets an *exec.ExitError escape")
	}
	if status, ok := StatusOf(err); status != 7 || !ok {
		t.Errorf("StatusOf() = %d, %v, want 7, true", status, ok)
	}
	want := "sh -c 'echo first; echo broken >&2; exit 7': exit status 7\n  broken"
	if err.Error() != want {
		t.Errorf("Error() = %q, want %q", err, want)
	}
}

func TestFailures(t *testing.T) {
	var local Local
	_, err := local.Run(t.Context(), New("no-such-program-here"))
	if !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("Run(missing) = %v, want exec.ErrNotFound", err)
	}
	if _, ok := StatusOf(err); ok {
		t.Error("StatusOf(missing program) is ok")
	}
	if want := "no-such-program-here: program not found"; err.Error() != want {
		t.Errorf("Error() = %q, want %q", err, want)
	}
	_, err = local.Run(t.Context(), sh("kill -TERM $$"))
	var failure *Error
	if !errors.As(err, &failure) || failure.Signal != syscall.SIGTERM {
		t.Errorf("Run(killed) = %v, want the signal", err)
	}
	command := sh("pwd")
	command.Dir = "/no/such/folder"
	if _, err = local.Run(t.Context(), command); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Run(missing folder) = %v, want fs.ErrNotExist", err)
	}
}

func TestStdinEnvAndExtraFiles(t *testing.T) {
	var local Local
	secret, err := SecretFile([]byte("by descriptor"))
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	command := sh(`cat; echo "$COLOR"; cat /proc/self/fd/3; pwd`)
	command.Stdin = []byte("by stdin\n")
	command.Env = []string{"COLOR=green"}
	command.ExtraFiles = []*os.File{secret}
	command.Dir = t.TempDir()
	result, err := local.Run(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	want := "by stdin\ngreen\nby descriptor" + command.Dir + "\n"
	if string(result.Stdout) != want {
		t.Errorf("Run() = %q, want %q", result.Stdout, want)
	}
}

func TestStreamShowsRedactedLines(t *testing.T) {
	var live bytes.Buffer
	local := Local{Live: &live, Redact: &Redactor{}}
	local.Redact.Add([]byte("hunter2hunter2"))
	command := sh(`printf 'pass hunter2'; printf 'hunter2\n'; printf '10%%\r20%%\r\nend' >&2; exit 3`)
	command.Stream = true
	_, err := local.Run(t.Context(), command)
	for _, line := range []string{"pass [redacted]\n", "10%\n", "20%\n", "end\n"} {
		if !strings.Contains(live.String(), line) {
			t.Errorf("live output %q lacks %q", live.String(), line)
		}
	}
	if err == nil || strings.Contains(err.Error(), "hunter2hunter2") {
		t.Errorf("Run() = %v, want an error without the secret", err)
	}
	if !strings.Contains(err.Error(), "pass [redacted]") {
		t.Errorf("Run() = %v, want the tail of a streamed standard output", err)
	}
}

// Two streams at once: a secret that one of them writes in two pieces is found in the
// tail whatever the other one writes in between.
func TestTailOfTwoStreams(t *testing.T) {
	local := Local{Redact: &Redactor{}}
	local.Redact.Add([]byte("hunter2hunter2"))
	command := sh(`for i in 1 2 3 4 5 6 7 8; do printf 'pass hunter2'; printf 'between ' >&2; printf 'hunter2\n'; done; exit 3`)
	command.Stream = true
	result, err := local.Run(t.Context(), command)
	if err == nil || strings.Contains(result.Tail, "hunter2") || !strings.Contains(result.Tail, "between between") {
		t.Errorf("Run() = %v with the tail %q, want both streams and no piece of the secret", err, result.Tail)
	}
}

func TestTailIsTheEnd(t *testing.T) {
	var local Local
	result, err := local.Run(t.Context(), sh("seq 100000 >&2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Tail) > tailSize+8 || !strings.HasSuffix(result.Tail, "\n99999\n100000\n") || !strings.HasPrefix(result.Tail, "…\n") {
		t.Errorf("Tail has %d bytes, begins %.20q, ends %q", len(result.Tail), result.Tail, result.Tail[len(result.Tail)-20:])
	}
}

// TestCancelEndsTheGroup: the program and its children get SIGINT; those that
// ignore it are killed.
func TestCancelEndsTheGroup(t *testing.T) {
	for _, test := range []struct {
		name, script string
	}{
		{"obeys", `sleep 1000 & echo $! >"$PIDS"; wait`},
		{"ignores", `trap '' INT; sleep 1000 & echo $! >"$PIDS"; wait; wait`},
	} {
		t.Run(test.name, func(t *testing.T) {
			pids := filepath.Join(t.TempDir(), "pids")
			local := Local{Grace: 200 * time.Millisecond}
			ctx, cancel := context.WithCancelCause(t.Context())
			command := sh(test.script)
			command.Env = []string{"PIDS=" + pids}
			go func() {
				awaitFile(pids)
				cancel(&InterruptedError{Signal: os.Interrupt})
			}()
			_, err := local.Run(ctx, command)
			if _, ok := errors.AsType[*InterruptedError](err); !ok {
				t.Fatalf("Run() = %v, want an InterruptedError", err)
			}
			text, err := os.ReadFile(pids)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			awaitDeath(t, pid)
		})
	}
}

func awaitFile(path string) {
	for {
		if b, err := os.ReadFile(path); err == nil && bytes.HasSuffix(b, []byte("\n")) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// awaitDeath waits until a process is gone or a zombie that nobody reaps (its
// parent is dead, and a container's init may not reap).
func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if errors.Is(err, fs.ErrNotExist) || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
	}
	t.Errorf("process %d outlives the cancelled command", pid)
}

func TestEndedContextStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	marker := filepath.Join(t.TempDir(), "ran")
	var local Local
	_, err := local.Run(ctx, New("touch", marker))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run() = %v, want context.Canceled", err)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("the program ran")
	}
}

func TestInteractiveGetsTheFiles(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte("typed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdin, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	local := Local{Stdin: stdin, Stdout: stdout, Stderr: stdout}
	command := sh("read line; echo got $line")
	command.Interactive = true
	if _, err := local.Run(t.Context(), command); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(out); err != nil || string(b) != "got typed\n" {
		t.Errorf("the terminal shows %q, %v, want \"got typed\\n\"", b, err)
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"plain":        "plain",
		"":             "''",
		"two words":    "'two words'",
		"it's":         `'it'\''s'`,
		"$HOME":        "'$HOME'",
		"git+file:///": "git+file:///",
		"a#b":          "'a#b'",
		"~":            "'~'",
	} {
		if got := Quote(word); got != want {
			t.Errorf("Quote(%q) = %s, want %s", word, got, want)
		}
	}
}

func TestQuoteIsReadBackByAShell(t *testing.T) {
	words := []string{"a", "", "b c", "d'e", `f"g`, "$(h)", "`i`", "j\nk", "*", "~", "é", "!x", "-n", "\\"}
	command := New("printf", append([]string{`%s\0`}, words...)...)
	result, err := (&Local{}).Run(t.Context(), sh(command.String()))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(words, "\x00") + "\x00"; string(result.Stdout) != want {
		t.Errorf("the shell read %q, want %q", result.Stdout, want)
	}
}

// TestKilledParentLeavesNothingBehind kills a process that runs a command.
func TestKilledParentLeavesNothingBehind(t *testing.T) {
	if pids := os.Getenv("RUN_TEST_CHILD"); pids != "" {
		command := sh(`echo $$ >"$RUN_TEST_CHILD"; exec sleep 1000`)
		_, _ = (&Local{}).Run(context.Background(), command)
		return
	}
	pids := filepath.Join(t.TempDir(), "pids")
	parent := exec.Command(os.Args[0], "-test.run=^TestKilledParentLeavesNothingBehind$")
	parent.Env = append(os.Environ(), "RUN_TEST_CHILD="+pids)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	awaitFile(pids)
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	awaitDeath(t, pid)
}
