package keep

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseRule(t *testing.T) {
	tests := []struct {
		text string
		want string
		err  error
	}{
		{text: "/etc/ssh", want: "/etc/ssh"},
		{text: "//etc///ssh//", want: "/etc/ssh"},
		{text: "/home/*/.config/kde*", want: "/home/*/.config/kde*"},
		{text: "/a/**b***c", want: "/a/*b*c"},
		{text: "/ /\n/\"'\xff", want: "/ /\n/\"'\xff"},
		{text: "/...", want: "/..."},
		{text: "/.a/..b", want: "/.a/..b"},
		{text: "/.*", want: "/.*"},
		{text: "/.boot-ready", want: "/.boot-ready"},
		{text: "", err: ErrEmpty},
		{text: "/", err: ErrMountPoint},
		{text: "///", err: ErrMountPoint},
		{text: "etc", err: ErrNotAbsolute},
		{text: "*", err: ErrNotAbsolute},
		{text: " /etc", err: ErrNotAbsolute},
		{text: "/.", err: ErrDots},
		{text: "/a/./b", err: ErrDots},
		{text: "/a/..", err: ErrDots},
		{text: "/a\x00b", err: ErrNUL},
	}

	for _, tt := range tests {
		r, err := ParseRule(tt.text)
		if !errors.Is(err, tt.err) || r.String() != tt.want {
			t.Errorf("ParseRule(%q) = %q, %v, want %q, %v", tt.text, r, err, tt.want, tt.err)
		}

		var ruleErr *RuleError
		if tt.err != nil && (!errors.As(err, &ruleErr) || ruleErr.Rule != tt.text) {
			t.Errorf("ParseRule(%q) = %v, want a RuleError that names the rule", tt.text, err)
		}
	}
}

func TestNewSet(t *testing.T) {
	s, err := NewSet([]string{"/b/", "/a", "//a"}, []string{"/b/c"})
	if err != nil {
		t.Fatalf("NewSet = %v, want no error", err)
	}

	keep, exclude := s.Strings()
	if !slices.Equal(keep, []string{"/a", "/b"}) || !slices.Equal(exclude, []string{"/b/c"}) {
		t.Errorf("Strings() = %q, %q, want [/a /b], [/b/c]", keep, exclude)
	}

	same, err := NewSet([]string{"/a", "/b"}, []string{"/b/c", "/b//c"})
	if err != nil || !s.Equal(same) {
		t.Errorf("Equal(%v) = false, %v, want true", same, err)
	}

	other, err := NewSet([]string{"/a", "/b"}, nil)
	if err != nil || s.Equal(other) {
		t.Errorf("Equal(%v) = true, %v, want false", other, err)
	}

	for _, text := range []string{"/.boot-ready", "/.immutability-trash/x", "//.boot-ready/"} {
		if _, err := NewSet([]string{text}, nil); !errors.Is(err, ErrReservedName) || !strings.Contains(err.Error(), text) {
			t.Errorf("NewSet(keep %q) = %v, want %v", text, err, ErrReservedName)
		}

		if _, err := NewSet(nil, []string{text}); !errors.Is(err, ErrReservedName) {
			t.Errorf("NewSet(exclude %q) = %v, want %v", text, err, ErrReservedName)
		}
	}

	if _, err := NewSet([]string{"/a/.boot-ready"}, nil); err != nil {
		t.Errorf("NewSet(/a/.boot-ready) = %v, want no error below the root", err)
	}
}

// FuzzParseRule checks that what parses is stable and holds nothing forbidden.
func FuzzParseRule(f *testing.F) {
	for _, text := range []string{"", "/", "/a//b/", "/*/**", "/.", "/a/../b", "\x00", "/\xff\n", "a"} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRule(text)
		if err != nil {
			var ruleErr *RuleError
			if !errors.As(err, &ruleErr) || ruleErr.Rule != text {
				t.Fatalf("ParseRule(%q) = %v, want a RuleError that names the rule", text, err)
			}

			return
		}

		if len(r.Components()) == 0 {
			t.Fatalf("ParseRule(%q) has no components", text)
		}

		for _, c := range r.Components() {
			if c == "" || c == "." || c == ".." || strings.ContainsAny(c, "/\x00") || strings.Contains(c, "**") {
				t.Fatalf("ParseRule(%q) has the component %q", text, c)
			}
		}

		again, err := ParseRule(r.String())
		if err != nil || !slices.Equal(again.Components(), r.Components()) {
			t.Fatalf("ParseRule(%q) = %q, %v, want %q", r.String(), again, err, r)
		}
	})
}
