package ui

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/quick"
	"time"
	"unicode/utf8"

	"nixos-go/pkg/testx/console"
)

func TestMessagesAndResultsAreApart(t *testing.T) {
	var out, err bytes.Buffer
	u := New(&out, &err, Options{})
	u.Infof("reading %s", "plan")
	u.Stepf("Wipe")
	u.Donef("done")
	u.Warnf("first\nsecond")
	u.Errorf("failed")
	u.Hintf("try again")
	if e := u.Print("result"); e != nil {
		t.Fatal(e)
	}
	want := "reading plan\n==> Wipe\nok: done\nwarning: first\n  second\nerror: failed\nhint: try again\n"
	if err.String() != want {
		t.Errorf("messages = %q, want %q", err.String(), want)
	}
	if out.String() != "result\n" {
		t.Errorf("results = %q, want \"result\\n\"", out.String())
	}
}

func TestColour(t *testing.T) {
	c := console.Open(t)
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for _, pair := range pairs {
				if value, ok := strings.CutPrefix(pair, name+"="); ok {
					return value
				}
			}
			return ""
		}
	}
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		name   string
		stream *os.File
		getenv func(string) string
		colour bool
	}{
		{"terminal", c.TTY(), env("TERM=xterm"), true},
		{"NO_COLOR", c.TTY(), env("TERM=xterm", "NO_COLOR=1"), false},
		{"dumb", c.TTY(), env("TERM=dumb"), false},
		{"file", file, env("TERM=xterm"), false},
	} {
		u := ForTerminal(test.stream, test.stream, test.getenv)
		if got := u.Out(Red, "x") != "x"; got != test.colour {
			t.Errorf("%s: colour = %v, want %v", test.name, got, test.colour)
		}
		if u.options.ColorErr != test.colour {
			t.Errorf("%s: colour of messages = %v, want %v", test.name, u.options.ColorErr, test.colour)
		}
	}
	u := ForTerminal(c.TTY(), c.TTY(), env("TERM=xterm"))
	u.Errorf("red")
	c.Expect("error: red\n")
	if !strings.Contains(c.Raw(), "\x1b[1;31merror:\x1b[0m red") {
		t.Errorf("the terminal got %q, want the first word alone in red", c.Raw())
	}
	if u.options.Width != 120 {
		t.Errorf("width = %d, want 120", u.options.Width)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	u := New(&out, &out, Options{})
	table := Table{Head: []string{"DISK", ">SIZE", "MODEL"}}
	table.Row("/dev/nvme0n1", "2 TB", "Samsung 990 PRO")
	table.Row("/dev/sdä", "16 GB", "")
	table.Row("/dev/sdb")
	if err := u.Table(&table); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"DISK           SIZE  MODEL",
		"/dev/nvme0n1   2 TB  Samsung 990 PRO",
		"/dev/sdä      16 GB",
		"/dev/sdb",
		"",
	}, "\n")
	if out.String() != want {
		t.Errorf("Table() =\n%s\nwant\n%s", out.String(), want)
	}
	if table.Len() != 3 {
		t.Errorf("Len() = %d, want 3", table.Len())
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	u := New(&out, &out, Options{})
	value := struct {
		Path

		Kind string `json:"kind"`
	}{JSONPath("/home/<b>"), "a&b"}
	if err := u.JSON(value); err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"path\": \"/home/<b>\",\n  \"kind\": \"a&b\"\n}\n"
	if out.String() != want {
		t.Errorf("JSON() = %q, want %q", out.String(), want)
	}
}

func TestJSONPathKeepsEveryByte(t *testing.T) {
	if p := JSONPath("caf\xe9"); p.Path != "" || p.PathBase64 != "Y2Fm6Q==" {
		t.Errorf("JSONPath(Latin-1) = %+v, want base64 alone", p)
	}
	err := quick.Check(func(name []byte) bool {
		p := JSONPath(string(name))
		back, err := p.Bytes()
		return err == nil && back == string(name) && utf8.ValidString(p.Path) && (p.Path == "" || p.PathBase64 == "")
	}, nil)
	if err != nil {
		t.Error(err)
	}
	if _, err := (Path{PathBase64: "!"}).Bytes(); err == nil {
		t.Error("Bytes() took what is no base64")
	}
}

func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"/home/alice/My Files/ü.txt": "/home/alice/My Files/ü.txt",
		"a\nb":                       `"a\nb"`,
		"\x1b[2J":                    `"\x1b[2J"`,
		"caf\xe9":                    `"caf\xe9"`,
		"\u202etxt":                  `"\u202etxt"`,
	} {
		if got := Printable(name); got != want {
			t.Errorf("Printable(%q) = %s, want %s", name, got, want)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB",
		-2048: "-2.0 KiB", 5 << 40: "5.0 TiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := Size(bytes); got != want {
			t.Errorf("Size(%d) = %s, want %s", bytes, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0 seconds", -time.Hour: "0 seconds", time.Second: "1 second", 90 * time.Second: "1 minute",
		50 * time.Hour: "2 days", 800 * 24 * time.Hour: "2 years",
	} {
		if got := Age(d); got != want {
			t.Errorf("Age(%v) = %s, want %s", d, got, want)
		}
	}
	for noun, want := range map[string]string{"file": "2 files", "directory": "2 directories", "day": "2 days", "key": "2 keys"} {
		if got := Count(2, noun); got != want {
			t.Errorf("Count(2, %q) = %s, want %s", noun, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	u := New(&out, &out, Options{})
	p := u.Progress("Scanning", 4)
	p.Add(1)
	p.Add(3)
	p.End()
	if out.Len() > 0 {
		t.Errorf("without a terminal: %q, want nothing", out.String())
	}
	out.Reset()
	u = New(&out, &out, Options{Live: true})
	p = u.Progress("Scanning", 20)
	u.Warnf("odd")
	p.drawn.Store(-int64(redraw)) // as if some time had passed
	p.Add(7)
	p.End()
	if want := "Scanning: 0 of 20 (0%)\r\x1b[Kwarning: odd\nScanning: 7 of 20 (35%)\r\x1b[K"; out.String() != want {
		t.Errorf("on a terminal: %q, want %q", out.String(), want)
	}
}

func TestLiveLines(t *testing.T) {
	var out bytes.Buffer
	u := New(&bytes.Buffer{}, &out, Options{ColorErr: true})
	if _, err := u.Live().Write([]byte("one\ntwo\n")); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[2m  one\x1b[0m\n\x1b[2m  two\x1b[0m\n"; out.String() != want {
		t.Errorf("Live() = %q, want %q", out.String(), want)
	}
}
