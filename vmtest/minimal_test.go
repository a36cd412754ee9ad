package vmtest

import (
	"strings"
	"testing"

	"nixos-go/vmtest/guest/minimal"
)

func TestVM_Minimal(t *testing.T) {
	m := Start(t, Minimal(t, minimal.Options{}).Spec("minimal"))
	out, err := m.Shell(Context(t), `uname -m; cat /proc/1/comm; echo "$1"`, "an 'argument'")
	if err != nil {
		t.Fatal(err)
	}
	if want := "x86_64\ninit\nan 'argument'\n"; out != want {
		t.Errorf("Shell = %q, want %q", out, want)
	}
	if err := m.PowerOff(Context(t)); err != nil {
		t.Errorf("PowerOff = %v", err)
	}
	if text := m.Console().Text(); !strings.Contains(text, "Power down") {
		t.Errorf("the console does not tell of the end:\n%s", text)
	}
}
