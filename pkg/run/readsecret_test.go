package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nixos-go/pkg/run"
)

func TestReadSecret(t *testing.T) {
	name := filepath.Join(t.TempDir(), "secret")
	long := strings.Repeat("x", 4096)
	for text, want := range map[string]string{
		"secret": "secret", "secret\n": "secret", "secret\n\n": "secret\n", "a b\t": "a b\t", "": "", "\n": "",
		long: long, long + "\n": long,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := run.ReadSecret(name)
		if string(got) != want || err != nil {
			t.Errorf("ReadSecret of %q = %q, %v, want %q", text, got, err, want)
		}
	}
	if err := os.WriteFile(name, []byte(long+"xx"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := run.ReadSecret(name); !errors.Is(err, run.ErrLongSecret) {
		t.Errorf("ReadSecret of %d bytes = %d bytes, %v, want ErrLongSecret", len(long)+2, len(got), err)
	}
	if _, err := run.ReadSecret(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadSecret of a missing file = %v, want ErrNotExist", err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := writer.WriteString("from a pipe\n"); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := run.ReadSecret("/proc/self/fd/" + strconv.Itoa(int(reader.Fd())))
	if string(got) != "from a pipe" || err != nil {
		t.Errorf("ReadSecret of a pipe = %q, %v, want %q", got, err, "from a pipe")
	}
}
