package console

import "testing"

func TestRendered(t *testing.T) {
	for _, test := range []struct{ name, shown, want string }{
		{"lines", "a\r\nbc\r\n", "a\nbc"},
		{"colour", "\x1b[32m?\x1b[0m yes", "? yes"},
		{"overwritten", "12345\rab", "ab345"},
		{"a choice that is redrawn", "? Which?\r\n> one\r\n  two\r\n\x1b[3A\x1b[2K? Which? two\r\n\x1b[J", "? Which? two\n"},
		{"saved and restored", "ab\x1b7cd\r\nef\x1b8XY", "abXY\nef"},
		{"erased to the end", "hello\x1b[3D\x1b[K", "he"},
		{"erased from the begin", "hello\x1b[3D\x1b[1K", "   lo"},
		{"characters of several bytes", "█▀ ä\b\bx", "█▀xä"},
		{"backwards and up beyond the edge", "\x1b[9A\x1b[9Da\x1b[2Gb\x1b[Cd", "ab d"},
	} {
		c := &Console{t: t, screen: []byte(test.shown)}
		if got := c.Rendered(); got != test.want {
			t.Errorf("%s: Rendered() = %q, want %q", test.name, got, test.want)
		}
	}
}

func TestColoured(t *testing.T) {
	for shown, want := range map[string]bool{"plain\r\n": false, "\x1b[2K\x1b[1A\x1b[?25l": false, "\x1b[1;31merror:\x1b[0m": true, "\x1b[m": true} {
		c := &Console{t: t, screen: []byte(shown)}
		if got := c.Coloured(); got != want {
			t.Errorf("%q: Coloured() = %t, want %t", shown, got, want)
		}
	}
}
