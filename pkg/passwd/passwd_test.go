package passwd_test

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"nixos-go/pkg/passwd"
)

// libcrypt is the oracle: perl's crypt() is the C library's.
func libcrypt(t *testing.T, password []byte, setting string) string {
	t.Helper()
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("no perl here, whose crypt() is libcrypt's")
	}
	command := exec.Command(perl, "-e", "local $/; print crypt(<STDIN>, $ARGV[0])", setting)
	command.Stdin = bytes.NewReader(password)
	out, err := command.Output()
	if err != nil {
		t.Fatalf("perl crypt: %v", err)
	}
	return string(out)
}

func TestHashAgainstLibcrypt(t *testing.T) {
	for _, password := range []string{"a", "correct horse battery staple", "pässwörd 🔒", strings.Repeat("x", 511), "$y$j9T$"} {
		hash, err := passwd.Hash([]byte(password))
		if err != nil {
			t.Errorf("Hash(%q) = %v", password, err)
			continue
		}
		if !strings.HasPrefix(hash, "$y$j9T$") || len(hash) != 73 {
			t.Errorf("Hash(%q) = %s (%d bytes), want the form $y$j9T$salt$hash of 73 bytes", password, hash, len(hash))
		}
		if got := libcrypt(t, []byte(password), hash); got != hash {
			t.Errorf("libcrypt hashes %q to %s, want %s", password, got, hash)
		}
	}
}

// Hashes that libcrypt's own mkpasswd made.
func TestVerify(t *testing.T) {
	const made = "$y$j9T$ecIFVUgKPts3scViKV3pq/$b04.G7lEGrTcfAAmggAZ19eVPgCDKQrRpPwiq63QUv7"
	for _, test := range []struct {
		password, hash string
		want           bool
		err            error
	}{
		{"test", made, true, nil},
		{"Test", made, false, nil},
		{"", made, false, nil},
		{"test", made[:len(made)-1] + "8", false, nil},
		{"test", "!" + made, false, passwd.ErrOtherHash},
		{"test", "$6$saltsalt$abc", false, passwd.ErrOtherHash},
		{"test", "!", false, passwd.ErrOtherHash},
		{"test", "$y$j9T$salt", false, passwd.ErrOtherHash},
		{"test", "", false, passwd.ErrOtherHash},
	} {
		got, err := passwd.Verify([]byte(test.password), test.hash)
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("Verify(%q, %q) = %t, %v, want %t, %v", test.password, test.hash, got, err, test.want, test.err)
		}
	}
}

func TestHashSalts(t *testing.T) {
	password := []byte("the same password")
	first, err := passwd.Hash(password)
	if err != nil {
		t.Fatal(err)
	}
	second, err := passwd.Hash(password)
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Errorf("Hash gave %s twice: the salt does not change", first)
	}
	if string(password) != "the same password" {
		t.Errorf("Hash changed the password to %q", password)
	}
}

func TestCheck(t *testing.T) {
	for password, want := range map[string]error{
		"":                       passwd.ErrEmpty,
		strings.Repeat("x", 511): nil,
		strings.Repeat("x", 512): passwd.ErrTooLong,
		"line\n":                 passwd.ErrControl,
		"nul\x00":                passwd.ErrControl,
		"ümläut":                 nil,
		"\xff\xfe":               nil,
	} {
		if err := passwd.Check([]byte(password)); !errors.Is(err, want) {
			t.Errorf("Check(%q) = %v, want %v", password, err, want)
		}
		if _, err := passwd.Hash([]byte(password)); !errors.Is(err, want) {
			t.Errorf("Hash(%q) = %v, want %v", password, err, want)
		}
	}
}

func TestShadowHash(t *testing.T) {
	const shadow = "root:*:19000:0:99999:7:::\nadmin:$y$j9T$a$b:20000::::::\nguest:!:1::::::\n"
	for account, want := range map[string]string{"admin": "$y$j9T$a$b", "root": "*", "guest": "!"} {
		if got, err := passwd.ShadowHash(strings.NewReader(shadow), account); got != want || err != nil {
			t.Errorf("ShadowHash(%s) = %q, %v, want %q", account, got, err, want)
		}
	}
	if _, err := passwd.ShadowHash(strings.NewReader(shadow), "adm"); !errors.Is(err, passwd.ErrNoAccount) {
		t.Errorf("ShadowHash(adm) = %v, want ErrNoAccount", err)
	}
}

func TestParseHashFile(t *testing.T) {
	for text, want := range map[string]string{"$y$a\n": "$y$a", "$y$a": "$y$a", "": "", "a\nb\n": "", "a:b": ""} {
		got, err := passwd.ParseHashFile(strings.NewReader(text))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseHashFile(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
}

// Only the order matters: what everybody chooses is weak, what dice choose is
// strong, and a longer one of the same kind is never weaker.
func TestEstimate(t *testing.T) {
	for password, want := range map[string]string{
		"password":                     "weak",
		"password1":                    "weak",
		"12345678901234567890":         "weak",
		"aaaaaaaaaaaaaaaaaaaaaaaa":     "weak",
		"alice2026":                    "weak",
		"hunter2":                      "weak",
		"Tr0ub4dor&3":                  "good",
		"correct horse battery staple": "strong",
		"kX9#vQ2!mZ7$pL4":              "strong",
		"":                             "weak",
	} {
		s := passwd.Estimate([]byte(password), "alice", "north")
		if got := s.Level(); got != want {
			t.Errorf("Estimate(%q) = %s, want %s", password, s, want)
		}
	}
	if s := passwd.Estimate([]byte("passwordpassword")); !strings.Contains(s.String(), "tried first") {
		t.Errorf("Estimate(passwordpassword) = %s, want the reason named", s)
	}
}

func FuzzEstimate(f *testing.F) {
	f.Add([]byte("password123"))
	f.Add([]byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, password []byte) {
		kept := bytes.Clone(password)
		s := passwd.Estimate(password, "alice")
		if !bytes.Equal(kept, password) {
			t.Errorf("Estimate changed the password")
		}
		if s.Bits < 0 || s.Bits > 8*float64(len(password)+2) {
			t.Errorf("Estimate(%q) = %.1f bits, beyond what its %d bytes hold", password, s.Bits, len(password))
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add("test", "$y$j9T$ecIFVUgKPts3scViKV3pq/$b04.G7lEGrTcfAAmggAZ19eVPgCDKQrRpPwiq63QUv7")
	f.Add("x", "$y$j../$$")
	f.Fuzz(func(t *testing.T, password, hash string) {
		if len(hash) > 6 && hash[4] > 'A' { // a cost that would take minutes
			return
		}
		same, err := passwd.Verify([]byte(password), hash)
		if same && err != nil {
			t.Errorf("Verify(%q, %q) = true and %v", password, hash, err)
		}
	})
}
