package qr_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"nixos-go/pkg/qr"
	"nixos-go/pkg/testx/luksfile"
)

// picture is a code as a black and white image (PBM), four pixels a module.
func picture(c *qr.Code) []byte {
	const scale, border = 4, 4
	side := (c.Size + 2*border) * scale
	var b bytes.Buffer
	fmt.Fprintf(&b, "P1\n%d %d\n", side, side)
	for y := range side {
		for x := range side {
			if c.Dark(x/scale-border, y/scale-border) {
				b.WriteString("1 ")
			} else {
				b.WriteString("0 ")
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// A real scanner reads every length that fits, and so every version.
func TestAgainstScanner(t *testing.T) {
	luksfile.Need(t, "zbarimg")
	const letters = "cbdefghijklnrtuv-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, length := range []int{1, 14, 15, 26, 27, 42, 43, 62, 63, 71, 84, 85, 106} {
		text := strings.Repeat(letters, 3)[:length]
		c, err := qr.Encode([]byte(text))
		if err != nil {
			t.Fatalf("Encode of %d bytes = %v", length, err)
		}
		file := filepath.Join(t.TempDir(), "code.pbm")
		if err := os.WriteFile(file, picture(c), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("zbarimg", "--quiet", "--raw", file).Output()
		if got := strings.TrimSuffix(string(out), "\n"); got != text || err != nil {
			t.Errorf("zbarimg reads %q, %v from a code of %d bytes, want %q", got, err, length, text)
		}
	}
}

func TestTooLong(t *testing.T) {
	if _, err := qr.Encode(make([]byte, 107)); err == nil {
		t.Error("Encode of 107 bytes = nil, want ErrTooLong")
	}
}

// The lines show exactly the modules, in both directions.
func TestLines(t *testing.T) {
	c, err := qr.Encode([]byte("hhhhhhhh-jjjjjjjj"))
	if err != nil {
		t.Fatal(err)
	}
	for _, inverted := range []bool{false, true} {
		for row, line := range c.Lines(inverted) {
			if got := utf8.RuneCountInString(line); got != c.Size+8 {
				t.Fatalf("Lines(%t): line %d has %d columns, want %d", inverted, row, got, c.Size+8)
			}
			for column, r := range []rune(line) {
				x, y := column-4, 2*row-4
				upper := r == '█' || r == '▀'
				if want := c.Dark(x, y) == inverted; upper != want {
					t.Fatalf("Lines(%t): module %d,%d is drawn %t, want %t", inverted, x, y, upper, want)
				}
				lower := r == '█' || r == '▄'
				if want := c.Dark(x, y+1) == inverted; y+1 < c.Size+4 && lower != want {
					t.Fatalf("Lines(%t): module %d,%d is drawn %t, want %t", inverted, x, y+1, lower, want)
				}
			}
		}
	}
}
