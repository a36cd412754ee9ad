package passwd

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"nixos-go/pkg/run"
)

// Strength is an estimate of how hard a password is to guess. It is told to
// the owner; it decides nothing.
type Strength struct {
	// Bits is the logarithm to base 2 of the guesses that it withstands.
	Bits float64
	// Reasons are what makes it weaker than its length.
	Reasons []string
}

// The limits in bits between the levels. A rig of a hundred graphics cards
// tries about 2^17 passwords a second against yescrypt or argon2id at these
// costs: 2^40 lasts it three months, 2^55 eight thousand years.
const (
	fairBits   = 30
	goodBits   = 40
	strongBits = 55
)

// Level is the estimate in a word.
func (s Strength) Level() string {
	switch {
	case s.Bits < fairBits:
		return "weak"
	case s.Bits < goodBits:
		return "fair"
	case s.Bits < strongBits:
		return "good"
	default:
		return "strong"
	}
}

// String is the estimate for a person. What is wrong with a strong password
// does not matter.
func (s Strength) String() string {
	text := fmt.Sprintf("%s (about %.0f bits)", s.Level(), s.Bits)
	if len(s.Reasons) > 0 && s.Bits < strongBits {
		text += ": " + strings.Join(s.Reasons, ", ")
	}
	return text
}

// common are beginnings of the passwords that people choose most.
var common = []string{
	"password", "passwort", "passw0rd", "qwerty", "qwertz", "azerty", "letmein", "welcome", "iloveyou",
	"admin", "root", "login", "master", "dragon", "monkey", "sunshine", "princess", "football", "baseball",
	"superman", "batman", "shadow", "michael", "jordan", "hunter", "trustno1", "secret", "changeme",
	"default", "hallo", "schatz", "ficken", "starwars", "whatever", "freedom", "nixos", "linux", "computer",
}

// rows are runs that a finger or the alphabet makes.
var rows = []string{
	"abcdefghijklmnopqrstuvwxyz", "0123456789", "qwertyuiop", "qwertzuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm",
}

// Estimate estimates a password. Words that an attacker would try first (the
// account's name, the machine's) count for little.
func Estimate(password []byte, words ...string) Strength {
	e := estimate{rest: bytes.ToLower(password), password: password}
	defer run.Wipe(e.rest)
	for _, word := range slices.Concat(words, common) {
		e.take([]byte(word))
	}
	e.runs()
	e.strength.Bits += float64(e.left) * e.bitsPerCharacter()
	if e.strength.Bits < fairBits && utf8.RuneCount(password) < 10 {
		e.strength.Reasons = append(e.strength.Reasons, "short")
	}
	return e.strength
}

type estimate struct {
	password []byte
	// rest is the password in lower case; what a pattern explains becomes 0.
	rest     []byte
	left     int // characters that no pattern explains
	strength Strength
}

const shortestWord = 4

// wordBits is what a word off a list is worth: its place in the list and how
// it is written.
const wordBits = 10

func (e *estimate) take(word []byte) {
	word = bytes.ToLower(word)
	if len(word) < shortestWord {
		return
	}
	for {
		at := bytes.Index(e.rest, word)
		if at < 0 {
			return
		}
		clear(e.rest[at : at+len(word)])
		e.strength.Bits += wordBits
		e.reason("a word that is tried first")
	}
}

func (e *estimate) reason(text string) {
	if !slices.Contains(e.strength.Reasons, text) {
		e.strength.Reasons = append(e.strength.Reasons, text)
	}
}

// runs counts what is left: a character that repeats or continues a run is
// worth next to nothing.
func (e *estimate) runs() {
	previous, before := rune(0), rune(0)
	for rest := e.rest; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		switch {
		case r == 0:
		case r == previous:
			e.strength.Bits++
			e.reason("repetition")
		case before != 0 && inRow(before, previous, r):
			e.strength.Bits++
			e.reason("a run of neighbours")
		default:
			e.left++
		}
		before, previous = previous, r
	}
}

// inRow tells whether three characters stand side by side in a row, in either
// direction.
func inRow(a, b, c rune) bool {
	for _, row := range rows {
		i := slices.Index([]rune(row), b)
		if i < 1 || i > len(row)-2 {
			continue
		}
		left, right := rune(row[i-1]), rune(row[i+1])
		if (a == left && c == right) || (a == right && c == left) {
			return true
		}
	}
	return false
}

// bitsPerCharacter follows the kinds of characters in use. People are not
// dice: of the theoretical value two thirds are counted.
func (e *estimate) bitsPerCharacter() float64 {
	kinds := map[string]int{}
	for rest := e.password; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		rest = rest[size:]
		switch {
		case r >= 'a' && r <= 'z':
			kinds["lower"] = 26
		case r >= 'A' && r <= 'Z':
			kinds["upper"] = 26
		case r >= '0' && r <= '9':
			kinds["digit"] = 10
		case r < utf8.RuneSelf:
			kinds["sign"] = 33
		default:
			kinds["other"] = 100
		}
	}
	alphabet := 0
	for _, n := range kinds {
		alphabet += n
	}
	if alphabet == 10 {
		e.reason("digits alone")
	}
	if alphabet == 0 {
		return 0
	}
	return math.Log2(float64(alphabet)) * 2 / 3
}
